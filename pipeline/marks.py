"""What a person marks in an image: points and boxes, read and checked once.

A point (x, y) is the index of a pixel, as in Segment Anything: its model adds the half pixel to
the centre by itself. Boxes are XYXY.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..models.errors import InputError

POINT_LABELS = (-1, 0, 1)


@dataclass(frozen=True, eq=False)
class Marks:
    """Checked points and boxes; either may be none.

    Attributes:
        points: (N, 2) float32 in pixels of the image, (x, y).
        point_labels: (N,) int64: 1 foreground, 0 background.
        boxes: (B, 4) float32 XYXY in pixels of the image.
    """

    points: NDArray[np.float32]
    point_labels: NDArray[np.int64]
    boxes: NDArray[np.float32]

    def __bool__(self) -> bool:
        return bool(len(self.points) or len(self.boxes))


def read_marks(
    points: ArrayLike | None,
    point_labels: ArrayLike | None,
    boxes: ArrayLike | None,
    size: tuple[int, int],
) -> Marks:
    """Check points and boxes against an image.

    Args:
        points: (N, 2) in pixels of the image, (x, y).
        point_labels: (N,): 1 foreground, 0 background; all foreground by default.
        boxes: (B, 4) XYXY in pixels of the image.
        size: Of the image, (H, W).

    Raises:
        InputError: Shapes disagree, a number is not finite or lies outside the image, or labels
            come without points.
    """
    coords, labels = _read_points(points, point_labels)
    corners = np.zeros((0, 4), np.float32) if boxes is None else _read("boxes", boxes, 4)
    check_points(coords[None], labels[None], size)
    check_boxes(corners, size)
    return Marks(coords, labels, corners)


def check_points(
    coords: NDArray[np.floating], labels: NDArray[np.generic], size: tuple[int, int]
) -> None:
    """Raise InputError for an unknown label or a point outside an image of ``size`` (H, W).

    Args:
        coords: (B, N, 2) in pixels, (x, y).
        labels: (B, N); the places of padding (-1) do not matter.
        size: Of the image.
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


def check_boxes(boxes: NDArray[np.floating], size: tuple[int, int]) -> None:
    """Raise InputError for a box (B, 4) with swapped corners or outside an image (H, W)."""
    height, width = size
    for x0, y0, x1, y1 in boxes:
        box = f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if x0 > x1 or y0 > y1:
            raise InputError(f"{box} has its corners in the wrong order; give x0 <= x1, y0 <= y1")
        if x1 < 0 or y1 < 0 or x0 > width or y0 > height:
            raise InputError(f"{box} lies outside the image of {width} x {height} pixels")


def _read_points(
    points: ArrayLike | None, point_labels: ArrayLike | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if points is None:
        if point_labels is not None:
            raise InputError("point_labels come with points; only the labels were given")
        return np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    coords = _read("points", points, 2)
    labels = np.ones(len(coords), np.int64) if point_labels is None else np.asarray(point_labels)
    if labels.shape != (len(coords),):
        raise InputError(
            f"point_labels must have one entry a point: {labels.shape} for {len(coords)} points"
        )
    if not np.isin(labels, (0, 1)).all():
        raise InputError("point_labels must be 1 (foreground) or 0 (background)")
    return coords, labels.astype(np.int64)


def _read(name: str, value: ArrayLike, width: int) -> NDArray[np.float32]:
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers: {error}") from error
    if array.size == 0:
        return np.zeros((0, width), np.float32)
    if array.ndim != 2 or array.shape[1] != width:
        raise InputError(f"{name} must have shape (N, {width}), got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite; it holds NaN or infinity")
    return array
