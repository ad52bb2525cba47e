"""The commands `promptseg serve ...`: servers for other programs and for annotation tools."""

from __future__ import annotations

import importlib.util
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
# Where Label Studio's own backends listen.
LABEL_STUDIO_PORT = 9090
_HTTP_MODULES = ("fastapi", "uvicorn", "cachetools", "python_multipart")
# Encoded images that are kept, and bytes.
_EMBEDDINGS = (64, 512 * 2**20)
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
        _need("serve", "the HTTP service", *_HTTP_MODULES)
        models = ModelOptions(preset, device, dtype, weights)

        def build(answerer: Answerer) -> FastAPI:
            from ..service.http import build_service

            return build_service(answerer, host=host, allowed_hosts=allow_host or [])

        _serve(models, build, host, port, max_pixels, (embeddings, embedding_mb * 2**20))


@serve_app.command("label-studio")
def label_studio_command(
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="LABEL_STUDIO_URL",
            help="Address of Label Studio; images are fetched from there and from nowhere else.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="LABEL_STUDIO_API_KEY",
            help="A user's access token there; better given by the variable.",
        ),
    ] = None,
    local_files: Annotated[
        Path | None,
        typer.Option(
            "--local-files",
            envvar="LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT",
            metavar="DIR",
            help="Folder that Label Studio serves as local files, to read them directly.",
        ),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = LABEL_STUDIO_PORT,
    allow_host: AllowHost = None,
    max_pixels: MaxPixels = _MAX_PIXELS,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="Most masks for each label.")
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option("--min-score", min=0.0, max=1.0, help="Least score of a mask."),
    ] = None,
    preset: Preset = "pocket",
    device: Device = "cpu",
    dtype: Dtype = "auto",
    weights: Weights = None,
) -> None:
    """Be an ML backend of Label Studio: pre-annotation by label names, clicks, boxes, text."""
    with _told():
        _need("label-studio", "the backend", *_HTTP_MODULES, "httpx")
        models = ModelOptions(preset, device, dtype, weights)
        from ..label_studio.images import TaskImages

        images = TaskImages(url, token, local_files)

        def build(answerer: Answerer) -> FastAPI:
            from ..label_studio.backend import build_backend
            from ..service.answers import Ranking

            return build_backend(
                answerer,
                images,
                host=host,
                allowed_hosts=allow_host or [],
                ranking=Ranking(top_k=top_k, min_score=min_score),
            )

        _serve(models, build, host, port, max_pixels, _EMBEDDINGS)


@serve_app.command("mcp")
def mcp_command(
    root: Annotated[
        Path,
        typer.Option(
            "--root", metavar="DIR", help="Folder of the pictures; no file elsewhere is touched."
        ),
    ] = Path(),
    max_pixels: MaxPixels = _MAX_PIXELS,
    preset: Preset = "pocket",
    device: Device = "cpu",
    dtype: Dtype = "auto",
    weights: Weights = None,
) -> None:
    """Be an MCP server on standard input and output: tools that find masks, for assistants."""
    with _told():
        _need("mcp", "the MCP server", "mcp", "cachetools")
        models = ModelOptions(preset, device, dtype, weights)
        if not root.is_dir():
            raise InputError(f"--root: {str(root)!r} is not a folder; give the one of the pictures")
        answerer = _load(models, max_pixels, _EMBEDDINGS)
        from ..mcp import build_mcp_server

        build_mcp_server(answerer, root).run("stdio")


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


def _load(models: ModelOptions, max_pixels: int, embeddings: tuple[int, int]) -> Answerer:
    """Load a preset; ``embeddings`` are how many are kept, and their bytes."""
    Console(stderr=True).print("starting ...", style="dim", highlight=False)
    from ..service.answers import Answerer

    return Answerer(
        models.load(),
        models.preset,
        max_pixels=max_pixels,
        most_embeddings=embeddings[0],
        embedding_capacity=embeddings[1],
    )


def _serve(
    models: ModelOptions,
    build: Callable[[Answerer], FastAPI],
    host: str,
    port: int,
    max_pixels: int,
    embeddings: tuple[int, int],
) -> None:
    """Load a preset and serve an app until told to stop."""
    from ..service.run import bind, run

    console = Console(stderr=True)

    def tell(url: str) -> None:
        console.print(f"serving {url} ; Ctrl-C stops it", highlight=False, soft_wrap=True)

    with bind(host, port) as listener:  # before models are loaded: a taken port is told at once
        run(build(_load(models, max_pixels, embeddings)), listener, tell)
