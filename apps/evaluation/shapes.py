"""The shapes of COCO's annotations, polygons and run lengths, checked before anything is drawn.

Run lengths are decoded here. Polygons are drawn by pycocotools, whose C code trusts what it gets,
once they are known to be finite, near the picture and of a bounded outline.

Source: Lin et al. 2014, "Microsoft COCO"; https://cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...models.errors import InputError
from ...models.foreign import decode_json
from ...pipeline.compact_mask import read_lengths
from .pictures import LARGEST_SIDE, BoolMask

_FARTHEST = 1e12
# pycocotools keeps this many points per pixel of an outline, in memory.
_STEPS = 5
_MOST_STEPS = 2**24
# Five bits a character: seven hold more than the pixels of any picture.
_LONGEST_NUMBER = 7

_Side = Annotated[int, msgspec.Meta(gt=0, le=LARGEST_SIDE)]
_Run = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_SIDE**2)]
_Number = Annotated[float, msgspec.Meta(ge=-_FARTHEST, le=_FARTHEST)]
_Polygon = Annotated[list[_Number], msgspec.Meta(min_length=6)]
_Polygons = Annotated[list[_Polygon], msgspec.Meta(min_length=1)]


class _RunLengths(msgspec.Struct):
    size: tuple[_Side, _Side]
    counts: list[_Run] | str


@dataclass(frozen=True, eq=False)
class Polygons:
    """An object of one or more polygons.

    Attributes:
        size: (H, W) of the picture.
        parts: Vertices (x, y) of each, (N, 2) float64, near the picture; N may be 0.
    """

    size: tuple[int, int]
    parts: tuple[NDArray[np.float64], ...]

    def draw(self) -> BoolMask:
        """Return the (H, W) mask, as pycocotools draws it."""
        from pycocotools import mask as coco_mask

        parts = [part.ravel().tolist() for part in self.parts if len(part) > 2]
        if not parts:
            return np.zeros(self.size, np.bool_)
        rle = coco_mask.merge(coco_mask.frPyObjects(parts, *self.size))
        mask: BoolMask = coco_mask.decode(rle).astype(np.bool_)
        return mask


@dataclass(frozen=True, eq=False)
class Runs:
    """An object as run lengths, column by column, zeros first.

    Attributes:
        size: (H, W) of the picture.
        counts: Lengths, (N,) int64, whose sum is H * W.
    """

    size: tuple[int, int]
    counts: NDArray[np.int64]

    def draw(self) -> BoolMask:
        """Return the (H, W) mask."""
        height, width = self.size
        values = np.arange(len(self.counts)) % 2 == 1
        mask: BoolMask = np.repeat(values, self.counts).reshape(width, height).T
        return mask


Shape: TypeAlias = "Polygons | Runs"


def read_shape(content: bytes | str, size: tuple[int, int], what: str) -> Shape:
    """Read a segmentation in COCO's layout; nothing as large as the picture is made yet.

    Args:
        content: JSON of polygons [[x, y, x, y, ...], ...], or of run lengths {"size", "counts"}
            with the counts as a list or as COCO's compressed text.
        size: (H, W) of the picture.
        what: What errors call it.

    Raises:
        InputError: It is neither, is damaged, or differs in size.
    """
    kind = cast("type[list[list[float]] | _RunLengths]", _Polygons | _RunLengths)
    shape = decode_json(content, kind, what)
    if isinstance(shape, list):
        return _check_polygons(shape, size, what)
    if shape.size != size:
        raise InputError(
            f"{what}: run lengths of {shape.size[0]} x {shape.size[1]} pixels for a picture of "
            f"{size[0]} x {size[1]} (H x W)"
        )
    counts = shape.counts
    runs = np.array(counts, np.int64) if isinstance(counts, list) else _decompress(counts, what)
    pixels = size[0] * size[1]
    # One by one first: the sum of damaged ones may be beyond any integer.
    if not runs.size or runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        raise InputError(f"{what}: the run lengths do not add up to the picture's {pixels} pixels")
    return Runs(size, runs)


def _decompress(text: str, what: str) -> NDArray[np.int64]:
    """Return the numbers of COCO's compressed text; they may be negative if it is damaged."""
    counts = text.encode("utf-8")
    codes = np.frombuffer(counts, np.uint8) - np.int64(48)
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise InputError(f"{what}: counts is not compressed run lengths")
    ends = np.flatnonzero((codes & 32) == 0)
    if np.diff(ends, prepend=-1).max() > _LONGEST_NUMBER:
        raise InputError(f"{what}: counts has a run length that is larger than any picture")
    return read_lengths(counts)


def _check_polygons(
    polygons: Sequence[Sequence[float]], size: tuple[int, int], what: str
) -> Polygons:
    if any(len(polygon) % 2 for polygon in polygons):
        raise InputError(f"{what}: a polygon has an odd number of coordinates; it needs x, y pairs")
    parts = tuple(
        _clip_near(np.array(polygon, np.float64).reshape(-1, 2), size) for polygon in polygons
    )
    steps = sum(float(np.abs(part - np.roll(part, 1, axis=0)).max(1).sum()) for part in parts)
    if steps * _STEPS > _MOST_STEPS:
        raise InputError(f"{what}: the polygons' outline of {steps:.0f} pixels is too long")
    return Polygons(size, parts)


def _clip_near(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Cut a polygon off a picture's size beyond the picture; what is nearer is left as it is.

    The algorithm is that of Sutherland and Hodgman (1974), "Reentrant Polygon Clipping".
    """
    for axis, side in ((0, size[1]), (1, size[0])):
        for sign, bound in ((-1, -side), (1, 2 * side)):
            beyond = sign * (points[:, axis] - bound)
            if not (beyond > 0).any():
                continue
            inside = beyond <= 0
            following = np.roll(points, -1, axis=0)
            crossing = inside != np.roll(inside, -1)
            steps = beyond - np.roll(beyond, -1)
            share = np.divide(beyond, steps, out=np.zeros_like(steps), where=crossing)
            cuts = points + share[:, None] * (following - points)
            both = np.stack([points, cuts], axis=1).reshape(-1, 2)
            points = both[np.stack([inside, crossing], axis=1).ravel()]
    return points
