"""Turns a person's points and boxes into prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...models.errors import InputError
from ..decoding.prompts import PromptSet
from ..marks import Marks


def mark_prompts(marks: Marks) -> PromptSet:
    """Turn points and boxes into prompts.

    Points without a box describe one object, "point"; a single box describes one object, "box",
    together with all points. Each of several boxes describes an object, "box 1", "box 2" ...,
    together with the points that lie inside it.

    Args:
        marks: Checked points and boxes.

    Raises:
        InputError: All points are background and there is no box, or a foreground point lies in
            none of several boxes.
    """
    coords, labels, boxes = marks.points, marks.point_labels, marks.boxes
    if not marks:
        return PromptSet.empty()
    if not len(boxes):
        if not (labels == 1).any():
            raise InputError("all points are background; give a foreground point or a box as well")
        return PromptSet(
            prompt_scores=np.ones(1, np.float32),
            labels=("point",),
            point_coords=coords[None],
            point_labels=labels[None],
        )
    several = len(boxes) > 1
    return PromptSet(
        prompt_scores=np.ones(len(boxes), np.float32),
        labels=tuple(f"box {i}" if several else "box" for i in range(1, len(boxes) + 1)),
        boxes=boxes,
        point_coords=np.broadcast_to(coords, (len(boxes), *coords.shape)) if len(coords) else None,
        point_labels=_share_points(coords, labels, boxes) if len(coords) else None,
    )


def _share_points(
    coords: NDArray[np.float32], labels: NDArray[np.int64], boxes: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return labels (B, N) of the points for each box: -1 (padding) for points outside it."""
    if len(boxes) == 1:
        return labels[None]
    inside = (coords >= boxes[:, None, :2]).all(-1) & (coords <= boxes[:, None, 2:]).all(-1)
    lost = (labels == 1) & ~inside.any(0)
    if lost.any():
        x, y = coords[lost][0]
        raise InputError(
            f"the foreground point ({x:g}, {y:g}) lies in none of the {len(boxes)} boxes; "
            "move it, or segment it in a separate call"
        )
    return np.where(inside, labels, -1)
