"""The command `promptseg app`: the web app, for the browser on this machine or in this network."""

from __future__ import annotations

import importlib.util
import logging
import signal
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from ...models.errors import InputError, PromptsegError
from ..console import describe_error, exit_code, say_error

logger = logging.getLogger(__name__)

_HIGHEST_PORT = 65535


def app_command(
    preset: Annotated[
        str, typer.Option("--preset", help="Which set of models is chosen at first.")
    ] = "pocket",
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; 0.0.0.0 lets the whole network in."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=_HIGHEST_PORT, help="Without it: a free one from 7860 on."
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:0, mps ...")] = "cpu",
    max_pixels: Annotated[
        int,
        typer.Option("--max-pixels", min=10_000, help="Larger pictures are scaled down to that."),
    ] = 4_000_000,
) -> None:
    """Open the web app: type, show or click what you want in a browser."""
    errors, console = Console(stderr=True), Console()
    try:
        if importlib.util.find_spec("gradio") is None:
            raise InputError("the web app needs gradio; run: pip install 'promptseg[app]'")
        console.print("starting ...", style="dim", highlight=False)
        # So that its files are removed also when a service manager ends it.
        signal.signal(signal.SIGTERM, _interrupt)
        _run(preset, host, port, device, max_pixels, console, errors)
    except KeyboardInterrupt:
        console.print("stopped", style="dim", highlight=False)
    except (PromptsegError, OSError, ImportError) as error:
        logger.debug("the app did not start", exc_info=True)
        say_error(errors, describe_error(error))
        raise typer.Exit(exit_code(error)) from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


def _run(
    preset: str,
    host: str,
    port: int | None,
    device: str,
    max_pixels: int,
    console: Console,
    errors: Console,
) -> None:
    from ...models.errors import CheckpointError
    from ..web.engine import Engine
    from ..web.request import Setup
    from ..web.server import build_app, own_folder, serve

    setup = Setup(preset, device)
    engine = Engine(max_pixels)
    try:
        engine.pipeline(setup)
    except CheckpointError as error:
        # The page says it as well, and other presets may be ready.
        say_error(errors, describe_error(error))

    def tell(url: str) -> None:
        console.print(f"open {url} in a browser; Ctrl-C ends it", highlight=False, soft_wrap=True)

    with own_folder():
        serve(build_app(setup, engine=engine), host=host, port=port, started=tell)
