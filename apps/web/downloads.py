"""Results as files: a cut-out, a COCO file, or all of it in a ZIP, made when they are asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ...models.errors import InputError
from ...pipeline.checks import UInt8Array
from ...pipeline.result import Result
from .actions import plainly
from .files import write_cutout, write_format, write_zip
from .results import ResultView, Shown, choose_part

# Writes a file into a folder: of a picture's name, its pixels and its result.
Writer = Callable[[Path, Path, UInt8Array, Result], Path]


def write_coco(folder: Path, picture: Path, pixels: UInt8Array, result: Result) -> Path:
    """Write the masks as a COCO file."""
    return write_format("coco", folder, picture, pixels, result)


# What each button is called, what it says and what it makes.
BUTTONS: tuple[tuple[str, str, Writer], ...] = (
    ("cutout", "Cut-out PNG", write_cutout),
    ("coco", "COCO JSON", write_coco),
    ("zip", "ZIP of all", write_zip),
)


def add_downloads(view: ResultView) -> None:
    """Add the buttons, within a Blocks context.

    A button has its file made, and a hidden one beside it downloads that.
    """
    inputs = [view.shown, *view.thresholds]
    with gr.Row(elem_id="downloads"):
        for name, words, writer in BUTTONS:
            button = gr.Button(words, size="sm", min_width=90, elem_id=f"download-{name}")
            link = gr.DownloadButton(visible="hidden", elem_id=f"link-{name}")
            made = button.click(
                _maker(view, link, writer), inputs, [link], api_visibility="private"
            )
            made.success(None, None, None, js=_follow(f"link-{name}"), api_visibility="private")


def _maker(view: ResultView, link: Any, writer: Writer) -> Callable[..., str]:
    """Return the handler that makes a button's file."""

    @plainly
    def make(shown: Shown, min_score: float, top_k: float, part: str) -> str:
        request = shown.request
        if request is None:
            raise InputError("there is nothing to download yet; find something first")
        result = view.ranked(shown, min_score, top_k)
        if request.marks.lone_click and not request.wanted:
            result = choose_part(result, part)
        pixels = view.engine.read(request.picture)
        with tempfile.TemporaryDirectory() as folder:
            path = writer(Path(folder), request.picture, pixels, result)
            # Gradio's copy, which it deletes when its time has come.
            kept: str = link.move_resource_to_block_cache(path)
        return kept

    return make


def _follow(elem_id: str) -> str:
    """JavaScript that presses a hidden button, once the page has given it its new file."""
    return f"""() => {{
        setTimeout(() => document.querySelector('#{elem_id}').click(), 150);
        return [];
    }}"""
