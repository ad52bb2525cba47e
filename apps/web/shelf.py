"""Keeps each page's history in the server's memory, within limits, so that a reload finds it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from cachetools import TTLCache

from ...models.errors import InputError
from ..service.limits import MAX_SHELF_BYTES
from .sheet import History, Sheet, weigh

_GONE = (
    "what was done here is no longer on the server; reload the page and upload the picture again"
)


class Shelf:
    """The histories of all pages; safe to share by threads.

    The least recently changed ones go when together they take too much, and each one some time
    after its last change.

    Args:
        seconds: How long a history is kept after its last change.
        capacity: Bytes that all may take.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        seconds: float,
        capacity: int = MAX_SHELF_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kept: TTLCache[str, History] = TTLCache(
            capacity, seconds, timer=clock, getsizeof=lambda history: weigh(history.sheets)
        )
        self._lock = threading.Lock()

    def open(self, old: str) -> str:
        """Start a page's history and return its key.

        Args:
            old: Key of the history to begin with, as before a reload; unknown keys mean none. Each
                page has a key of its own, so that two that began alike do not disturb each other.
        """
        key = secrets.token_urlsafe(24)
        with self._lock:
            self._kept[key] = self._kept.get(old, History())
        return key

    def get(self, key: str) -> History:
        """Return a page's history.

        Raises:
            InputError: It is no longer kept.
        """
        with self._lock:
            return self._get(key)

    def do(self, key: str, step: Callable[[Sheet], Sheet]) -> History:
        """Add a step to a page's history and return that.

        Raises:
            InputError: It is no longer kept, or the step is refused.
        """
        return self.change(key, lambda history: history.do(step(history.present)))

    def change(self, key: str, change: Callable[[History], History]) -> History:
        """Change a page's history and return it.

        Raises:
            InputError: As for :meth:`do`.
        """
        with self._lock:
            history = change(self._get(key))
            self._kept[key] = history
            return history

    def _get(self, key: str) -> History:
        history: History | None = self._kept.get(key)
        if history is None:
            raise InputError(_GONE)
        return history
