"""Builds the web app and serves it; nothing is loaded from or sent to other machines."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
from gradio import queueing, routes
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ...models.errors import InputError
from ..service.limits import MAX_FILE_BYTES, MAX_PIXELS, MAX_STORED_BYTES
from .engine import Engine
from .folder import swept
from .guard import Guard
from .page import STYLE, make_page
from .request import Setup
from .stage import SCRIPT_URL, SCRIPTS

logger = logging.getLogger(__name__)

# Uploads and files made for download are deleted after two hours, and when the app ends.
KEEP_SECONDS = 2 * 60 * 60
# Sessions for which Gradio keeps what it last sent to the stage, up to about 2 MB for each.
MAX_SESSIONS = 250
# Requests waiting in the queue; further ones are asked to try again later.
MAX_WAITING = 100
# Seconds between two searches for old files.
SWEEP_SECONDS = 20
# Characters of an error in the log.
LOGGED = 200
# Requests answered at once that need no model: showing a picture, ranking again, downloads.
LIGHT_REQUESTS = 2

_FONT = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


class _Scripts(StaticFiles):
    """Files that browsers look up each time, so that no page runs those of another version."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


def build_app(
    setup: Setup | None = None, *, max_pixels: int = MAX_PIXELS, engine: Engine | None = None
) -> gr.Blocks:
    """Return the app, ready to be served.

    Args:
        setup: The models selected at first.
        max_pixels: Larger pictures are scaled down to this many pixels.
        engine: Answers requests; a new one by default.

    Raises:
        InputError: ``max_pixels`` is not positive.
    """
    page = make_page(engine or Engine(max_pixels), setup or Setup(), keep_seconds=KEEP_SECONDS)
    # Not open: the routes beside the queue would answer any number of requests at once.
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=LIGHT_REQUESTS, api_open=False)
    return page


def serve(
    page: gr.Blocks,
    *,
    host: str,
    port: int | None,
    allowed_hosts: Sequence[str] = (),
    started: Callable[[str], None],
) -> None:
    """Serve the app until it is interrupted.

    Args:
        page: From :func:`build_app`.
        host: Address to listen on.
        port: Port to listen on; None for the first free one from 7860.
        allowed_hosts: Further host names that the app answers to; see
            :class:`~promptseg.apps.web.guard.Guard`.
        started: Called with the app's URL once it accepts requests.

    Raises:
        InputError: The port is taken, or the address does not belong to this machine.
    """
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            # Of errors that are not ours, which may name paths of the server.
            show_error=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=["api"],
            max_file_size=MAX_FILE_BYTES,
            state_session_capacity=MAX_SESSIONS,
            theme=make_theme(),
            css_paths=STYLE,
            app_kwargs={
                "middleware": [Middleware(Guard, host=host, allowed=allowed_hosts)],
                "routes": [Mount(SCRIPT_URL, _Scripts(directory=SCRIPTS))],
            },
        )
    except OSError as error:
        place = f"{host}:{port}" if port is not None else host
        raise InputError(
            f"cannot listen on {place} ({' '.join(str(error).split())}); choose another --port or "
            "--host"
        ) from error
    kept = frozenset(path for block in page.blocks.values() for path in block.keep_in_cache)
    folder = Path(get_upload_folder())
    with swept(folder, kept, SWEEP_SECONDS, KEEP_SECONDS, MAX_STORED_BYTES), _brief_log():
        started(url)
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)


@contextlib.contextmanager
def _brief_log() -> Iterator[None]:
    """Have Gradio report a failed request on one short line.

    Its own report is a traceback that ends with the error's text, which can be the whole request.
    """

    def report() -> None:
        error = sys.exc_info()[1]
        text = " ".join(str(error)[:LOGGED].split())
        logger.error("a request failed: %s: %s", type(error).__name__, ascii(text))
        logger.debug("its traceback", exc_info=True)

    modules = (queueing, routes)
    before = [module.traceback for module in modules]
    for module in modules:
        setattr(module, "traceback", SimpleNamespace(print_exc=report))  # noqa: B010
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            setattr(module, "traceback", own)  # noqa: B010


def make_theme() -> gr.Theme:
    """Return the theme: muted colours and the system's own fonts."""
    return gr.themes.Base(
        primary_hue="sky",
        neutral_hue="slate",
        radius_size="md",
        font=_FONT,
        font_mono=_MONO,
    ).set(
        button_primary_background_fill="#0369a1",
        button_primary_background_fill_hover="#075985",
        button_primary_text_color="#ffffff",
        block_label_text_size="*text_sm",
    )
