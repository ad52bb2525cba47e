"""Searching folders for images, and the folders that the images' files go to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ...models.errors import InputError
from ...models.foreign import read_regular
from ...pipeline.saving import RESULT_FILE
from ..exports import FORMATS, GEO_FORMATS
from ..image_names import has_ending, natural_key
from ..journal import is_journal
from .run_summary import RUN_FILE, RUN_KEY

DEFAULT_OUT = "promptseg-output"

_SCHEMA = b"promptseg.result/"
_LARGEST_RECORD = 2**30


def output_folders(
    names: Sequence[str],
    base: Path,
    taken: Iterable[str] = (),
    *,
    images: Sequence[str] = (),
    owners: Mapping[Path, str] | None = None,
) -> list[Path]:
    """Return the folder for each image's files: its name without its ending, below a base.

    Images that would get the same folder are numbered, even if the names differ in case only,
    since some file systems take those for the same. An image keeps the folder of an earlier run,
    and no other image gets it.

    Args:
        names: Names of the images, with slashes; see `Pictures`.
        base: Folder of the run.
        taken: Names in the base that no image may get.
        images: The absolute path of each image; needed with `owners`.
        owners: Folders that earlier runs wrote, absolute, and the image of each.
    """
    used = {str(base / name).casefold() for name in taken}
    kept = _kept_folders(names, base, images, owners) if owners else {}
    used |= {str(base / folder).casefold() for folder in _below(owners or {}, base)}
    numbers: dict[str, int] = {}
    folders: list[Path] = []
    for i, name in enumerate(names):
        if i in kept:
            folders.append(kept[i])
            continue
        first = _first_folder(name, base)
        number = numbers.get(str(first).casefold(), 1)
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        while str(folder).casefold() in used:
            number += 1
            folder = first.with_name(f"{first.name}-{number}")
        numbers[str(first).casefold()] = number
        used.add(str(folder).casefold())
        folders.append(folder)
    return folders


def _first_folder(name: str, base: Path) -> Path:
    path = PurePosixPath(name)
    return base / path.parent / (path.stem or "image")


def _below(owners: Mapping[Path, str], base: Path) -> dict[Path, str]:
    """Return the folders below a base, relative to it, and the image of each."""
    top = absolute(base)
    return {
        folder.relative_to(top): image
        for folder, image in owners.items()
        if folder.is_relative_to(top)
    }


def _kept_folders(
    names: Sequence[str], base: Path, images: Sequence[str], owners: Mapping[Path, str]
) -> dict[int, Path]:
    """Return the folder of each image that an earlier run gave it, by the image's number."""
    of_image: dict[str, list[Path]] = {}
    for folder, image in sorted(_below(owners, base).items()):
        of_image.setdefault(image, []).append(base / folder)
    kept: dict[int, Path] = {}
    for i, (name, image) in enumerate(zip(names, images, strict=True)):
        first = _first_folder(name, base)
        pattern = re.compile(rf"{re.escape(first.name)}(-[0-9]+)?")
        for folder in of_image.get(image, []):
            if folder.parent == first.parent and pattern.fullmatch(folder.name):
                kept[i] = folder
                of_image[image].remove(folder)
                break
    return kept


class Search:
    """Finds the images below a folder; visits each folder once, however many links lead to it.

    Args:
        folder: Where to look.
        out: A folder to leave out.
        unreadable: Gets the folders that cannot be listed.
    """

    def __init__(
        self, folder: Path, out: Path | None, unreadable: list[tuple[str, OSError]]
    ) -> None:
        self.folder = folder
        self.out = absolute(DEFAULT_OUT if out is None else out)
        self.unreadable = unreadable
        self.seen: set[tuple[int, int]] = set()

    def names(self) -> Iterator[str]:
        """Yield paths below the folder, with slashes, in natural order.

        Raises:
            OSError: The folder cannot be listed.
        """
        yield from self._walk("", self._list(self.folder))

    def _walk(self, below: str, entries: list[os.DirEntry[str]]) -> Iterator[str]:
        of_a_run = self._is_of_a_run(self.folder / below, entries)
        for entry in entries:
            name = f"{below}{entry.name}"
            if not _is_folder(entry):
                if has_ending(entry.name):
                    yield name
                continue
            if of_a_run and entry.name in (*FORMATS, *GEO_FORMATS):
                continue
            folder = self.folder / name
            try:
                inner = self._list(folder)
            except OSError as error:
                self.unreadable.append((str(folder), error))
                continue
            if not self._is_ours(folder, inner):
                yield from self._walk(f"{name}/", inner)

    def _list(self, folder: Path) -> list[os.DirEntry[str]]:
        """Return the visible entries of a folder, sorted; none on a second visit."""
        status = folder.stat()
        if (status.st_dev, status.st_ino) in self.seen:
            return []
        self.seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        return sorted(visible, key=lambda entry: natural_key(entry.name))

    def _is_ours(self, folder: Path, entries: list[os.DirEntry[str]]) -> bool:
        """Return whether a folder holds output of a command."""
        if folder.name == DEFAULT_OUT or absolute(folder) == self.out:
            return True
        names = {entry.name for entry in entries}
        if RUN_FILE in names and is_journal(folder / RUN_FILE, RUN_KEY):
            return True
        if RESULT_FILE not in names:
            return False
        try:
            content = read_regular(folder / RESULT_FILE, RESULT_FILE, limit=_LARGEST_RECORD)
        except InputError:
            return False
        return _SCHEMA in content

    def _is_of_a_run(self, folder: Path, entries: list[os.DirEntry[str]]) -> bool:
        """Return whether a run wrote into this folder, beside other things."""
        if absolute(folder) == self.out:
            return True
        return any(entry.name == RUN_FILE for entry in entries) and is_journal(
            folder / RUN_FILE, RUN_KEY
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def absolute(path: str | Path) -> Path:
    """Return a path from the root on; a link stays what it is."""
    # Not resolve(): a link to an image is an image of that name and place.
    return Path(os.path.abspath(path))  # noqa: PTH100
