"""Files of a result for download: every format of the exports, and a ZIP of all."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from ...pipeline.checks import BoolArray, UInt8Array
from ...pipeline.drawing import draw_overlay
from ...pipeline.result import Result
from ...pipeline.saving import slug
from ..exports import FORMATS, exporter_class
from ..exports.run import Exports

# What the formats cannot hold of a result is said there.
NOTES_FILE = "notes.txt"


def write_cutout(folder: Path, picture: Path, pixels: UInt8Array, result: Result) -> Path:
    """Write what all masks cover together as one PNG, transparent around it."""
    covered: BoolArray = np.any(result.masks, axis=0)
    alpha = covered.astype(np.uint8) * 255
    path = folder / f"{slug(picture.stem)}-cutout.png"
    Image.fromarray(np.dstack([pixels * covered[..., None], alpha])).save(path, compress_level=3)
    return path


def write_format(
    name: str, folder: Path, picture: Path, pixels: UInt8Array, result: Result
) -> Path:
    """Write a format as one file: the format's own, or a ZIP if it has several.

    Args:
        name: One of FORMATS.
        folder: Where to.
        picture: The photograph; its name is what counts.
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


def _pack(inside: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(inside.rglob("*")):
            archive.write(path, path.relative_to(inside.parent))
    return target
