"""Masks held as run lengths, which take a few bytes for each column of the picture.

The runs are COCO's: lengths of 0s and 1s by turns, column by column, zeros first, as text. Areas
and overlaps are computed from them without pixels.

Source: Lin et al. 2014, "Microsoft COCO"; https://cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import BoolArray
from .masks import Box, cut

# The corner (x, y) of a part of an image, and the mask within it, (h, w).
Piece = tuple[int, int, BoolArray]
# An enlarged mask is made in pieces of so many pixels.
_PIECE_PIXELS = 2**22
_HALF = 128  # of 255


@dataclass(frozen=True)
class CompactMask:
    """A mask as run lengths.

    Attributes:
        size: (H, W) of the image.
        box: The tight box; all 0 for an empty mask.
        area: In pixels.
        counts: COCO's compressed run lengths.
    """

    size: tuple[int, int]
    box: Box
    area: int
    counts: bytes

    @classmethod
    def of(cls, mask: BoolArray) -> CompactMask:
        """Pack an (H, W) mask."""
        return cls.join([(0, 0, mask)], (mask.shape[0], mask.shape[1]))

    @classmethod
    def within(cls, part: BoolArray, box: Box, size: tuple[int, int]) -> CompactMask:
        """Pack a mask given within a box that holds all of it, (y1 - y0, x1 - x0)."""
        return cls.join([(box[0], box[1], part)], size)

    @classmethod
    def join(cls, pieces: Iterable[Piece], size: tuple[int, int]) -> CompactMask:
        """Pack a mask given in pieces that have no column in common, from left to right."""
        nothing = np.zeros(0, np.int64)
        found = [(nothing, nothing), *(_rims(*piece) for piece in pieces)]
        x, y = (np.concatenate([rim[axis] for rim in found]) for axis in (0, 1))
        if not x.size:
            return cls(size, (0, 0, 0, 0), 0, compress_lengths([size[0] * size[1]]))
        box = int(x[0]), int(y.min()), int(x[-1]) + 1, int(y.max())
        turns = x * size[0] + y
        # A run that reaches the bottom goes on at the top of the next column.
        apart = turns[1:] != turns[:-1]
        turns = turns[np.append(True, apart) & np.append(apart, True)]
        return cls._of_turns(size, box, turns)

    @classmethod
    def _of_turns(cls, size: tuple[int, int], box: Box, turns: NDArray[np.int64]) -> CompactMask:
        """Return the mask whose runs begin and end, by turns, at these pixels, column by column."""
        area = int((turns[1::2] - turns[::2]).sum())
        pixels = size[0] * size[1]
        ends = turns if turns[-1] == pixels else np.append(turns, pixels)
        return cls(size, box, area, compress_lengths(np.diff(ends, prepend=0)))

    @classmethod
    def union(cls, masks: Sequence[CompactMask]) -> CompactMask:
        """Return what one or more masks of an image cover together, without making pixels."""
        if len(masks) == 1:
            return masks[0]
        size = masks[0].size
        turns = [np.cumsum(read_lengths(mask.counts)) for mask in masks]
        starts, ends = (np.concatenate([t[k : len(t) // 2 * 2 : 2] for t in turns]) for k in (0, 1))
        if not len(starts):
            return masks[0]
        edges = np.concatenate([starts, ends])
        steps = np.repeat((1, -1), (len(starts), len(ends)))
        order = np.lexsort((-steps, edges))  # what touches is one run
        edges, steps = edges[order], steps[order]
        covers = np.cumsum(steps)  # how many masks, from each edge on
        edges = edges[(covers == 0) | (covers == 1) & (steps == 1)]
        boxes = np.array([mask.box for mask in masks if mask.area])
        x0, y0 = (int(edge) for edge in boxes[:, :2].min(0))
        x1, y1 = (int(edge) for edge in boxes[:, 2:].max(0))
        return cls._of_turns(size, (x0, y0, x1, y1), edges)

    def part(self) -> BoolArray:
        """Return the mask within its box, (y1 - y0, x1 - x0)."""
        return self.window(self.box)

    def window(self, box: Box) -> BoolArray:
        """Return the mask within any box of the image, (y1 - y0, x1 - x0)."""
        x0, y0, x1, y1 = box
        turns = np.cumsum(read_lengths(self.counts))
        starts, ends = turns[0:-1:2], turns[1::2]
        height = self.size[0]
        near = (starts < x1 * height) & (ends > x0 * height)
        starts, ends = starts[near], ends[near]
        # Runs over several columns become one run in each.
        first, last = starts // height, (ends - 1) // height
        columns = last - first + 1
        run = np.repeat(np.arange(len(starts)), columns)
        x = np.arange(len(run)) - np.repeat(np.cumsum(columns) - columns, columns) + first[run]
        top = np.maximum(starts[run] - x * height, y0) - y0
        bottom = np.minimum(ends[run] - x * height, y1) - y0
        seen = (x >= x0) & (x < x1) & (top < bottom)
        x, top, bottom = x[seen] - x0, top[seen], bottom[seen]
        part = np.zeros((y1 - y0 + 1, x1 - x0), np.uint8)
        part[top, x] = 1
        part[bottom, x] ^= 1
        for row, above in zip(part[1:], part[:-1], strict=True):
            row ^= above
        return part[:-1].view(np.bool_)

    def placed(self, x: int, y: int, size: tuple[int, int]) -> CompactMask:
        """Return the mask of a part of an image (H, W) whose corner is at (x, y) as the image's."""
        x0, y0, _, _ = self.box
        return CompactMask.join([(x0 + x, y0 + y, self.part())] if self.area else [], size)

    def full(self) -> BoolArray:
        """Return the mask, (H, W)."""
        mask = np.zeros(self.size, np.bool_)
        cut(mask, self.box)[...] = self.part()
        return mask

    def reduced(self, factor: int) -> CompactMask:
        """Return the mask of an image that is smaller by a whole factor, rounded up."""
        height, width = (-(-side // factor) for side in self.size)
        x0, y0, x1, y1 = self.box
        # The pixel in the middle of each block stands for the block.
        y = np.minimum(np.arange(height) * factor + factor // 2, self.size[0] - 1)
        x = np.minimum(np.arange(width) * factor + factor // 2, self.size[1] - 1)
        rows, columns = np.flatnonzero((y0 <= y) & (y < y1)), np.flatnonzero((x0 <= x) & (x < x1))
        if not (rows.size and columns.size):
            return CompactMask.join([], (height, width))
        part = self.part()[np.ix_(y[rows] - y0, x[columns] - x0)]
        return CompactMask.join([(int(columns[0]), int(rows[0]), part)], (height, width))

    def enlarged(self, size: tuple[int, int]) -> CompactMask:
        """Return the mask of the image at a larger size (H, W), its rim interpolated."""
        if size == self.size:
            return self
        return CompactMask.join(_enlarge(self, size) if self.area else [], size)

    def shares(self, others: Sequence[CompactMask]) -> NDArray[np.int64]:
        """Return how many pixels each of other masks of the same image has in common with this."""
        if not (self.area and others):
            return np.zeros(len(others), np.int64)
        from pycocotools import mask as coco_mask

        # With the others as crowds it divides what is shared by this mask's area.
        of_area = coco_mask.iou(
            [self._rle()], [other._rle() for other in others], [1] * len(others)
        )
        shared: NDArray[np.int64] = np.rint(of_area[0] * self.area).astype(np.int64)
        return shared

    def to_rle(self) -> dict[str, Any]:
        """Return COCO's compressed run lengths: {"size": [H, W], "counts": str}."""
        return {"size": list(self.size), "counts": self.counts.decode("ascii")}

    def _rle(self) -> dict[str, Any]:
        return {"size": self.size, "counts": self.counts}


def read_lengths(counts: bytes) -> NDArray[np.int64]:
    """Return the numbers of COCO's compressed run lengths; what is damaged may be negative.

    Each number is written in groups of five bits, the lowest first, as characters from "0" on; a
    sixth bit says that more follow, and the sign is the highest bit. From the fourth number on it
    is the difference from the last but one.

    Args:
        counts: One or more characters from "0" to "o", the last one without the sixth bit, in
            groups of at most 12.
    """
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    places = np.arange(codes.size) - np.repeat(starts, lengths)
    numbers: NDArray[np.int64] = np.add.reduceat((codes & 31) << (5 * places), starts)
    numbers -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def compress_lengths(lengths: Sequence[int] | NDArray[np.int64]) -> bytes:
    """Write run lengths as COCO does; the inverse of :func:`read_lengths`.

    From the fourth on, lengths are differences to the one before the last; each number is groups of
    5 bits, lowest first, whose sixth bit tells that another follows. pycocotools writes the same,
    but beyond its buffer where several lengths are 2^29 or more.
    """
    numbers = np.array(lengths, np.int64)
    numbers[3:] -= numbers[1:-2].copy()
    groups = np.zeros((len(numbers), 13), np.uint8)
    written = np.zeros(groups.shape, np.bool_)
    more = np.ones(len(numbers), np.bool_)
    for k in range(groups.shape[1]):
        written[:, k] = more
        groups[:, k] = numbers & 31
        numbers >>= 5
        more = more & np.where(groups[:, k] & 16, numbers != -1, numbers != 0)
        groups[:, k] += 32 * more.astype(np.uint8) + 48
        if not more.any():
            break
    return groups[written].tobytes()


def _enlarge(mask: CompactMask, size: tuple[int, int]) -> Iterator[Piece]:
    """Yield a mask of the image at a larger size (H, W), some columns at a time."""
    from PIL import Image

    (height, width), (rows, columns) = mask.size, size
    # With a pixel of background beyond each side, which the rim is interpolated with.
    x0, y0 = (max(0, edge - 1) for edge in mask.box[:2])
    x1, y1 = min(width, mask.box[2] + 1), min(height, mask.box[3] + 1)
    part = Image.fromarray(mask.window((x0, y0, x1, y1)).view(np.uint8) * 255)
    left, right = -(-x0 * columns // width), x1 * columns // width
    top, bottom = -(-y0 * rows // height), y1 * rows // height
    step = max(1, _PIECE_PIXELS // (bottom - top))
    above, below = top * height / rows - y0, min(bottom * height / rows, y1) - y0
    for start in range(left, right, step):
        stop = min(start + step, right)
        before, behind = (min(edge * width / columns, x1) - x0 for edge in (start, stop))
        enlarged = part.resize(
            (stop - start, bottom - top),
            Image.Resampling.BILINEAR,
            box=(before, above, behind, below),
        )
        yield start, top, np.asarray(enlarged) >= _HALF


def _rims(x0: int, y0: int, part: BoolArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where a mask begins and ends in each of its columns, by turns.

    Returns:
        Columns x, in order, and rows y: the first row of a run, then the one past its last.
    """
    height, width = part.shape
    turns = np.empty((height + 1, width), np.bool_)
    turns[0], turns[-1] = part[0], part[-1]
    np.not_equal(part[1:], part[:-1], out=turns[1:-1])
    y, x = np.divmod(np.flatnonzero(turns), width)
    order = np.argsort(x, kind="stable")
    return x[order] + x0, y[order] + y0
