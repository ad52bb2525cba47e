"""A folder of values that models compute from pictures, for later queries and other processes.

Each value is a safetensors file whose name is the hash of all that it depends on: the pixels, the
weights, the arithmetic and the version of promptseg. It is written under a hidden name and moved,
so that a killed process leaves no wrong entry. Files that were not used for the longest time make
room for new ones. Any number of processes may share a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from filelock import FileLock, Timeout

from ... import __version__
from ...models.errors import InputError
from ...models.foreign import read_regular
from ..checks import UInt8Array
from ..files import remove_leftovers, write_whole
from .packing import pack, unpack

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_GB = 10.0
_FORMAT = "promptseg.cache/1"
_SUFFIX = ".safetensors"
_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")  # other files of the folder are left alone
_LOCK = ".lock"
_LARGEST_ENTRY = 2**31
# The folder is measured when this share of the limit has been written since, and then emptied to
# this share of it, so that measuring is rare.
_WRITTEN = 0.02
_EMPTIED = 0.95


class EmbeddingCache:
    """Values that models compute from pictures, on disk.

    What cannot be read is computed again, and what cannot be written is left out: a query never
    fails because of its cache.

    Args:
        folder: Where the files are; made if need be.
        max_gb: Most gigabytes of files; several processes may exceed it by 2% each.

    Raises:
        InputError: The folder cannot be made or written to, or the limit is not positive.
    """

    def __init__(self, folder: str | Path, *, max_gb: float = DEFAULT_GB) -> None:
        if isinstance(max_gb, bool) or not (math.isfinite(max_gb) and max_gb > 0):
            raise InputError(f"a cache's size must be a positive number of GB, not {max_gb!r}")
        if not isinstance(folder, (str, Path)) or not str(folder):
            raise InputError(f"a cache must be the path of a folder, not {folder!r}")
        self.folder = Path(folder)
        self.max_bytes = int(max_gb * 1e9)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            writable = os.access(self.folder, os.W_OK)
        except (OSError, ValueError) as error:
            raise InputError(
                f"the cache {str(folder)!r} is not a folder and cannot be made one; give another"
            ) from error
        if not writable:
            raise InputError(f"the cache {str(folder)!r} may not be written to; give another")
        self._written = math.inf  # since the folder was measured
        self._warned = False

    def part(
        self,
        kind: type[T],
        model: Callable[[], str],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> CachePart[T]:
        """Return what the cache holds of one model.

        Args:
            kind: Type of the values: a dataclass of tensors, arrays and plain values.
            model: Returns what tells the model's weights and settings from all others; it is
                called on first use.
            dtype: What the model computes in.
            device: Where the values' tensors go.
        """
        return CachePart(self, kind, model, dtype, device)

    def read(self, name: str) -> bytes | None:
        """Return the content of an entry, which then counts as used; None if there is none."""
        path = self._path(name)
        try:
            content = read_regular(path, "it", limit=_LARGEST_ENTRY)
        except InputError:
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write an entry, and remove old ones if there are too many."""
        if len(content) > self.max_bytes:
            return
        self._written += len(content)
        try:
            write_whole(self._path(name), content)
            if self._written > self.max_bytes * _WRITTEN:
                self._make_room()
        except OSError as error:
            if not self._warned:
                logger.warning("the cache %s cannot be written to: %s", self.folder, error)
            self._warned = True

    def remove(self, name: str) -> None:
        """Remove an entry."""
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def size(self) -> int:
        """Return the bytes of all entries."""
        return sum(status.st_size for _, status in self._entries())

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{_SUFFIX}"

    def _entries(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if _ENTRY.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):  # removed by another process
                        found.append((Path(entry.path), entry.stat()))
        return found

    def _make_room(self) -> None:
        """Remove entries that were not used for the longest time, beyond the limit."""
        try:
            with FileLock(self.folder / _LOCK, timeout=0):
                remove_leftovers(self.folder)
                entries = self._entries()
                total = sum(status.st_size for _, status in entries)
                if total > self.max_bytes:
                    entries.sort(key=lambda entry: entry[1].st_mtime_ns)
                    for path, status in entries:
                        if total <= self.max_bytes * _EMPTIED:
                            break
                        with contextlib.suppress(OSError):  # open elsewhere on Windows
                            path.unlink()
                            total -= status.st_size
        except Timeout:  # another process is at it
            return
        self._written = 0


class CachePart(Generic[T]):
    """What a cache holds of one model; :meth:`EmbeddingCache.part` makes it."""

    def __init__(
        self,
        cache: EmbeddingCache,
        kind: type[T],
        model: Callable[[], str],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.cache = cache
        self.kind = kind
        self.device = device
        self._model = model
        self._dtype = dtype

    def get(self, pixels: UInt8Array, make: Callable[[], T]) -> T:
        """Return the value of a picture (H, W, 3), made first if it is not there."""
        name = self.name(pixels)
        found = self.find(name)
        if found is None:
            found = make()
            self.keep(name, found)
        return found

    def name(self, pixels: UInt8Array) -> str:
        """Return the name of a picture's entry."""
        digest = self._of_model.copy()
        digest.update(f"{pixels.shape}\n".encode())
        digest.update(np.ascontiguousarray(pixels).data)
        return digest.hexdigest()

    def find(self, name: str) -> T | None:
        """Return the value of that name; None if it is not there or cannot be read."""
        content = self.cache.read(name)
        if content is None:
            return None
        try:
            return unpack(content, self.kind, name, self.device)
        except ValueError as error:
            logger.debug("the entry %s is computed again: %s", name, error)
            self.cache.remove(name)
            return None

    def keep(self, name: str, value: T) -> None:
        """Keep a value under that name."""
        self.cache.write(name, pack(value, name))

    @cached_property
    def _of_model(self) -> hashlib._Hash:
        kind = f"{self.kind.__module__}.{self.kind.__qualname__}"
        about = (_FORMAT, __version__, kind, self._model(), str(self._dtype), self.device.type)
        return hashlib.sha256("\n".join(about).encode())


def get_kept(part: CachePart[T] | None, pixels: UInt8Array, make: Callable[[], T]) -> T:
    """Return a picture's value from a cache, if there is one, or else make it."""
    return make() if part is None else part.get(pixels, make)
