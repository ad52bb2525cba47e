"""Areas of a picture as sets of pixels: what a brush stroke covers, unions and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from ...models.errors import InputError
from ...pipeline.compact_mask import CompactMask
from ...pipeline.masks import cut, shift
from ..service.limits import MAX_BRUSH_SHARE, MAX_STROKE_POINTS

_BAD_STROKE = "that stroke could not be read; paint it again"


@dataclass(frozen=True)
class Stroke:
    """A path of a round brush.

    Attributes:
        points: (x, y) in pixels of the picture; at least one.
        radius: Of the brush, in pixels.
    """

    points: tuple[tuple[float, float], ...]
    radius: float

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Stroke:
        """Return the stroke that a stage's event reports.

        Raises:
            InputError: It is malformed, or has too many points.
        """
        points = data.get("points")
        if not isinstance(points, Sequence) or not 0 < len(points) <= MAX_STROKE_POINTS:
            raise InputError(_BAD_STROKE)
        try:
            read = tuple((float(x), float(y)) for x, y in points)
            radius = float(data["radius"])
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise InputError(_BAD_STROKE) from error
        if not np.isfinite([radius, *np.ravel(read)]).all() or radius <= 0:
            raise InputError(_BAD_STROKE)
        return cls(read, radius)

    def area(self, size: tuple[int, int]) -> CompactMask:
        """Return the pixels of a picture that the stroke covers.

        They are those whose centres lie within the radius of a pixel of the path.

        Args:
            size: (H, W) of the picture; what is beyond its edges is cut off.

        Raises:
            InputError: The brush is too large for the picture.
        """
        height, width = size
        if self.radius > MAX_BRUSH_SHARE * max(size):
            raise InputError(
                f"a brush of {self.radius:g} pixels is too large; take at most "
                f"{MAX_BRUSH_SHARE * max(size):g}"
            )
        # Pixels whose centre is the point; beyond the edge by no more than the brush reaches.
        reach = int(np.ceil(self.radius))
        path = np.clip(np.floor(self.points), -reach - 1, np.add((width, height), reach))
        x0, y0 = np.maximum(path.min(0) - reach, -reach - 1).astype(int)
        x1, y1 = np.minimum(path.max(0) + reach + 1, np.add((width, height), reach + 1)).astype(int)
        canvas = Image.new("L", (int(x1 - x0), int(y1 - y0)), 1)
        line = [(float(x - x0), float(y - y0)) for x, y in path]
        ImageDraw.Draw(canvas).line(line if len(line) > 1 else line * 2, fill=0)
        near = ndimage.distance_transform_edt(np.asarray(canvas)) <= self.radius
        left, top = max(0, x0), max(0, y0)
        inside = near[top - y0 : max(top, min(height, y1)) - y0, left - x0 : min(width, x1) - x0]
        if not inside.any():
            return CompactMask.join([], size)
        return CompactMask.join([(int(left), int(top), inside)], size)


def union(masks: Sequence[CompactMask]) -> CompactMask:
    """Return the pixels of any of one or more masks of one picture."""
    held = [mask for mask in masks if mask.area]
    if len(held) < 2:
        return (held or list(masks))[0]
    edges = np.array([mask.box for mask in held])
    x0, y0 = (int(edge) for edge in edges[:, :2].min(0))
    x1, y1 = (int(edge) for edge in edges[:, 2:].max(0))
    part = np.zeros((y1 - y0, x1 - x0), np.bool_)
    for mask in held:
        there = cut(part, shift(mask.box, -x0, -y0))
        there |= mask.part()
    return CompactMask.within(part, (x0, y0, x1, y1), masks[0].size)


def difference(mask: CompactMask, other: CompactMask) -> CompactMask:
    """Return the pixels of a mask that another of the same picture does not have."""
    x0, y0, x1, y1 = mask.box
    left, top = max(x0, other.box[0]), max(y0, other.box[1])
    right, bottom = min(x1, other.box[2]), min(y1, other.box[3])
    if left >= right or top >= bottom:
        return mask
    part = mask.part().copy()
    both = left, top, right, bottom
    shared = cut(part, shift(both, -x0, -y0))
    shared &= ~cut(other.part(), shift(both, -other.box[0], -other.box[1]))
    return CompactMask.within(part, mask.box, mask.size)
