"""The images that a command is given: files as they are, folders with all images below them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...models.errors import InputError
from ...pipeline.saving import RESULT_FILE
from ..exports import FORMATS
from .run_log import RUN_FILE, is_run_file

ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif")
DEFAULT_OUT = "promptseg-output"

_SCHEMA = "promptseg.result/"


@dataclass
class Pictures:
    """What was given, folders opened.

    Attributes:
        paths: Of the images, in the order given, those of a folder in natural order.
        names: Of each, the path that its own files get below the run's folder, with slashes.
        root: Folder that holds all.
        opened: Whether a folder was given.
        unreadable: Folders below the given ones that cannot be listed, and why.
    """

    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    root: Path = field(default_factory=Path)
    opened: bool = False
    unreadable: list[tuple[str, OSError]] = field(default_factory=list)

    @property
    def several(self) -> bool:
        """Whether this is a run of many: more than one image, or a folder of even one."""
        return self.opened or len(self.paths) > 1


def find_pictures(given: Sequence[str], out: Path | None) -> Pictures:
    """Open folders and leave files as they are, there or not.

    An image of a single folder is named by its path below it; of several, with the name of its
    folder before it. An image that was given itself goes by its file's name.

    Args:
        given: Images and folders.
        out: Where files are written; not searched.

    Raises:
        InputError: A folder has no images.
        OSError: It cannot be listed.
    """
    found = Pictures()
    roots = []
    for path in given:
        if not Path(path).is_dir():
            found.paths.append(path)
            found.names.append(Path(path).name)
            roots.append(_absolute(path).parent)
            continue
        found.opened = True
        roots.append(_absolute(path))
        prefix = f"{_absolute(path).name}/" if len(given) > 1 else ""
        before = len(found.paths)
        for name in _Search(Path(path), out, found.unreadable).names():
            found.paths.append(str(Path(path) / name))
            found.names.append(prefix + name)
        if len(found.paths) == before:
            raise InputError(
                f"{path!r} holds no images, nor do folders below it; "
                f"images are files that end in {', '.join(ENDINGS)}"
            )
    try:
        found.root = Path(os.path.commonpath(roots))
    except ValueError:  # different drives of Windows
        found.root = roots[0]
    return found


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return what to sort names by, so that 2 comes before 10 and b after A."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], name


class _Search:
    """Images below a folder, each folder once, however links lead to it.

    Args:
        folder: Where to look.
        out: A folder to leave out.
        unreadable: Where to note folders that cannot be listed.
    """

    def __init__(
        self, folder: Path, out: Path | None, unreadable: list[tuple[str, OSError]]
    ) -> None:
        self.folder = folder
        self.out = _absolute(DEFAULT_OUT if out is None else out)
        self.unreadable = unreadable
        self.seen: set[tuple[int, int]] = set()

    def names(self) -> Iterator[str]:
        """Give paths below the folder, with slashes, in natural order.

        Raises:
            OSError: The folder cannot be listed.
        """
        yield from self._walk("", self._list(self.folder))

    def _walk(self, below: str, entries: list[os.DirEntry[str]]) -> Iterator[str]:
        of_a_run = self._is_of_a_run(self.folder / below, entries)
        for entry in entries:
            name = f"{below}{entry.name}"
            if not _is_folder(entry):
                stem, _, ending = entry.name.lower().rpartition(".")
                if stem and ending in ENDINGS:
                    yield name
                continue
            if of_a_run and entry.name in FORMATS:
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
        """Return what is in a folder, sorted, without what is hidden; nothing the second time."""
        status = folder.stat()
        if (status.st_dev, status.st_ino) in self.seen:
            return []
        self.seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        return sorted(visible, key=lambda entry: natural_key(entry.name))

    def _is_ours(self, folder: Path, entries: list[os.DirEntry[str]]) -> bool:
        """Return whether a folder holds what the command wrote."""
        if folder.name == DEFAULT_OUT or _absolute(folder) == self.out:
            return True
        names = {entry.name for entry in entries}
        if RUN_FILE in names and is_run_file(folder / RUN_FILE):
            return True
        if RESULT_FILE not in names:
            return False
        try:
            return _SCHEMA in (folder / RESULT_FILE).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return False

    def _is_of_a_run(self, folder: Path, entries: list[os.DirEntry[str]]) -> bool:
        """Return whether a run was written into this folder, beside other things."""
        if _absolute(folder) == self.out:
            return True
        return any(entry.name == RUN_FILE for entry in entries) and is_run_file(folder / RUN_FILE)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _absolute(path: str | Path) -> Path:
    # Not resolve(): a link to an image is an image of that name and place.
    return Path(os.path.abspath(path))  # noqa: PTH100
