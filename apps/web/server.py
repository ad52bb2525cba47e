"""The web app's entry: builds the page and serves it, with nothing from other machines."""

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

# Uploads, and files for download, are deleted after two hours, and when the app ends.
KEEP_SECONDS = 2 * 60 * 60
MAX_UPLOAD = "50mb"
# Sessions whose choices are remembered; their pictures and masks are bounded by the engine.
MOST_SESSIONS = 1000
# Requests that wait in a queue; who comes after them is told to try later.
MOST_WAITING = 100
# For what needs no models: showing a picture, ranking again, files.
LIGHT_REQUESTS = 2

_FONT = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def build_app(
    setup: Setup | None = None, *, max_pixels: int = MAX_PIXELS, engine: Engine | None = None
) -> gr.Blocks:
    """Return the app, not served yet.

    Args:
        setup: The models that are chosen at first.
        max_pixels: Larger pictures are scaled down to as many pixels.
        engine: Answers requests; by default a new one.

    Raises:
        InputError: ``max_pixels`` is not positive.
    """
    page = make_page(engine or Engine(max_pixels), setup or Setup(), keep_seconds=KEEP_SECONDS)
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=LIGHT_REQUESTS)
    return page


def serve(page: gr.Blocks, *, host: str, port: int | None, started: Callable[[str], None]) -> None:
    """Serve the app until it is interrupted.

    Args:
        page: From :func:`build_app`.
        host: Address to listen on.
        port: Port; None takes a free one from 7860 on.
        started: Called with the address when the app can be used.

    Raises:
        InputError: The port is taken, or the address is none of this machine's.
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
            state_session_capacity=MOST_SESSIONS,
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
    """Let Gradio keep its files in a folder of this process, and send nothing to anybody.

    To be entered before the app is built; at the end the folder is removed.
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
    """Return the look: quiet colours, and the fonts that the reader's system has."""
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
