"""Facts about masks that several stages need, and masks that wait in little memory."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Masks at an image's size held unpacked at a time, in pixels; at least one mask's.
MAX_MASK_PIXELS = 2**24

# XYXY in pixels, as pixel edges: x1 and y1 are one past the last pixel.
Box = tuple[int, int, int, int]


def tight_box(mask: NDArray[np.bool_]) -> Box:
    """Return the tight box of an (H, W) mask; all 0 for an empty one.

    One pixel has a box of area 1.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return 0, 0, 0, 0
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1] + 1), int(rows[-1] + 1)


def masks_to_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the (N, 4) tight boxes of (N, H, W) masks."""
    return np.array([tight_box(mask) for mask in masks], np.float32).reshape(len(masks), 4)


def shift(box: Box, x: int, y: int) -> Box:
    """Return the box moved by (x, y)."""
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def cut(mask: NDArray[np.bool_], box: Box) -> NDArray[np.bool_]:
    """Return the view of an (H, W) mask within a box."""
    return mask[box[1] : box[3], box[0] : box[2]]


@dataclass(frozen=True)
class CompactMask:
    """A mask as the compressed bits of its tight box.

    Attributes:
        size: (H, W) of the image.
        box: The tight box; all 0 for an empty mask.
        area: In pixels.
        packed: The bits.
    """

    size: tuple[int, int]
    box: Box
    area: int
    packed: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> CompactMask:
        """Pack an (H, W) mask."""
        box = tight_box(mask)
        return cls.within(cut(mask, box), box, (mask.shape[0], mask.shape[1]))

    @classmethod
    def within(cls, part: NDArray[np.bool_], box: Box, size: tuple[int, int]) -> CompactMask:
        """Pack a mask that is known within its tight box, (y1 - y0, x1 - x0)."""
        packed = zlib.compress(np.packbits(part).tobytes(), level=1)
        return cls(size, box, int(np.count_nonzero(part)), packed)

    def part(self) -> NDArray[np.bool_]:
        """Return the mask within its box, (y1 - y0, x1 - x0)."""
        x0, y0, x1, y1 = self.box
        packed = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        bits = np.unpackbits(packed, count=(y1 - y0) * (x1 - x0))
        return bits.reshape(y1 - y0, x1 - x0).view(np.bool_)

    def full(self) -> NDArray[np.bool_]:
        """Return the mask, (H, W)."""
        mask = np.zeros(self.size, np.bool_)
        cut(mask, self.box)[...] = self.part()
        return mask

    def intersection(self, other: CompactMask) -> int:
        """Pixels that two masks of one image share."""
        x0, y0 = max(self.box[0], other.box[0]), max(self.box[1], other.box[1])
        x1, y1 = min(self.box[2], other.box[2]), min(self.box[3], other.box[3])
        if x0 >= x1 or y0 >= y1:
            return 0
        parts = [
            cut(mask.part(), shift((x0, y0, x1, y1), -mask.box[0], -mask.box[1]))
            for mask in (self, other)
        ]
        return int(np.count_nonzero(parts[0] & parts[1]))
