"""Clicks and boxes of a person as prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...models.errors import InputError
from ..geometry import check_boxes, check_points
from ..types import PromptSet


def geometry_prompts(
    points: ArrayLike | None,
    point_labels: ArrayLike | None,
    boxes: ArrayLike | None,
    size: tuple[int, int],
) -> PromptSet:
    """Turn points and boxes into prompts.

    All points without a box describe one object, and so does one box with all points. Of several
    boxes each describes an object, together with the points that lie inside it.

    Args:
        points: (N, 2) in pixels of the image, (x, y).
        point_labels: (N,): 1 foreground, 0 background; all foreground by default.
        boxes: (B, 4) XYXY in pixels of the image.
        size: Of the image, (H, W).

    Raises:
        InputError: Shapes disagree, a number is not finite or lies outside the image, labels
            come without points, or a foreground point lies in none of several boxes.
    """
    coords, labels = _read_points(points, point_labels)
    corners = None if boxes is None else _read("boxes", boxes, 4)
    if corners is not None and len(corners):
        check_boxes(corners, size)
    if len(coords):
        check_points(coords[None], labels[None], size)
    if corners is None or not len(corners):
        if not len(coords):
            return PromptSet.empty()
        if not (labels == 1).any():
            raise InputError("all points are background; give a foreground point or a box as well")
        return PromptSet(
            prompt_scores=np.ones(1, np.float32),
            labels=("point",),
            point_coords=coords[None],
            point_labels=labels[None],
        )
    shared = _share_points(coords, labels, corners)
    repeated = np.broadcast_to(coords, (len(corners), *coords.shape))
    return PromptSet(
        prompt_scores=np.ones(len(corners), np.float32),
        labels=("box",) * len(corners),
        boxes=corners,
        point_coords=repeated if len(coords) else None,
        point_labels=shared if len(coords) else None,
    )


def _share_points(
    coords: NDArray[np.float32], labels: NDArray[np.int64], boxes: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Labels (B, N) of the points for each box: -1 (padding) where a point is another box's."""
    if len(boxes) == 1:
        return labels[None]
    inside = (coords >= boxes[:, None, :2]).all(-1) & (coords <= boxes[:, None, 2:]).all(-1)
    lost = (labels == 1) & ~inside.any(0)
    if lost.any():
        x, y = coords[lost][0]
        raise InputError(
            f"the foreground point ({x:g}, {y:g}) lies in none of the {len(boxes)} boxes; "
            "move it, or ask for it in a call of its own"
        )
    return np.where(inside, labels, -1)


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
