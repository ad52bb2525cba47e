"""Writing what was found: result.json, an overlay and one PNG a mask, all or nothing."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..pipeline.files import partial_path, write_whole

if TYPE_CHECKING:
    from ..pipeline.checks import UInt8Array
    from ..pipeline.result import Result

RESULT_FILE = "result.json"
OVERLAY_FILE = "overlay.png"
_MASK_FILE = re.compile(r"mask_\d{2,}_[a-z0-9-]+\.png")
_LONGEST_SLUG = 40


def output_folders(names: Sequence[str], base: Path, taken: Iterable[str] = ()) -> list[Path]:
    """Return the folder for each image's files: its name without its ending, below a base.

    Images that would get the same folder are numbered, also where the file system takes upper
    and lower case for the same.

    Args:
        names: Paths of the images with slashes, as they are to be below the base.
        base: Of all folders.
        taken: Names in the base that no image may get.
    """
    used = {str(base / name).casefold() for name in taken}
    numbers: dict[str, int] = {}
    folders: list[Path] = []
    for name in names:
        path = PurePosixPath(name)
        first = base / path.parent / (path.stem or "image")
        number = numbers.get(str(first).casefold(), 1)
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        while str(folder).casefold() in used:
            number += 1
            folder = first.with_name(f"{first.name}-{number}")
        numbers[str(first).casefold()] = number
        used.add(str(folder).casefold())
        folders.append(folder)
    return folders


def file_names(folder: Path, result: Result) -> dict[str, Any]:
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
    folder: Path, image: UInt8Array, result: Result, record: Mapping[str, Any]
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

    from .render import draw_overlay

    names = file_names(folder, result)
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    staging = partial_path(folder / RESULT_FILE)
    # The second of a run that was killed while it moved its files.
    stale = (_earlier_masks(folder) | _earlier_masks(staging)) - set(names["masks"])
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
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
        shutil.rmtree(staging, ignore_errors=True)
        if not existed and not any(folder.iterdir()):
            folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all, its folder made if need be."""
    write_whole(path, text.encode("utf-8"))


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of just these files, in the place of one that is there.

    It stands when it is whole; an interruption leaves the earlier one, or none.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = partial_path(folder)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        whole = staging / "whole"
        whole.mkdir(parents=True)
        for name, content in files.items():
            (whole / name).write_bytes(content)
        if folder.exists():
            folder.replace(staging / "earlier")
        whole.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def slug(text: str) -> str:
    """Return a phrase as part of a file name: a-z, 0-9 and hyphens; "mask" if nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    joined = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
    return joined[:_LONGEST_SLUG].strip("-") or "mask"


def _earlier_masks(folder: Path) -> set[str]:
    """Return the mask files that the folder's result.json names, if it is one of ours."""
    try:
        names = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))["files"]["masks"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    if not isinstance(names, list):
        return set()
    # Only names of our own making: a doctored file must not make us delete others.
    return {name for name in names if isinstance(name, str) and _MASK_FILE.fullmatch(name)}
