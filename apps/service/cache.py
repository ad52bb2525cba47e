"""Values that are dear to compute, kept within limits."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

from cachetools import LRUCache

if TYPE_CHECKING:
    from ...models.embedding import ImageEmbedding

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class ByteCache(Generic[KeyT, ValueT]):
    """The most recently used values that fit into a number of bytes; safe to share by threads.

    Args:
        capacity: Bytes to keep at most. A larger value is returned but not kept.
        measure: Returns the bytes of a value.
        most: How many values to keep at most; None for as many as fit.
    """

    def __init__(
        self, capacity: int, measure: Callable[[ValueT], int], most: int | None = None
    ) -> None:
        self.values: LRUCache[KeyT, ValueT] = LRUCache(capacity, getsizeof=measure)
        self.most = most
        self._lock = threading.Lock()

    def get(self, key: KeyT, make: Callable[[], ValueT]) -> ValueT:
        """Return the value of a key, made first if it is not cached.

        It is made outside the lock, so that a slow one delays nobody else. Two threads that miss
        the same key at the same time both make it.
        """
        with self._lock, contextlib.suppress(KeyError):
            return self.values[key]
        value = make()
        with self._lock, contextlib.suppress(ValueError):  # larger than the whole cache
            while self.most is not None and len(self.values) >= self.most:
                self.values.popitem()
            self.values[key] = value
        return value

    def find(self, key: KeyT) -> ValueT | None:
        """Return the value of a key, or None if it is not cached."""
        with self._lock:
            return self.values.get(key)

    def drop(self, key: KeyT) -> bool:
        """Remove a value; return whether it was there."""
        with self._lock:
            return self.values.pop(key, None) is not None

    def size(self) -> tuple[int, int]:
        """Return how many values are kept, and their bytes."""
        with self._lock:
            return len(self.values), int(self.values.currsize)


def embedding_bytes(embedding: ImageEmbedding) -> int:
    """Return the memory that an encoded picture and what belongs to it take, in bytes."""
    features = embedding.features
    maps = (features.image_embeddings, *features.high_res_features, *features.backbone_features)
    image = 0 if embedding.image is None else embedding.image.nbytes
    # The text model's features are cached along with the embedding and are about as large.
    return image + 2 * sum(tensor.numel() * tensor.element_size() for tensor in maps)
