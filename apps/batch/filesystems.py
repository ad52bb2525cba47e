"""Files and folders on any file system: local ones, s3 and gs through Arrow, others by fsspec."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ...models.errors import InputError
from ...models.foreign import read_regular

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
# Those that Arrow opens by itself; the path begins with the bucket.
_BUCKETS = ("s3", "gs", "gcs")
MOST_BYTES = 10**9


def is_local(uri: str) -> bool:
    """Return whether a URI or path is of this machine's own file system."""
    scheme = _SCHEME.match(uri)
    return scheme is None or scheme[1].lower() == "file"


def local_path(uri: str) -> str:
    """Return a local URI or path from the root on."""
    scheme = _SCHEME.match(uri)
    return os.path.abspath(uri if scheme is None else scheme[2])  # noqa: PTH100


def open_place(uri: str) -> tuple[FileSystem, str]:
    """Return the file system of a URI, and the path there.

    Raises:
        InputError: There is no such file system, or it needs a package that is not installed.
    """
    from pyarrow.fs import LocalFileSystem

    if is_local(uri):
        return LocalFileSystem(), local_path(uri)
    scheme, rest = uri.split("://", 1)
    try:
        if scheme.lower() in _BUCKETS:
            path, _, options = rest.partition("?")
            return _open_bucket(scheme.lower(), path.partition("/")[0], options), path.rstrip("/")
        return _open_by_fsspec(uri)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(
            f"{uri!r} cannot be opened ({' '.join(str(error).split())}); check it, or install what "
            f"its file system needs"
        ) from error


@lru_cache(maxsize=64)
def _open_bucket(scheme: str, bucket: str, options: str) -> FileSystem:
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(f"{scheme}://{bucket}/" + (f"?{options}" if options else ""))[0]


def _open_by_fsspec(uri: str) -> tuple[FileSystem, str]:
    from fsspec.core import url_to_fs
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    filesystem, path = url_to_fs(uri)  # which keeps what it opened
    return PyFileSystem(FSSpecHandler(filesystem)), path.rstrip("/")


def read_bytes(uri: str) -> bytes:
    """Return the content of a file.

    Raises:
        InputError: It does not exist, is too large, or cannot be read.
    """
    name = repr(uri)
    if is_local(uri):
        return read_regular(Path(local_path(uri)), name, limit=MOST_BYTES)
    filesystem, path = open_place(uri)
    try:
        with filesystem.open_input_file(path) as file:
            if file.size() > MOST_BYTES:
                raise InputError(f"{name} has more than {MOST_BYTES / 1e6:.0f} MB")
            content: bytes = file.read()
            return content
    except FileNotFoundError as error:
        raise InputError(f"{name} does not exist; check the path") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read ({' '.join(str(error).split())})") from error


@contextmanager
def on_disk(uri: str) -> Iterator[str]:
    """Give the path of a file, which is fetched for the time being if it is not on this machine.

    Raises:
        InputError: As for :func:`read_bytes`.
    """
    if is_local(uri):
        yield local_path(uri)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"fetched{PurePosixPath(uri.partition('?')[0]).suffix}"
        path.write_bytes(read_bytes(uri))
        yield str(path)
