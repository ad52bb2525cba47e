"""Writing a result: result.json, an overlay and one PNG a mask, all or nothing."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.errors import InputError
from ..models.foreign import read_regular
from .files import find_leftovers, remove_leftovers, staging_folder

if TYPE_CHECKING:
    from .checks import UInt8Array
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


def write_outputs(
    folder: Path, image: UInt8Array, result: RankedMasks, record: Mapping[str, Any]
) -> None:
    """Write result.json, the overlay and the masks into a folder, made if need be.

    Everything is written to a hidden folder within it first and moved when complete, result.json
    last: where it stands, all it names stands too. Masks of an earlier run that its result.json
    names are removed, and what a killed run left; other files are left alone.

    Args:
        folder: Where to write.
        image: (H, W, 3) uint8 RGB.
        result: What was found in it.
        record: JSON-able content of result.json.

    Raises:
        OSError: The folder cannot be made or written to.
    """
    from PIL import Image

    from .drawing import draw_overlay

    names = file_names(folder, result)
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    # A killed run may have moved some of its masks already.
    earlier = [_earlier_masks(place) for place in (folder, *find_leftovers(folder))]
    stale = set().union(*earlier) - set(names["masks"])
    remove_leftovers(folder)
    try:
        with staging_folder(folder) as staging:
            for mask, name in zip(result.masks, names["masks"], strict=True):
                Image.fromarray(mask).convert("L").save(staging / name)
            # The overlay is as large as the photograph; little compression saves seconds.
            overlay = Image.fromarray(draw_overlay(image, result))
            overlay.save(staging / OVERLAY_FILE, compress_level=1)
            text = json.dumps(record, indent=2, allow_nan=False)
            (staging / RESULT_FILE).write_text(text + "\n", encoding="utf-8")
            for name in [*names["masks"], OVERLAY_FILE, RESULT_FILE]:
                (staging / name).replace(folder / name)
            for name in stale:
                (folder / name).unlink(missing_ok=True)
    finally:
        if not existed and not any(folder.iterdir()):
            folder.rmdir()


def slug(text: str) -> str:
    """Return a phrase as part of a file name: a-z, 0-9 and hyphens; "mask" if nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    joined = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    return joined[:_LONGEST_SLUG].strip("-") or "mask"


def _earlier_masks(folder: Path) -> set[str]:
    """Return the mask files that the folder's result.json names, if it is one of ours."""
    try:
        content = read_regular(folder / RESULT_FILE, RESULT_FILE, limit=_LARGEST_RECORD)
        names = json.loads(content)["files"]["masks"]
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    if not isinstance(names, list):
        return set()
    # Only names of our own making: a doctored file must not make us delete others.
    return {name for name in names if isinstance(name, str) and _MASK_FILE.fullmatch(name)}
