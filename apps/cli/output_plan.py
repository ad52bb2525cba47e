"""Where a run writes, planned before the first image is decoded.

Refused are files in the way that no run of ours wrote, outputs that are inputs at the same time,
and outputs that would be written over each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...models.errors import InputError
from ...pipeline.saving import is_output_name
from ..exports.manifest import Files


@dataclass
class OutputPlan:
    """The files of a run, as far as they are known before it.

    Attributes:
        inputs: Files that the run reads: images, examples, masks, concepts.
        files: Files of the run, and the image that each answers for; "" for all of them.
        folders: Folders that get the masks of one image, whose names depend on what is found.
        shared: Files that are added to, whoever began them.
    """

    inputs: Sequence[str] = ()
    files: list[tuple[Path, str]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    shared: list[Path] = field(default_factory=list)

    def check(self, manifest: Files, done: Iterable[Path] = ()) -> None:
        """Refuse what must not be written.

        Args:
            manifest: Knows what may be replaced.
            done: Files and folders of images that are skipped.

        Raises:
            InputError: An output is an input, two outputs collide, or a file is in the way.
        """
        skipped = set(done)
        inputs = _Inputs(self.inputs)
        _check_collisions([path for path, _ in self.files])
        for path in (*self.shared, *(path for path, _ in self.files), *self._present()):
            inputs.check(path)
        for path, image in self.files:
            if path not in skipped and path.parent not in skipped:
                manifest.check(path, image)

    def _present(self) -> Iterator[Path]:
        """Yield what is there under names that masks may get."""
        for folder in self.folders:
            if os.path.lexists(folder) and not folder.is_dir():
                raise InputError(
                    f"{str(folder)!r} is not a folder; move it away or give another --out"
                )
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    names = [entry.name for entry in entries if is_output_name(entry.name)]
                yield from (folder / name for name in names)


class _Inputs:
    """The files that are read, by place and by content on disk."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._places: dict[str, str] = {}
        self._nodes: dict[tuple[int, int], str] = {}
        for path in paths:
            try:
                status = Path(path).stat()
                # A link, and what it leads to.
                self._places[_place(Path(path))] = path
                self._places[os.path.realpath(path)] = path
            except (OSError, ValueError):  # reported when it is read
                continue
            self._nodes[status.st_dev, status.st_ino] = path

    def check(self, path: Path) -> None:
        found = self._places.get(_place(path))
        if found is None:
            try:
                status = path.stat()
            except (OSError, ValueError):
                return
            found = self._nodes.get((status.st_dev, status.st_ino))
        if found is not None:
            raise InputError(
                f"{found!r} is an input, and this run would write over it ({str(path)!r}); give "
                "another --out"
            )


def _place(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118


def _check_collisions(paths: Iterable[Path]) -> None:
    """Refuse files that would be written twice, or where another output needs a folder."""
    files: dict[str, Path] = {}
    folders: dict[str, Path] = {}
    for path in paths:
        # Regardless of case, which some file systems ignore.
        key = str(path).casefold()
        if key in files:
            raise InputError(f"two outputs would be {str(path)!r}; rename one of the images")
        files[key] = path
        for parent in path.parents:
            if folders.setdefault(str(parent).casefold(), path) is not path:
                break
    for key, path in files.items():
        if key in folders:
            raise InputError(
                f"an output would be {str(path)!r}, and another one lies in a folder of that name "
                f"({str(folders[key])!r}); rename one of the images"
            )
