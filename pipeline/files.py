"""Writing files and folders as a whole or not at all.

What is written grows under a hidden name beside its place, ``.promptseg-HOST-PID-RANDOM.partial``,
that nobody can foresee (so that no link can lie in wait there), and is then moved. A killed process
leaves such a name behind; :func:`remove_leftovers` clears them away.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_LEFTOVER = re.compile(r"\.promptseg-([0-9a-f]{8})-(\d+)-[0-9a-f]{16}\.partial")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, its folder made if need be; what was there stays until all is written.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_in(path.parent)
    try:
        with partial.open("xb") as stream:  # fails where the name exists, a link included
            stream.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all, its folder made if need be."""
    write_whole(path, text.encode("utf-8"))


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder; others in it are left alone.

    A folder that is not there yet appears with all of them at once. In one that is there, each is
    moved to its place, in this order, when all are whole.

    Args:
        folder: Where to write; made if need be.
        files: Content by name.

    Raises:
        OSError: It cannot be written.
    """
    with new_files(folder, list(files)) as staging:
        for name, content in files.items():
            (staging / name).write_bytes(content)


@contextmanager
def new_files(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """Make files in a hidden folder, which appear in another one when all are whole.

    Args:
        folder: Where they appear: at once if it is not there yet, else each in this order, in
            place of what had its name.
        names: What is made in the folder that is yielded.

    Raises:
        OSError: It cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        with staging_folder(folder.parent) as staging:
            whole = staging / "whole"
            whole.mkdir()
            yield whole
            whole.replace(folder)
        return
    with staging_folder(folder) as staging:
        yield staging
        for name in names:
            (staging / name).replace(folder / name)


@contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Make a hidden folder for files that are moved to their places when all are whole.

    Args:
        parent: The folder that it lies in; it must exist.

    Raises:
        OSError: It cannot be made.
    """
    staging = _partial_in(parent)
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def find_leftovers(folder: Path) -> list[Path]:
    """Return what killed processes of this machine left half written in a folder."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError:
        return []
    found = ((name, _LEFTOVER.fullmatch(name)) for name in names)
    return [
        folder / name
        for name, parts in found
        if parts is not None and parts[1] == _host() and not _is_running(int(parts[2]))
    ]


def remove_leftovers(folder: Path) -> None:
    """Remove what :func:`find_leftovers` finds."""
    for path in find_leftovers(folder):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _partial_in(folder: Path) -> Path:
    """A hidden name in a folder that nothing has."""
    return folder / f".promptseg-{_host()}-{os.getpid()}-{secrets.token_hex(8)}.partial"


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True
