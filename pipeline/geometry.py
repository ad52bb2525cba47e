"""Checks of points and boxes against an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..models.errors import InputError

POINT_LABELS = (-1, 0, 1)


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
