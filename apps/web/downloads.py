"""Downloads: a result as a cut-out, in any export format, or as a ZIP with all of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from ...models.errors import InputError
from ...pipeline.checks import UInt8Array
from ...pipeline.result import Result
from ..exports.run import write_cutout, write_format, write_zip
from .actions import plainly
from .results import ResultView, Shown, choose_part
from .tabs import plain

# Writes a result to a folder, given the picture's file name, its pixels and the result.
Writer = Callable[[Path, Path, UInt8Array, Result], Path]


def write_coco(folder: Path, picture: Path, pixels: UInt8Array, result: Result) -> Path:
    """Write the masks as a COCO file."""
    return write_format("coco", folder, picture, pixels, result)


# For each button: its id, its text, and what writes its file.
BUTTONS: tuple[tuple[str, str, Writer], ...] = (
    ("cutout", "Cut-out PNG", write_cutout),
    ("coco", "COCO JSON", write_coco),
    ("zip", "All as ZIP", write_zip),
)


def add_downloads(view: ResultView) -> None:
    """Add the download buttons; call it inside a Blocks context.

    A visible button writes the file; then a hidden one beside it downloads that.
    """
    inputs = [view.shown, *view.thresholds]
    with gr.Row(elem_id="downloads"):
        for name, words, writer in BUTTONS:
            button = gr.Button(words, size="sm", min_width=90, elem_id=f"download-{name}")
            link = plain(gr.DownloadButton)(visible="hidden", elem_id=f"link-{name}")
            made = button.click(
                _handler(view, link, writer), inputs, [link], api_visibility="private"
            )
            made.success(None, None, None, js=_press(f"link-{name}"), api_visibility="private")


def _handler(view: ResultView, link: Any, writer: Writer) -> Callable[..., str]:
    """Return the handler that writes a button's file."""

    @plainly
    def write(shown: Shown, min_score: float, top_k: float, part: str) -> str:
        request = shown.request
        if request is None:
            raise InputError("there is nothing to download yet; find something first")
        result = view.ranked(shown, min_score, top_k)
        if request.marks.is_lone_click and not request.wanted:
            result = choose_part(result, part)
        pixels = view.engine.read(request.picture)
        with tempfile.TemporaryDirectory() as folder:
            path = writer(Path(folder), request.picture, pixels, result)
            # Gradio keeps a copy and deletes it when it expires.
            kept: str = link.move_resource_to_block_cache(path)
        return kept

    return write


def _press(elem_id: str) -> str:
    """Return JavaScript that presses a hidden button once the page has its new file."""
    return f"""() => {{
        setTimeout(() => document.querySelector('#{elem_id}').click(), 150);
        return [];
    }}"""
