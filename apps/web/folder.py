"""The app's environment: a private folder for its files, no proxy, no analytics.

Gradio reads it when it is imported, so this module does not import Gradio.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "promptseg-app-"
_LOCK = ".lock"
# Analyses of past requests that Gradio keeps in memory.
_REMEMBERED = 100


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Have Gradio keep its files in a private temporary folder, and set up its environment.

    Enter it before Gradio is imported; on exit the folder is removed. Folders that killed
    apps of the same user left are removed first.

    Yields:
        The folder, which only this user can read.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    values = {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_ANALYTICS_MAX_EVENTS": str(_REMEMBERED),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Gradio asks its own address whether it works; there is nothing else to connect to.
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    lock = _lock(folder)
    try:
        yield folder
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if lock is not None:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def swept(
    folder: Path, keep: frozenset[str], every: float, seconds: float, most: int
) -> Iterator[None]:
    """Remove old files from a folder while this is entered; see :func:`sweep` and :func:`bound`.

    Args:
        folder: The app's own folder.
        keep: Paths of files that stay.
        every: Seconds between two sweeps.
        seconds: Age at which a file is removed.
        most: Bytes that all files together may have.
    """
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(every):
            sweep(folder, keep, seconds)
            bound(folder, keep, most)

    thread = threading.Thread(target=run, name="promptseg-sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def sweep(folder: Path, keep: frozenset[str], seconds: float) -> None:
    """Remove files older than ``seconds``, and folders that have been empty for as long.

    Gradio removes what it has a list of. It leaves the folders, and the parts of uploads that broke
    off.
    """
    before = time.time() - seconds
    old = []
    for where, folders, names in os.walk(folder, topdown=False):
        for name in (*names, *folders):
            path = Path(where, name)
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime <= before and name != _LOCK and str(path) not in keep:
                    old.append(path)
    # Afterwards, since removing what is inside makes a folder young.
    for path in old:
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()  # fails unless it is empty
            else:
                path.unlink()


def bound(folder: Path, keep: frozenset[str], most: int) -> None:
    """Remove the oldest files until all together have at most ``most`` bytes."""
    files = []
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            with contextlib.suppress(OSError):
                status = path.lstat()
                removable = name != _LOCK and str(path) not in keep
                files.append((not removable, status.st_mtime, status.st_size, path))
    total = sum(size for _, _, size, _ in files)
    for kept, _, size, path in sorted(files):
        if total <= most or kept:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; return the lock's file descriptor."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove_abandoned(parent: Path) -> None:
    """Remove this user's folders of apps that were killed: those whose lock nobody holds."""
    if not hasattr(os, "getuid"):
        return
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            mine = folder.lstat().st_uid == os.getuid()
            if not mine or folder.is_symlink() or not (folder / _LOCK).is_file():
                continue
            lock = _lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
