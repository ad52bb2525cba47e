"""Builds the web app and serves it; nothing is loaded from or sent to other machines."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

import gradio as gr

from ...models.errors import InputError
from .engine import MAX_PIXELS, Engine
from .page import STYLE, make_page
from .request import Setup

logger = logging.getLogger(__name__)

# Uploads and files made for download are deleted after two hours, and when the app ends.
KEEP_SECONDS = 2 * 60 * 60
MAX_UPLOAD = "50mb"
# Sessions whose state is kept; the engine limits the memory for pictures and masks.
MAX_SESSIONS = 1000
# Requests waiting in the queue; further ones are asked to try again later.
MAX_WAITING = 100
# Requests answered at once that need no model: showing a picture, ranking again, downloads.
LIGHT_REQUESTS = 2

_FONT = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


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
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=LIGHT_REQUESTS)
    return page


def serve(page: gr.Blocks, *, host: str, port: int | None, started: Callable[[str], None]) -> None:
    """Serve the app until it is interrupted.

    Args:
        page: From :func:`build_app`.
        host: Address to listen on.
        port: Port to listen on; None for the first free one from 7860.
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
            show_error=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=["api"],
            max_file_size=MAX_UPLOAD,
            state_session_capacity=MAX_SESSIONS,
            theme=make_theme(),
            css_paths=STYLE,
        )
    except OSError as error:
        place = f"{host}:{port}" if port is not None else host
        raise InputError(
            f"cannot listen on {place} ({' '.join(str(error).split())}); choose another --port or "
            "--host"
        ) from error
    started(url)
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)


@contextlib.contextmanager
def own_folder() -> Iterator[None]:
    """Have Gradio keep its files in a temporary folder, and turn its analytics off.

    Enter it before building the app; on exit the folder is removed.
    """
    names = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY")
    before = {name: os.environ.get(name) for name in names}
    folder = tempfile.mkdtemp(prefix="promptseg-app-")
    os.environ.update(dict(zip(names, (folder, "False", "1"), strict=True)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


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
