"""Several formats at once, for the images of one run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.errors import InputError
from . import exporter_class
from .base import Exporter, stem

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.result import Result


class Exports:
    """The exporters of a run: each format in a folder of its name.

    Close it also when a run fails (``with Exports(...) as exports``): what was added is kept.

    Args:
        formats: Names of FORMATS.
        folder: Where the formats' folders are made.
        images: Paths of all images of the run.
        labels: What is looked for; see :class:`~promptseg.apps.exports.base.Exporter`.
        root: Folder of the images; their paths below it become their names. None takes the
            nearest that holds all.

    Raises:
        InputError: There is no such format, an image is not below the root, two images would get
            the same files, or files that are there cannot be added to.
        OSError: A file cannot be read.
    """

    def __init__(
        self,
        formats: Sequence[str],
        folder: Path,
        images: Sequence[str | Path],
        *,
        labels: Sequence[str] = (),
        root: Path | None = None,
    ) -> None:
        classes = [exporter_class(name) for name in dict.fromkeys(formats)]
        self._root = _common_folder(images) if root is None else _absolute(root)
        names = [self._name(image) for image in images]
        for kind in classes:
            if kind.by_stem:
                _check_stems(kind.name, names)
        self._exporters: list[Exporter] = [
            kind(folder / kind.name, labels, self._root) for kind in classes
        ]

    def add(self, image: str | Path, pixels: UInt8Array, result: Result) -> list[str]:
        """Write what was found in an image, in all formats.

        Args:
            image: Its path.
            pixels: (H, W, 3) uint8 RGB.
            result: What was found in it.

        Returns:
            What formats cannot hold of it, a line each.

        Raises:
            OSError: A file cannot be written.
        """
        name = self._name(image)
        return [note for item in self._exporters for note in item.add(name, pixels, result)]

    def has(self, image: str | Path) -> bool:
        """Return whether all formats have an image's result, also from an earlier run."""
        name = self._name(image)
        return all(item.has(name) for item in self._exporters)

    def close(self) -> None:
        """Write what is not written yet."""
        for item in self._exporters:
            item.close()

    def __enter__(self) -> Exports:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _name(self, image: str | Path) -> str:
        """Return an image's path below the root, with slashes."""
        try:
            return _absolute(image).relative_to(self._root).as_posix()
        except ValueError as error:
            raise InputError(
                f"{str(image)!r} is not below {str(self._root)!r}; give the folder that holds all "
                "images"
            ) from error


def _absolute(path: str | Path) -> Path:
    # Not resolve(): a link to a photograph is an image of that name and place.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _common_folder(images: Sequence[str | Path]) -> Path:
    folders = [_absolute(image).parent for image in images]
    try:
        return Path(os.path.commonpath(folders)) if folders else Path.cwd()
    except ValueError as error:
        raise InputError(
            "images of different drives cannot be exported together; export each drive's alone"
        ) from error


def _check_stems(format_name: str, names: Sequence[str]) -> None:
    """Refuse images that differ in their ending only: they would overwrite each other's files."""
    seen: dict[str, str] = {}
    for name in names:
        # Also where the file system takes upper and lower case for the same.
        other = seen.setdefault(stem(name).casefold(), name)
        if other != name:
            raise InputError(
                f"{format_name}: {other!r} and {name!r} would be written to the same files; "
                "rename one of them or export them to different folders"
            )
