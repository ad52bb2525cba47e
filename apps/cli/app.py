"""The command `promptseg app`: the web app, on this machine or for the local network."""

from __future__ import annotations

import importlib.util
import logging
import signal
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ...models.errors import InputError, PromptsegError
from ..console import describe_error, exit_code, say_error
from .options import CACHE_GB, Cache, CacheSize, Device, Dtype, ModelOptions, Preset, Weights

if TYPE_CHECKING:
    from ...pipeline.pipeline import Pipeline

logger = logging.getLogger(__name__)

_HIGHEST_PORT = 65535


def app_command(
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; 0.0.0.0 opens it to the whole network."),
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            help="Another host name that the app answers to, such as a reverse proxy's.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=1, max=_HIGHEST_PORT, help="Default: the first free port from 7860."
        ),
    ] = None,
    max_pixels: Annotated[
        int,
        typer.Option(
            "--max-pixels", min=10_000, help="Larger images are scaled down to this many pixels."
        ),
    ] = 4_000_000,
    preset: Preset = "pocket",
    device: Device = "cpu",
    dtype: Dtype = "auto",
    weights: Weights = None,
    cache: Cache = None,
    cache_gb: CacheSize = CACHE_GB,
) -> None:
    """Open the web app: type, show or click what you want in a browser."""
    errors, console = Console(stderr=True), Console()
    try:
        if importlib.util.find_spec("gradio") is None:
            raise InputError("the web app needs gradio; run: pip install 'promptseg[app]'")
        console.print("starting ...", style="dim", highlight=False)
        # So that its files are removed even when a service manager ends it.
        signal.signal(signal.SIGTERM, _interrupt)
        models = ModelOptions(preset, device, dtype, weights, cache=cache, cache_gb=cache_gb)
        _run(models, host, port, allow_host or [], max_pixels, console, errors)
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
    models: ModelOptions,
    host: str,
    port: int | None,
    allowed_hosts: list[str],
    max_pixels: int,
    console: Console,
    errors: Console,
) -> None:
    from ..web.folder import own_folder

    with own_folder():  # before Gradio is imported
        _serve(models, host, port, allowed_hosts, max_pixels, console, errors)


def _serve(
    models: ModelOptions,
    host: str,
    port: int | None,
    allowed_hosts: list[str],
    max_pixels: int,
    console: Console,
    errors: Console,
) -> None:
    from ...models.errors import CheckpointError
    from ..web.engine import Engine
    from ..web.request import Setup
    from ..web.server import build_app, serve

    def load(preset: str, device: str) -> Pipeline:
        return replace(models, preset=preset, device=device).load()

    # The page starts with these and may choose others.
    setup = Setup(models.preset, models.device)
    engine = Engine(max_pixels, load)
    try:
        engine.pipeline(setup)
    except CheckpointError as error:
        # The page says so as well, and other presets may be ready.
        say_error(errors, describe_error(error))

    def tell(url: str) -> None:
        console.print(f"open {url} in a browser; Ctrl-C stops it", highlight=False, soft_wrap=True)

    serve(
        build_app(setup, engine=engine),
        host=host,
        port=port,
        allowed_hosts=allowed_hosts,
        started=tell,
    )
