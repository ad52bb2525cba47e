"""What runs wrote into a folder: nothing else in it is replaced or deleted.

A hidden file of JSON lines in the folder names each file with its SHA-256 and the image that it
answers for. A line is added before its file is moved to its place, so that after a kill no file of
ours lacks one; a file is ours as long as its content is that of one of its lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from ...models.errors import InputError
from ...models.foreign import read_regular
from ...pipeline.files import write_files, write_whole

MANIFEST_FILE = ".promptseg-files.jsonl"
_KEY = "promptseg_files"
_VERSION = 1
_LARGEST = 2**30


class Written(msgspec.Struct, frozen=True):
    """A file that a run wrote.

    Attributes:
        path: Its path below the manifest's folder, with slashes.
        image: The image that it answers for; empty if it is of the whole run.
        sha256: Of its content.
    """

    path: str
    image: str
    sha256: str


class Files:
    """Writes files, and deletes none but those that it wrote itself. Keeps nothing on disk."""

    def __init__(self) -> None:
        self._names: dict[Path, set[str]] = {}

    def check(self, path: Path, image: str = "") -> None:
        """Refuse to write a file where something is that may not be replaced.

        Args:
            path: The file.
            image: The image that it would answer for; empty if it is of the whole run.

        Raises:
            InputError: It may not be replaced; the message names the remedy.
        """

    def write(self, path: Path, content: bytes, image: str = "") -> None:
        """Write a file whole or not at all, its folder made if need be.

        Raises:
            InputError: What is there may not be replaced.
            OSError: It cannot be written.
        """
        write_whole(path, content)

    def write_folder(self, folder: Path, files: Mapping[str, bytes], image: str = "") -> None:
        """Write an image's files in a folder, and delete those of its earlier answer.

        Raises:
            InputError: What is there may not be replaced.
            OSError: They cannot be written.
        """
        write_files(folder, files)
        for name in self._names.get(folder, set()) - set(files):
            (folder / name).unlink(missing_ok=True)
        self._names[folder] = set(files)


class Manifest(Files):
    """Writes files, and remembers them for later runs.

    Args:
        folder: The folder that holds all of them.
        overwrite: Also replace files that no run wrote, or that were changed since, or that answer
            for another image.

    Raises:
        InputError: The manifest that is there is not a regular file.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        super().__init__()
        self.folder = _absolute(folder)
        self.overwrite = overwrite
        self._path = self.folder / MANIFEST_FILE
        self._known: dict[Path, list[Written]] = {}
        self._loaded: set[Path] = set()
        self._tidy = True
        # An image's folder may have been written as part of a larger one.
        for place in reversed((self.folder, *self.folder.parents)):
            self._load(place)

    def folders_of_images(self, marker: str) -> dict[Path, str]:
        """Return the folders with a file of this name that runs wrote, and the image of each."""
        return {
            path.parent: rows[-1].image
            for path, rows in self._known.items()
            if path.name == marker and rows[-1].image and path.exists()
        }

    def check(self, path: Path, image: str = "") -> None:
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(mode):
            raise InputError(
                f"{str(path)!r} is a folder, where a file should be; move it away or give another "
                "--out"
            )
        if self.overwrite:
            return
        remedy = "move it away, give another --out, or replace it with --overwrite"
        rows = self._rows(path)
        if not rows or not stat.S_ISREG(mode):
            raise InputError(f"{str(path)!r} is in the way: promptseg did not write it; {remedy}")
        digest = _digest_of(path)
        own = [row for row in rows if row.sha256 == digest]
        if not own:
            raise InputError(f"{str(path)!r} was changed since promptseg wrote it; {remedy}")
        if own[-1].image != image:
            raise InputError(
                f"{str(path)!r} is the answer for another image, {own[-1].image!r}; {remedy}"
            )

    def write(self, path: Path, content: bytes, image: str = "") -> None:
        self.check(path, image)
        self._add({path: content}, image)
        write_whole(path, content)

    def write_folder(self, folder: Path, files: Mapping[str, bytes], image: str = "") -> None:
        contents = {folder / name: content for name, content in files.items()}
        for path in contents:
            self.check(path, image)
        stale = [path for path in self._in(folder) if path not in map(_absolute, contents)]
        self._add(contents, image)
        write_files(folder, files)
        for path in stale:
            self.remove(path)

    def remove(self, path: Path) -> None:
        """Delete a file if a run wrote it and nobody changed it since."""
        if not path.is_symlink() and path.is_file():
            digest = _digest_of(path)
            if any(row.sha256 == digest for row in self._rows(path)):
                path.unlink()

    def close(self) -> None:
        """Put the manifest into order: a line for each file that is there."""
        if not self._path.exists():
            return
        rows = []
        for path, known in sorted(self._known.items()):
            if path.is_relative_to(self.folder) and path.exists():
                rows.append(self._line(path, known[-1]))
                self._known[path] = known[-1:]
        content = (_HEADER + "".join(rows)).encode()
        if content != read_regular(self._path, repr(str(self._path)), limit=_LARGEST):
            write_whole(self._path, content)
        self._tidy = True

    def _rows(self, path: Path) -> list[Written]:
        path = _absolute(path)
        for place in path.parents:  # up to the folder itself, which is loaded
            if place in self._loaded:
                break
            self._load(place)
        return self._known.get(path, [])

    def _in(self, folder: Path) -> list[Path]:
        """Return the files directly in a folder that runs wrote."""
        folder = _absolute(folder)
        if not folder.is_dir():
            return []
        paths = [folder / entry.name for entry in os.scandir(folder)]
        return [path for path in paths if self._rows(path)]

    def _add(self, contents: Mapping[Path, bytes], image: str) -> None:
        """Add a line for each file, before it is written."""
        lines = []
        for path, content in contents.items():
            place = _absolute(path)
            row = Written("", image, hashlib.sha256(content).hexdigest())
            known = self._known.setdefault(place, [])
            if row not in known[-1:]:
                known.append(row)
                lines.append(self._line(place, row))
        if not lines:
            return
        if not self._path.exists() or not self._tidy:
            self.folder.mkdir(parents=True, exist_ok=True)
            everything = [
                self._line(path, row)
                for path, known in self._known.items()
                if path.is_relative_to(self.folder)
                for row in known
            ]
            write_whole(self._path, (_HEADER + "".join(everything)).encode())
            self._tidy = True
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))

    def _line(self, path: Path, row: Written) -> str:
        below = path.relative_to(self.folder).as_posix()
        # In ASCII, which can also hold the bytes of a path that are not UTF-8.
        return json.dumps({"path": below, "image": row.image, "sha256": row.sha256}) + "\n"

    def _load(self, folder: Path) -> None:
        """Read the manifest of a folder, if it has one."""
        self._loaded.add(folder)
        path = folder / MANIFEST_FILE
        if not os.path.lexists(path):
            return
        if folder != self.folder and not path.is_file():
            return
        content = read_regular(path, repr(str(path)), limit=_LARGEST).decode("utf-8", "replace")
        if folder == self.folder:
            self._tidy = content.endswith("\n") and content.startswith(_HEADER)
        for row in _read_rows(content):
            place = folder / row.path
            # Of a folder above, only what lies below this one.
            if ".." not in Path(row.path).parts and place.is_relative_to(self.folder):
                self._known.setdefault(place, []).append(Written("", row.image, row.sha256))


_HEADER = json.dumps({_KEY: _VERSION}) + "\n"


def _read_rows(content: str) -> Iterator[Written]:
    """Yield the lines that can be read; a file whose line cannot is not ours."""
    for line in content.split("\n")[1:]:
        try:
            # Not msgspec alone: it refuses the bytes of a path that are not UTF-8.
            yield msgspec.convert(json.loads(line), Written)
        except (ValueError, RecursionError):
            continue


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _absolute(path: Path) -> Path:
    # Not resolve(): a file is ours under the name that it was written by.
    return Path(os.path.abspath(path))  # noqa: PTH100
