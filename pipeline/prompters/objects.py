"""Tells the objects of a hot region apart, where they touch.

Each cell votes for the box of the object that it is part of (Hough voting, Leibe et al. 2004).
Boxes that overlap are one candidate; a candidate is an object if most of the region's cells within
its box vote for it, and not for another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...models.errors import InputError
from ...models.grounding.answers import ObjectField
from ..checks import BoolArray, Float32Array

_TIE = 1e-4  # IoU that a cell of distance is worth
_ALIKE = 0.7  # IoU with the surest vote from which votes are averaged


@dataclass(frozen=True)
class ObjectSplitConfig:
    """When a hot region is several objects.

    Attributes:
        same_iou: Votes for boxes of at least this IoU with a candidate's are for the candidate.
        least_votes: Minimum share of the region's votes for a candidate.
        agreement: Minimum share of the votes within a candidate's box that are for it.
        most: Maximum number of objects of a region.

    Raises:
        InputError: A value is out of its range.
    """

    same_iou: float = 0.3
    least_votes: float = 0.05
    agreement: float = 0.6
    most: int = 12

    def __post_init__(self) -> None:
        for name in ("same_iou", "least_votes", "agreement"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must be between 0 and 1, not {getattr(self, name)!r}")
        if self.most < 1:
            raise InputError(f"most must be 1 or more, not {self.most}")


def split_objects(
    region: BoolArray, heat: Float32Array, field: ObjectField, config: ObjectSplitConfig
) -> list[BoolArray]:
    """Split a region of a heat map into the objects that its cells vote for.

    Args:
        region: (h, w) its cells.
        heat: (h, w); a vote counts as much as its cell is hot and its box certain.
        field: The votes.
        config: When it is several objects.

    Returns:
        One region for each object, or the region itself if they are not at least two.
    """
    boxes = field.boxes_xyxy[region]
    weights = (field.confidence * heat)[region]
    places = (np.argwhere(region)[:, ::-1] + 0.5).astype(np.float32)
    found = _candidates(boxes, weights, places, config)
    if len(found) < 2:
        return [region]
    nearest = np.stack([_affinity(boxes, box) for box in found]).argmax(0)
    parts = []
    for number in range(len(found)):
        part = np.zeros_like(region)
        part[region] = nearest == number
        if part.any():
            parts.append(part)
    return parts


def _candidates(
    boxes: Float32Array,
    weights: Float32Array,
    places: Float32Array,
    config: ObjectSplitConfig,
) -> list[Float32Array]:
    """Return the boxes of the objects that cells at places (N, 2) vote for."""
    left = np.ones(len(boxes), np.bool_)
    found: list[Float32Array] = []
    least = config.least_votes * float(weights.sum())
    while left.any() and len(found) < config.most:
        surest = int(np.where(left, weights, -1.0).argmax())
        alike = left & (box_ious(boxes, boxes[surest]) > _ALIKE)
        box = np.average(boxes[alike], axis=0, weights=weights[alike] + 1e-6).astype(np.float32)
        own = left & (box_ious(boxes, box) > config.same_iou)
        own[surest] = True
        left &= ~own
        within = ((places > box[:2]) & (places < box[2:])).all(1)
        votes = float(weights[own & within].sum())
        agrees = votes >= config.agreement * float(weights[within].sum())
        if agrees and float(weights[own].sum()) >= least:
            found.append(box)
    return found


def _affinity(boxes: Float32Array, box: Float32Array) -> Float32Array:
    """How near boxes (N, 4) are to a box: their IoU, then the distance of the middles."""
    middle = (boxes[:, :2] + boxes[:, 2:] - box[:2] - box[2:]) / 2
    nearness = box_ious(boxes, box) - _TIE * np.hypot(middle[:, 0], middle[:, 1])
    return nearness.astype(np.float32)


def box_ious(boxes: Float32Array, box: Float32Array) -> Float32Array:
    """IoU (N,) of boxes (N, 4) XYXY with one box (4,)."""
    overlap = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = overlap.clip(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - shared
    ious: Float32Array = (shared / np.maximum(areas, 1e-6)).astype(np.float32)
    return ious
