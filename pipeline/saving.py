"""Writing a result: result.json, an overlay and one PNG a mask, all or nothing."""

from __future__ import annotations

import io
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..models.errors import InputError
from ..models.foreign import decode_json, read_regular
from .files import find_leftovers, remove_leftovers, write_files

if TYPE_CHECKING:
    from PIL import Image

    from .checks import UInt8Array
    from .compact_mask import CompactMask
    from .drawing import RankedMasks

RESULT_FILE = "result.json"
OVERLAY_FILE = "overlay.png"
_MASK_FILE = re.compile(r"mask_\d{2,}_[a-z0-9-]+\.png")
_LONGEST_SLUG = 40
_LARGEST_RECORD = 2**30


def file_names(folder: Path, result: RankedMasks) -> dict[str, Any]:
    """Return the names of the files that `write_outputs` makes for a result, and their folder."""
    return {
        # Bytes of a path that are not UTF-8 cannot be in JSON; they become "?".
        "folder": str(folder).encode("utf-8", "replace").decode("utf-8"),
        "overlay": OVERLAY_FILE,
        "masks": mask_names(result.labels),
    }


def mask_names(labels: Sequence[str]) -> list[str]:
    """Return a name for each mask's PNG, by its number from 1 and its label."""
    return [f"mask_{i:02d}_{slug(label)}.png" for i, label in enumerate(labels, 1)]


def is_output_name(name: str) -> bool:
    """Return whether a file of a result can have this name."""
    return name in (RESULT_FILE, OVERLAY_FILE) or _MASK_FILE.fullmatch(name) is not None


def render_outputs(
    image: UInt8Array, result: RankedMasks, record: Mapping[str, Any]
) -> dict[str, bytes]:
    """Return the content of the masks, the overlay and, last, result.json, by name.

    Args:
        image: (H, W, 3) uint8 RGB.
        result: What was found in it.
        record: JSON-able content of result.json.
    """
    from PIL import Image

    from .drawing import draw_overlay, overlay_factor

    files: dict[str, bytes] = {}
    for mask, name in zip(result.compact_masks, mask_names(result.labels), strict=True):
        files[name] = _to_png(mask_picture(mask))
    # The overlay of a large photograph is large too; little compression saves seconds.
    overlay = Image.fromarray(draw_overlay(image, result, factor=overlay_factor(result.image_size)))
    files[OVERLAY_FILE] = _to_png(overlay, compress_level=1)
    files[RESULT_FILE] = (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()
    return files


def overlay_note(image_size: tuple[int, int]) -> str:
    """Return what to tell of an overlay that is smaller than its image (H, W); "" if none is."""
    from .drawing import overlay_factor

    factor = overlay_factor(image_size)
    if factor == 1:
        return ""
    height, width = (-(-side // factor) for side in image_size)
    return f"{OVERLAY_FILE} is reduced to {width} x {height} pixels; the masks are not"


def mask_picture(mask: CompactMask) -> Image.Image:
    """Return a mask as a picture: white inside, black outside."""
    import numpy as np
    from PIL import Image

    from .masks import cut

    grey = np.zeros(mask.size, np.uint8)
    cut(grey, mask.box)[mask.part()] = 255
    return Image.fromarray(grey)


def write_outputs(
    folder: Path,
    image: UInt8Array,
    result: RankedMasks,
    record: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write result.json, the overlay and the masks into a folder, made if need be.

    Everything is written to a hidden folder first and moved when complete, result.json last: where
    it stands, all it names stands too. The files that an earlier result.json names are replaced, or
    removed, and so is what a killed run left; other files are left alone.

    Args:
        folder: Where to write.
        image: (H, W, 3) uint8 RGB.
        result: What was found in it.
        record: JSON-able content of result.json.
        overwrite: Also replace files of these names that no earlier result.json names.

    Raises:
        InputError: A file in the way is not one of an earlier result.
        OSError: The folder cannot be made or written to.
    """
    # A killed run may have moved some of its files already.
    places = (folder, *find_leftovers(folder))
    earlier = set().union(*(_earlier_files(place) for place in places))
    files = render_outputs(image, result, record)
    for name in files:
        path = folder / name
        if not os.path.lexists(path):
            continue
        if path.is_dir() and not path.is_symlink():
            raise InputError(f"{str(path)!r} is a folder, where a file should be; move it away")
        if name not in earlier and not overwrite:
            raise InputError(
                f"{str(path)!r} is not a file of an earlier result; move it away, give another "
                "folder, or replace it with overwrite=True"
            )
    remove_leftovers(folder)
    write_files(folder, files)
    for name in earlier - set(files):
        (folder / name).unlink(missing_ok=True)


def slug(text: str) -> str:
    """Return a phrase as part of a file name: a-z, 0-9 and hyphens; "mask" if nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    joined = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    return joined[:_LONGEST_SLUG].strip("-") or "mask"


def _to_png(image: Image.Image, *, compress_level: int = 6) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=compress_level)
    return content.getvalue()


class _Files(msgspec.Struct):
    masks: list[str]


class _Record(msgspec.Struct):
    files: _Files


def _earlier_files(folder: Path) -> set[str]:
    """Return the files of the result in a folder, if its result.json is one of ours."""
    try:
        content = read_regular(folder / RESULT_FILE, RESULT_FILE, limit=_LARGEST_RECORD)
        record = decode_json(content, _Record, RESULT_FILE)
    except InputError:
        return set()
    # Only names of our own making: a doctored file must not make us delete others.
    masks = {name for name in record.files.masks if _MASK_FILE.fullmatch(name)}
    return {RESULT_FILE, OVERLAY_FILE, *masks}
