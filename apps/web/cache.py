"""A cache that never holds more than so many bytes, for all users together."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class ByteCache(Generic[KeyT, ValueT]):
    """Values by key; those used longest ago go first when there are too many bytes.

    Several threads may use it. A value is made outside the lock, so that a slow one holds up
    nobody else; two who ask for the same at once may both make it, and get equal values.

    Args:
        capacity: Bytes that are kept; a value that is larger alone is given back but not kept.
        measure: Bytes of a value.
    """

    def __init__(self, capacity: int, measure: Callable[[ValueT], int]) -> None:
        self.capacity = capacity
        self.measure = measure
        self._values: OrderedDict[KeyT, tuple[ValueT, int]] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    @property
    def used(self) -> int:
        """Bytes of all values that are kept."""
        return self._used

    def get(self, key: KeyT, make: Callable[[], ValueT]) -> ValueT:
        """Return the value of a key, made if it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        value = make()
        self._keep(key, value)
        return value

    def _keep(self, key: KeyT, value: ValueT) -> None:
        size = self.measure(value)
        with self._lock:
            if key in self._values:
                self._used -= self._values.pop(key)[1]
            if size > self.capacity:
                return
            self._values[key] = value, size
            self._used += size
            while self._used > self.capacity:
                _, (_, freed) = self._values.popitem(last=False)
                self._used -= freed
