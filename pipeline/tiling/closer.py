"""What closer looks show of objects that tiles found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..masks import Box
from ..proposals import Proposals
from .joining import agreement, is_cut

_AGREE = 0.5


@dataclass(frozen=True)
class Shown:
    """An object in one closer look.

    Attributes:
        number: The object's.
        masks: Masks that agree with it, and other whole ones of its label.
        cut: Of each, whether an edge of the window cuts it.
        best: Which of those that agree has the best predicted IoU.
    """

    number: int
    masks: Proposals
    cut: list[bool]
    best: int


@dataclass
class Closer:
    """Closer looks at objects.

    Attributes:
        shown: Those that were found again, each in one look or several.
        missed: The numbers of those that were not.
        unseen: Those that are too large to be looked at, or could not be.
    """

    shown: list[Shown] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    unseen: list[int] = field(default_factory=list)

    def best(self) -> dict[int, tuple[Box, bool]]:
        """Return each object's best box, and whether an edge cuts its mask there."""
        found: dict[int, tuple[float, Box, bool]] = {}
        for look in self.shown:
            predicted = float(look.masks.iou_predictions[look.best])
            known = found.get(look.number)
            if known is None or predicted > known[0]:
                box = look.masks.masks[look.best].box
                found[look.number] = predicted, box, look.cut[look.best]
        return {i: (box, cut) for i, (_, box, cut) in found.items()}


def same_objects(near: Proposals, found: Proposals, around: Sequence[int]) -> dict[int, list[int]]:
    """Return, by the number of an object, the masks of a closer look that show it."""
    return {
        i: [
            k
            for k, mask in enumerate(near.masks)
            if near.labels[k] == found.labels[i] and agreement(mask, found.masks[i]) >= _AGREE
        ]
        for i in around
    }


def pick(
    near: Proposals, cut: Sequence[bool], number: int, label: str, same: Sequence[int]
) -> Shown:
    """Return what a closer look shows of an object; `same` are the masks that agree with it."""
    others = [k for k, name in enumerate(near.labels) if name == label and not cut[k]]
    kept = sorted({*same, *others})
    best = max(same, key=lambda k: float(near.iou_predictions[k]))
    return Shown(number, near.part(kept), [cut[k] for k in kept], kept.index(best))


def shows(window: Box, box: Box, size: tuple[int, int]) -> bool:
    """Return whether a box lies in a window and none of its edges cuts it."""
    inside = window[0] <= box[0] and window[1] <= box[1] and box[2] <= window[2]
    return inside and box[3] <= window[3] and not is_cut(box, window, size)


def box_around(boxes: Sequence[Box]) -> Box:
    """Return the box around boxes."""
    corners = np.array(boxes)
    x0, y0 = corners[:, :2].min(0).tolist()
    x1, y1 = corners[:, 2:].max(0).tolist()
    return x0, y0, x1, y1
