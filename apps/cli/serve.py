"""The commands `promptseg serve ...`: servers for other programs and for annotation tools."""

from __future__ import annotations

import importlib.util
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ...models.errors import InputError, PromptsegError
from ..console import describe_error, exit_code, say_error
from .options import Device, Dtype, ModelOptions, Preset, Weights

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..service.answers import Answerer

logger = logging.getLogger(__name__)

HTTP_PORT = 8000
_HIGHEST_PORT = 65535

serve_app = typer.Typer(help="Serve masks to other programs.", no_args_is_help=True)

Host = Annotated[
    str,
    typer.Option(
        "--host",
        help="Address to listen on; 0.0.0.0 opens it to the whole network, without a password.",
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        help="Another host name that the server answers to, such as a reverse proxy's.",
    ),
]
Port = Annotated[int, typer.Option("--port", min=0, max=_HIGHEST_PORT, help="0: any free port.")]
MaxPixels = Annotated[
    int, typer.Option("--max-pixels", min=10_000, help="Larger images are refused.")
]
_MAX_PIXELS = 4_000_000


@serve_app.command("http")
def http_command(
    host: Host = "127.0.0.1",
    port: Port = HTTP_PORT,
    allow_host: AllowHost = None,
    max_pixels: MaxPixels = _MAX_PIXELS,
    embeddings: Annotated[
        int, typer.Option("--embeddings", min=1, help="Encoded images that are kept.")
    ] = 64,
    embedding_mb: Annotated[
        int, typer.Option("--embedding-mb", min=1, help="Memory for them, in megabytes.")
    ] = 512,
    preset: Preset = "pocket",
    device: Device = "cpu",
    dtype: Dtype = "auto",
    weights: Weights = None,
) -> None:
    """Answer over HTTP: POST /segment, /everything, /embeddings; /openapi.json describes it."""
    with _told():
        _need("serve", "the HTTP service", "fastapi", "uvicorn", "cachetools", "python_multipart")
        models = ModelOptions(preset, device, dtype, weights)

        def build(answerer: Answerer) -> FastAPI:
            from ..service.http import build_service

            return build_service(answerer, host=host, allowed_hosts=allow_host or [])

        _serve(models, build, host, port, max_pixels, (embeddings, embedding_mb * 2**20))


@contextmanager
def _told() -> Iterator[None]:
    """Tell errors in one line, and end quietly when stopped."""
    errors = Console(stderr=True)
    # So that requests are finished even when a service manager ends it.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        errors.print("stopped", style="dim", highlight=False)
    except (PromptsegError, OSError, ImportError) as error:
        logger.debug("the server did not start", exc_info=True)
        say_error(errors, describe_error(error))
        raise typer.Exit(exit_code(error)) from error


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


def _need(extra: str, what: str, *modules: str) -> None:
    """Raise InputError if a package of an extra is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise InputError(f"{what} needs {module}; run: pip install 'promptseg[{extra}]'")


def _serve(
    models: ModelOptions,
    build: Callable[[Answerer], FastAPI],
    host: str,
    port: int,
    max_pixels: int,
    embeddings: tuple[int, int],
) -> None:
    """Load a preset and serve an app; ``embeddings`` are how many are kept, and their bytes."""
    console = Console(stderr=True)
    console.print("starting ...", style="dim", highlight=False)
    from ..service.answers import Answerer
    from ..service.run import run

    answerer = Answerer(
        models.load(),
        models.preset,
        max_pixels=max_pixels,
        most_embeddings=embeddings[0],
        embedding_capacity=embeddings[1],
    )

    def tell(url: str) -> None:
        console.print(f"serving {url} ; Ctrl-C stops it", highlight=False, soft_wrap=True)

    run(build(answerer), host=host, port=port, started=tell)
