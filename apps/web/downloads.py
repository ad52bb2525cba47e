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
from .desk import Desk
from .plain import plain
from .results import Thresholds

# Writes a result to a folder, given the picture's file name, its pixels and the result.
Writer = Callable[[Path, Path, UInt8Array, Result], Path]


def write_coco(folder: Path, picture: Path, pixels: UInt8Array, result: Result) -> Path:
    """Write the masks as a COCO file."""
    return write_format("coco", folder, picture, pixels, result)


_WHAT = (
    '<p class="quiet">Downloads have all objects of the list, hidden ones too; while it is empty, '
    "what is found.</p>"
)
# For each button: its id, its text, and what writes its file.
BUTTONS: tuple[tuple[str, str, Writer], ...] = (
    ("cutout", "Cut-out PNG", write_cutout),
    ("coco", "COCO JSON", write_coco),
    ("zip", "All as ZIP", write_zip),
)


def add_downloads(desk: Desk) -> None:
    """Add the download buttons; call it inside a Blocks context.

    A visible button writes the file; then a hidden one beside it downloads that.
    """
    gr.HTML(_WHAT, elem_id="download-note")
    with gr.Row(elem_id="downloads"):
        for name, words, writer in BUTTONS:
            button = gr.Button(words, size="sm", min_width=90, elem_id=f"download-{name}")
            link = plain(gr.DownloadButton)(visible="hidden", elem_id=f"link-{name}")
            made = button.click(
                _handler(desk, link, writer), desk.inputs, [link], api_visibility="private"
            )
            made.success(None, None, None, js=_press(f"link-{name}"), api_visibility="private")


def _handler(desk: Desk, link: Any, writer: Writer) -> Callable[..., str]:
    """Return the handler that writes a button's file."""

    @plainly
    def write(key: str, chosen: Any, min_score: float, top_k: float, part: str) -> str:
        sheet = desk.sheet(key)
        if sheet.on_stage is None:
            raise InputError("there is nothing to download yet; find something first")
        if len(sheet.objects):
            result: Result | None = sheet.objects.to_result(desk.size(sheet))
        else:
            result = desk.view.chosen(sheet, Thresholds(min_score, top_k, part))
        if result is None:
            raise InputError("there is nothing to download yet; find something first")
        pixels = desk.engine.read(sheet.on_stage)
        with tempfile.TemporaryDirectory() as folder:
            path = writer(Path(folder), sheet.on_stage, pixels, result)
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
