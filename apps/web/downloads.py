"""Downloads: a result as a cut-out, in any export format, or as a ZIP with all of it."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ...models.errors import InputError
from ...pipeline.checks import BoolArray, UInt8Array
from ...pipeline.drawing import draw_overlay
from ...pipeline.result import Result
from ...pipeline.saving import slug
from ..exports import FORMATS, exporter_class
from ..exports.run import Exports
from .actions import plainly
from .results import ResultView, Shown, choose_part

# Lists what the formats could not represent.
NOTES_FILE = "notes.txt"

# Writes a result to a folder, given the picture's file name, its pixels and the result.
Writer = Callable[[Path, Path, UInt8Array, Result], Path]


def write_cutout(folder: Path, picture: Path, pixels: UInt8Array, result: Result) -> Path:
    """Write the area that the masks cover as one PNG, transparent elsewhere."""
    covered: BoolArray = np.any(result.masks, axis=0)
    alpha = covered.astype(np.uint8) * 255
    path = folder / f"{slug(picture.stem)}-cutout.png"
    Image.fromarray(np.dstack([pixels * covered[..., None], alpha])).save(path, compress_level=3)
    return path


def write_coco(folder: Path, picture: Path, pixels: UInt8Array, result: Result) -> Path:
    """Write the masks as a COCO file."""
    return write_format("coco", folder, picture, pixels, result)


def write_format(
    name: str, folder: Path, picture: Path, pixels: UInt8Array, result: Result
) -> Path:
    """Write a result in one format: as the format's single file, or else as a ZIP of its files.

    Args:
        name: One of FORMATS.
        folder: Where to write.
        picture: The photograph; only its name is used.
        pixels: (H, W, 3) uint8 RGB.
        result: What was found in it.

    Raises:
        InputError: There is no such format.
    """
    inside = folder / name
    with exporter_class(name)(inside) as exporter:
        exporter.add(picture.name, pixels, result)
    written = [path for path in inside.rglob("*") if path.is_file()]
    stem = f"{slug(picture.stem)}-{name}"
    if len(written) == 1:
        return written[0].rename(folder / f"{stem}{written[0].suffix}")
    return _pack(inside, folder / f"{stem}.zip")


def write_zip(folder: Path, picture: Path, pixels: UInt8Array, result: Result) -> Path:
    """Write a ZIP with the photograph as it was searched, the overlay, and every format."""
    stem = slug(picture.stem)
    inside = folder / stem
    inside.mkdir()
    photograph = inside / f"{stem}.png"
    Image.fromarray(pixels).save(photograph, compress_level=1)
    Image.fromarray(draw_overlay(pixels, result)).save(inside / "overlay.png", compress_level=1)
    with Exports(list(FORMATS), inside, [photograph], root=inside) as exports:
        notes = exports.add(photograph, pixels, result)
    if notes:
        (inside / NOTES_FILE).write_text("\n".join(notes) + "\n", encoding="utf-8")
    return _pack(inside, folder / f"{stem}.zip")


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
            link = gr.DownloadButton(visible="hidden", elem_id=f"link-{name}")
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


def _pack(inside: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(inside.rglob("*")):
            archive.write(path, path.relative_to(inside.parent))
    return target
