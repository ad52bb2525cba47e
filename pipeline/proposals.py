"""Decoded masks with their labels and scores: the input of the ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ..models.errors import InputError
from .checks import BoolArray, Float32Array, UInt8Array
from .compact_mask import CompactMask
from .marks import Marks
from .result import RejectedMask
from .unseen import UnseenTile


@dataclass(frozen=True, eq=False, kw_only=True)
class Proposals:
    """N masks of one image, in any order, with the scores that they are ranked by.

    They can be ranked any number of times, with different thresholds; see
    :func:`~promptseg.pipeline.scoring.ranking.rank`.

    Attributes:
        image_size: (H, W).
        masks: N masks of that size.
        labels: N phrases.
        iou_predictions: (N,) the IoU token's estimates.
        stability_scores: (N,) in [0, 1].
        prompt_scores: (N,) in [0, 1].
        calibrated: (N,) the expected IoU with what is meant, in [0, 1], NaN for masks that the
            ranking's own formula scores; None if it scores all.
        negatives: What negative phrases and examples found; None if there are none.
        marks: Points and boxes that choose among the masks; None if there are none.
        rejected: What was dropped before decoding.
        distinct: Whether duplicates have already been removed, by the rules of everything mode;
            the ranking then leaves overlaps alone.
        nested: Whether masks of a label may lie within each other, as the whole, the part and the
            subpart of a click do; the ranking then leaves those alone.
        image: The image itself, (H, W, 3) uint8 RGB, read-only, which is passed on to results;
            None if it was not kept.
        unseen: Tiles that could not be looked at.

    Raises:
        InputError: Lengths or sizes do not agree.
    """

    image_size: tuple[int, int]
    masks: tuple[CompactMask, ...]
    labels: tuple[str, ...]
    iou_predictions: Float32Array
    stability_scores: Float32Array
    prompt_scores: Float32Array
    calibrated: Float32Array | None = None
    negatives: Proposals | None = None
    marks: Marks | None = None
    rejected: tuple[RejectedMask, ...] = ()
    distinct: bool = False
    nested: bool = False
    image: UInt8Array | None = None
    unseen: tuple[UnseenTile, ...] = ()

    def __post_init__(self) -> None:
        witnesses = (self.iou_predictions, self.stability_scores, self.prompt_scores)
        count = len(self.masks)
        shapes = [np.shape(values) for values in witnesses]
        if len(self.labels) != count or shapes != [(count,)] * 3:
            raise InputError(
                "proposals need a label and three scores, each (N,), for every mask: "
                f"{count} masks, {len(self.labels)} labels, scores {shapes}"
            )
        if self.calibrated is not None and np.shape(self.calibrated) != (count,):
            raise InputError(
                f"{count} masks need {count} calibrated scores, got {np.shape(self.calibrated)}"
            )
        others = {mask.size for mask in self.masks} - {self.image_size}
        if self.negatives is not None:
            others |= {self.negatives.image_size} - {self.image_size}
        if others:
            raise InputError(
                f"all masks must be of the image's size {self.image_size}, got {others.pop()}"
            )

    def __len__(self) -> int:
        return len(self.masks)

    def part(self, numbers: Sequence[int]) -> Proposals:
        """Return some of the masks, with all that belongs to no single one."""
        chosen = np.asarray(numbers, np.intp)
        return replace(
            self,
            masks=tuple(self.masks[i] for i in numbers),
            labels=tuple(self.labels[i] for i in numbers),
            iou_predictions=self.iou_predictions[chosen],
            stability_scores=self.stability_scores[chosen],
            prompt_scores=self.prompt_scores[chosen],
            calibrated=None if self.calibrated is None else self.calibrated[chosen],
        )

    @classmethod
    def of(
        cls,
        masks: BoolArray,
        labels: Sequence[str],
        iou_predictions: ArrayLike,
        stability_scores: ArrayLike,
        prompt_scores: ArrayLike,
        *,
        negatives: Proposals | None = None,
        marks: Marks | None = None,
        rejected: Sequence[RejectedMask] = (),
    ) -> Proposals:
        """Make proposals from masks (N, H, W) bool; for the other arguments see the class."""
        if masks.ndim != 3 or masks.dtype != np.bool_:
            raise InputError(f"masks must be bool (N, H, W), not {masks.dtype} {masks.shape}")
        return cls(
            image_size=(masks.shape[1], masks.shape[2]),
            masks=tuple(CompactMask.of(mask) for mask in masks),
            labels=tuple(labels),
            iou_predictions=np.asarray(iou_predictions, np.float32),
            stability_scores=np.asarray(stability_scores, np.float32),
            prompt_scores=np.asarray(prompt_scores, np.float32),
            negatives=negatives,
            marks=marks,
            rejected=tuple(rejected),
        )

    @classmethod
    def none(cls, image_size: tuple[int, int]) -> Proposals:
        """Return an empty set of proposals for an image of a size (H, W)."""
        nothing = np.zeros(0, np.float32)
        return cls(
            image_size=image_size,
            masks=(),
            labels=(),
            iou_predictions=nothing,
            stability_scores=nothing,
            prompt_scores=nothing,
        )

    @classmethod
    def certain(
        cls, image_size: tuple[int, int], masks: Sequence[CompactMask], label: str
    ) -> Proposals:
        """Return masks that are known rather than decoded: every score is 1."""
        ones = np.ones(len(masks), np.float32)
        return cls(
            image_size=image_size,
            masks=tuple(masks),
            labels=(label,) * len(masks),
            iou_predictions=ones,
            stability_scores=ones,
            prompt_scores=ones,
        )

    @classmethod
    def join(cls, image_size: tuple[int, int], parts: Sequence[Proposals]) -> Proposals:
        """Return the masks and the rejected of all parts, in their order."""
        parts = (cls.none(image_size), *parts)
        calibrated = [
            np.full(len(part), np.nan, np.float32) if part.calibrated is None else part.calibrated
            for part in parts
        ]
        any_calibrated = any(part.calibrated is not None for part in parts)
        return cls(
            image_size=image_size,
            masks=tuple(mask for part in parts for mask in part.masks),
            labels=tuple(label for part in parts for label in part.labels),
            iou_predictions=np.concatenate([part.iou_predictions for part in parts]),
            stability_scores=np.concatenate([part.stability_scores for part in parts]),
            prompt_scores=np.concatenate([part.prompt_scores for part in parts]),
            calibrated=np.concatenate(calibrated) if any_calibrated else None,
            rejected=tuple(item for part in parts for item in part.rejected),
            nested=any(part.nested for part in parts),
        )
