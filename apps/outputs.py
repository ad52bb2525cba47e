"""Which folder each image's files go to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath


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
