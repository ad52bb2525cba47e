"""One run at a time writes into a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from ...models.errors import InputError, PromptsegError

LOCK_FILE = ".promptseg.lock"


class FolderGoneError(PromptsegError):
    """A folder was removed while a run wrote to it."""


class FolderLock:
    """Holds a folder for this process, made if need be; use it as a context manager.

    The system releases the lock of a process that was killed. A folder that was made for it and
    stays empty is removed again.

    Args:
        folder: The folder.
        patience: Seconds to wait for another process; 0 refuses at once.
        waiting: Called once, with who holds the folder, if there is something to wait for.

    Raises:
        InputError: Another process holds it, or it cannot be made or written to.
    """

    def __init__(
        self, folder: Path, *, patience: float = 0.0, waiting: Callable[[str], None] | None = None
    ) -> None:
        from filelock import FileLock, Timeout

        self.folder = folder
        self._made = _make(folder)
        path = folder / LOCK_FILE
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise InputError(f"{str(path)!r} is not a regular file; move it away")
        self._path = path
        holder = _read_holder(path)
        self._lock = FileLock(path)
        try:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                told = f"another promptseg is writing to {str(folder)!r}{holder}"
                if patience <= 0:
                    raise
                if waiting is not None:
                    waiting(told)
                self._lock.acquire(timeout=patience)
        except Timeout as error:
            raise InputError(f"{told}; wait for it, or give another --out") from error
        except OSError as error:
            self._unmake()
            raise InputError(
                f"--out: {str(folder)!r} cannot be written to ({error.strerror or error}); "
                "give another folder"
            ) from error
        with contextlib.suppress(OSError):  # Windows refuses
            path.write_text(f"{os.getpid()}\n")
        self._identity = _identify(path)

    def check(self) -> None:
        """Make sure that the folder is still the one that is held.

        Raises:
            FolderGoneError: It was removed, emptied or replaced.
        """
        if _identify(self._path) != self._identity:
            raise FolderGoneError(
                f"{str(self.folder)!r} was removed or emptied while it was written to, and what "
                "was in it is lost; run the command again"
            )

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        if _identify(self._path) == self._identity:
            with contextlib.suppress(OSError):
                self._path.write_text("")
        self._lock.release()
        self._unmake()

    def _unmake(self) -> None:
        """Remove the folders that were made, if nothing was written into them."""
        if not self._made:
            return
        with contextlib.suppress(OSError):
            if {entry.name for entry in os.scandir(self.folder)} <= {LOCK_FILE}:
                self._path.unlink(missing_ok=True)
                for folder in self._made:
                    folder.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder; return those that were not there, innermost first."""
    made: list[Path] = []
    try:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        for place in reversed(missing):
            place.mkdir(exist_ok=True)
            made.insert(0, place)
    except (OSError, ValueError) as error:
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()
        reason = getattr(error, "strerror", None) or str(error)
        shown = str(folder) if len(str(folder)) <= 200 else f"{str(folder)[:200]}..."
        raise InputError(f"--out: {shown!r} cannot be made ({reason}); give another") from error
    return made


def _read_holder(path: Path) -> str:
    try:
        number = path.read_text().strip()
    except (OSError, ValueError):
        return ""
    return f" (process {number})" if number.isdecimal() else ""


def _identify(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
