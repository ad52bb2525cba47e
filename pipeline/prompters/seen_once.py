"""Runs a model once for each encoded image, however many queries ask about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from ...models.embedding import ImageEmbedding

ViewT = TypeVar("ViewT")


class SeenOnce(Generic[ViewT]):
    """Caches what a model sees in an image for as long as the image's embedding lives.

    Args:
        look: Runs the model on an encoded image.
    """

    def __init__(self, look: Callable[[ImageEmbedding], ViewT]) -> None:
        self._look = look
        self._seen: WeakKeyDictionary[ImageEmbedding, ViewT] = WeakKeyDictionary()

    def __call__(self, embedding: ImageEmbedding) -> ViewT:
        if embedding not in self._seen:
            self._seen[embedding] = self._look(embedding)
        return self._seen[embedding]
