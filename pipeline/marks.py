"""What a person marks in an image: points and boxes, read and checked once.

A point (x, y) is the index of a pixel, as in Segment Anything: the model itself adds the half pixel
to the centre. Boxes are XYXY.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.errors import InputError
from .checks import Float32Array, Numbers, read_floats

POINT_LABELS = (-1, 0, 1)


@dataclass(frozen=True, eq=False)
class Marks:
    """Points and boxes; either may be empty.

    Attributes:
        points: (N, 2) float32 in pixels of the image, (x, y).
        point_labels: (N,) int64: 1 foreground, 0 background.
        boxes: (B, 4) float32 XYXY in pixels of the image.
    """

    points: Float32Array
    point_labels: NDArray[np.int64]
    boxes: Float32Array

    @classmethod
    def read(
        cls,
        points: Numbers | None = None,
        point_labels: Numbers | None = None,
        boxes: Numbers | None = None,
    ) -> Marks:
        """Check points and boxes as far as possible without the image.

        Args:
            points: (N, 2) in pixels of the image, (x, y); or one point, (2,).
            point_labels: (N,): 1 foreground, 0 background; all foreground by default.
            boxes: (B, 4) XYXY in pixels of the image; or one box, (4,).

        Raises:
            InputError: Shapes disagree, a number is not finite, a box's corners are in the wrong
                order, or labels come without points.
        """
        coords, labels = _read_points(points, point_labels)
        corners = _read_rows("boxes", boxes, 4)
        check_corners(corners)
        return cls(coords, labels, corners)

    def __bool__(self) -> bool:
        return bool(len(self.points) or len(self.boxes))

    def check_inside(self, size: tuple[int, int]) -> None:
        """Raise InputError for a point or a box outside an image of ``size`` (H, W)."""
        check_points(self.points[None], self.point_labels[None], size)
        check_boxes(self.boxes, size)


def check_points(
    coords: NDArray[np.floating], labels: NDArray[np.generic], size: tuple[int, int]
) -> None:
    """Raise InputError for an unknown label or a point outside an image of ``size`` (H, W).

    Args:
        coords: (B, N, 2) in pixels, (x, y).
        labels: (B, N); the coordinates of padding (-1) are ignored.
        size: (H, W) of the image.
    """
    if not np.isin(labels, POINT_LABELS).all():
        unknown = labels[~np.isin(labels, POINT_LABELS)][0]
        raise InputError(
            f"a point label is 1 (foreground), 0 (background) or -1 (padding), got {unknown:g}"
        )
    height, width = size
    outside = (coords < 0).any(-1) | (coords > (width, height)).any(-1)
    if (outside & (labels != -1)).any():
        x, y = coords[outside & (labels != -1)][0]
        raise InputError(
            f"the point ({x:g}, {y:g}) lies outside the image of {width} x {height} pixels"
        )


def check_corners(boxes: NDArray[np.floating]) -> None:
    """Raise InputError for a box (B, 4) whose corners are in the wrong order."""
    for x0, y0, x1, y1 in boxes:
        if x0 > x1 or y0 > y1:
            raise InputError(
                f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) has its corners in the wrong order; "
                "give x0 <= x1, y0 <= y1"
            )


def check_boxes(boxes: NDArray[np.floating], size: tuple[int, int]) -> None:
    """Raise InputError for a box (B, 4) with swapped corners or outside an image (H, W)."""
    check_corners(boxes)
    height, width = size
    for x0, y0, x1, y1 in boxes:
        if x1 < 0 or y1 < 0 or x0 > width or y0 > height:
            raise InputError(
                f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies outside the image of "
                f"{width} x {height} pixels"
            )


def _read_points(
    points: Numbers | None, point_labels: Numbers | None
) -> tuple[Float32Array, NDArray[np.int64]]:
    coords = _read_rows("points", points, 2)
    if point_labels is None:
        return coords, np.ones(len(coords), np.int64)
    if points is None:
        raise InputError("point_labels need points as well; only the labels were given")
    labels = np.atleast_1d(read_floats("point_labels", point_labels))
    if labels.shape != (len(coords),):
        raise InputError(
            f"point_labels must have one entry per point: {labels.shape} for {len(coords)} points"
        )
    if not np.isin(labels, (0, 1)).all():
        raise InputError("point_labels must be 1 (foreground) or 0 (background)")
    return coords, labels.astype(np.int64)


def _read_rows(name: str, value: Numbers | None, width: int) -> Float32Array:
    """Return numbers of shape (N, width); a flat (width,) is one row, None is no row."""
    if value is None:
        return np.zeros((0, width), np.float32)
    array = read_floats(name, value)
    if array.size == 0:
        return np.zeros((0, width), np.float32)
    if array.shape == (width,):
        return array[None]
    if array.ndim != 2 or array.shape[1] != width:
        raise InputError(f"{name} must have shape (N, {width}), got {array.shape}")
    return array
