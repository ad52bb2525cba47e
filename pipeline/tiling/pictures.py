"""What is looked at in tiles: an image in memory, or a file that is read window by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from ..checks import BoolArray, UInt8Array
from ..masks import Box, cut


class Picture(Protocol):
    """A picture of any size."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""

    def read(self, box: Box) -> tuple[UInt8Array, BoolArray | None]:
        """Return the pixels (h, w, 3) in a box, and which of them (h, w) count; None for all.

        Raises:
            InputError: They cannot be read.
        """

    def overview(self, side: int) -> tuple[UInt8Array, BoolArray | None]:
        """Return the whole picture, its longer side reduced to at most so many pixels."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """An image (H, W, 3) uint8 RGB."""

    pixels: UInt8Array

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def read(self, box: Box) -> tuple[UInt8Array, BoolArray | None]:
        return np.ascontiguousarray(cut(self.pixels, box)), None

    def overview(self, side: int) -> tuple[UInt8Array, BoolArray | None]:
        share = min(1.0, side / max(self.size))
        height, width = (max(1, round(length * share)) for length in self.size)
        small = Image.fromarray(self.pixels).resize(
            (width, height), Image.Resampling.BOX, reducing_gap=2.0
        )
        return np.asarray(small), None
