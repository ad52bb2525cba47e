"""From decoded masks to a ranked result: pure functions, and a reason for every mask dropped.

The score that orders masks, the formula of `combined_score`:

    score = clip(iou_prediction, 0, 1) * stability ** 0.5 * prompt_score ** 0.5

The IoU token speaks of the mask's quality and counts in full; stability and the prompt's score
are weaker witnesses and enter by their square roots. All lie in [0, 1], and so does the score; a
mask that any of them denies altogether gets 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..models.errors import InputError
from .marks import Marks
from .masks import mask_to_box, masks_to_boxes
from .types import BoolArray, Float32Array, RejectedMask, Result

IntArray = NDArray[np.int64]
# A list of views serves where an array would mean copying masks.
Masks = BoolArray | Sequence[BoolArray]


@dataclass(frozen=True)
class RankingConfig:
    """Which masks are kept, and the weights of the score.

    Attributes:
        min_score: Least combined score.
        min_stability: Least stability score.
        min_area: Least area in pixels; an empty mask is always dropped.
        nms_iou: A mask whose IoU with a better one of its label is above this is dropped.
        nms_ios: The same for intersection over the smaller area: drops parts of a better mask,
            and wholes around a better part. 1.0 turns it off.
        negative_iou: A mask whose IoU with a negative mask is above this is dropped.
        negative_ios: A mask of which more than this share lies in a negative mask is dropped.
        negative_share: A negative counts against a mask if its prompt score is at least this
            share of the mask's.
        top_k: Masks kept for each label; None keeps all.
        stability_weight: Exponent of the stability score.
        prompt_weight: Exponent of the prompt score.

    Raises:
        InputError: A value is out of its range.
    """

    min_score: float = 0.0
    min_stability: float = 0.0
    min_area: int = 1
    nms_iou: float = 0.7
    nms_ios: float = 1.0
    negative_iou: float = 0.5
    negative_ios: float = 0.8
    negative_share: float = 0.5
    top_k: int | None = None
    stability_weight: float = 0.5
    prompt_weight: float = 0.5

    def __post_init__(self) -> None:
        for name in (
            "min_score",
            "min_stability",
            "nms_iou",
            "nms_ios",
            "negative_iou",
            "negative_ios",
            "negative_share",
        ):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0.0 <= value <= 1.0):
                raise InputError(f"{name} must be between 0 and 1, not {value!r}")
        for name in ("stability_weight", "prompt_weight"):
            value = getattr(self, name)
            if not (value >= 0.0 and np.isfinite(value)):
                raise InputError(f"{name} must be 0 or more, not {value}")
        if self.min_area < 0:
            raise InputError(f"min_area must be 0 or more pixels, not {self.min_area}")
        if self.top_k is not None and not (isinstance(self.top_k, int) and self.top_k >= 1):
            raise InputError(f"top_k must be a whole number, 1 or more, not {self.top_k!r}")


def combined_score(
    iou_predictions: ArrayLike,
    stability_scores: ArrayLike,
    prompt_scores: ArrayLike,
    *,
    stability_weight: float = 0.5,
    prompt_weight: float = 0.5,
) -> Float32Array:
    """Return the score that orders masks; the module's docstring has the formula.

    Args:
        iou_predictions: (N,), clipped to [0, 1]: the IoU token may overshoot.
        stability_scores: (N,) in [0, 1].
        prompt_scores: (N,), clipped to [0, 1].
        stability_weight: Exponent of the stability scores.
        prompt_weight: Exponent of the prompt scores.

    Returns:
        (N,) float32 in [0, 1].
    """
    quality = np.clip(np.asarray(iou_predictions, np.float64), 0.0, 1.0)
    stability = np.clip(np.asarray(stability_scores, np.float64), 0.0, 1.0)
    prompt = np.clip(np.asarray(prompt_scores, np.float64), 0.0, 1.0)
    score: Float32Array = (quality * stability**stability_weight * prompt**prompt_weight).astype(
        np.float32
    )
    return score


def select_by_iou_prediction(iou_predictions: ArrayLike) -> NDArray[np.intp]:
    """Return (B,) which of each prompt's C candidates the IoU token prefers.

    Args:
        iou_predictions: (B, C).
    """
    predictions = np.asarray(iou_predictions)
    if predictions.ndim != 2 or predictions.shape[1] == 0:
        raise InputError(f"iou_predictions must be (B, C) with C >= 1, not {predictions.shape}")
    best: NDArray[np.intp] = np.argmax(predictions, axis=1)
    return best


def _intersections(
    first: Masks, first_boxes: Float32Array, second: Masks, second_boxes: Float32Array
) -> IntArray:
    """Return the (N, M) pixel counts of the intersections of N and M masks with tight boxes.

    Only the overlap of two boxes is looked at, so that many small masks in a large image are
    cheap, and no copy of the masks is made.
    """
    counts = np.zeros((len(first), len(second)), np.int64)
    for i, (ax0, ay0, ax1, ay1) in enumerate(first_boxes.astype(np.int64)):
        for j, (bx0, by0, bx1, by1) in enumerate(second_boxes.astype(np.int64)):
            x0, y0, x1, y1 = max(ax0, bx0), max(ay0, by0), min(ax1, bx1), min(ay1, by1)
            if x0 < x1 and y0 < y1:
                overlap = first[i][y0:y1, x0:x1] & second[j][y0:y1, x0:x1]
                counts[i, j] = np.count_nonzero(overlap)
    return counts


def _iou(intersections: IntArray, first_areas: IntArray, second_areas: IntArray) -> Float32Array:
    unions = first_areas[:, None] + second_areas[None, :] - intersections
    iou: Float32Array = (intersections / np.maximum(unions, 1)).astype(np.float32)
    return iou


def _areas(masks: Masks) -> IntArray:
    return np.array([np.count_nonzero(mask) for mask in masks], np.int64)


def rank(
    masks: BoolArray,
    labels: Sequence[str],
    iou_predictions: ArrayLike,
    stability_scores: ArrayLike,
    prompt_scores: ArrayLike,
    *,
    config: RankingConfig,
    negative_masks: BoolArray | None = None,
    negative_labels: Sequence[str] = (),
    negative_scores: ArrayLike = (),
    marks: Marks | None = None,
    already_rejected: Sequence[RejectedMask] = (),
) -> Result:
    """Order masks by the combined score and drop what should not be shown, with reasons.

    A mask is dropped by the first of these that holds: its area is too small, its stability or
    score too low, it lies on a negative mask, the marks are elsewhere, it overlaps a better mask
    of its label (greedy non-maximum suppression), its label already has top_k better ones. Masks
    of different labels never suppress each other. Equal scores keep the order they came in.

    Marks keep a mask that covers a foreground point, if there are any, no background point, and
    lies for at least half of its area in one of the boxes, if there are any.

    Args:
        masks: (N, H, W) bool.
        labels: N phrases.
        iou_predictions: (N,) the IoU token's estimates.
        stability_scores: (N,) in [0, 1].
        prompt_scores: (N,) in [0, 1].
        config: Thresholds and weights.
        negative_masks: (M, H, W) bool, what the negative phrases found; None for none.
        negative_labels: M phrases.
        negative_scores: (M,) prompt scores of the negatives.
        marks: Points and boxes that choose among the masks; None for none.
        already_rejected: What was dropped before decoding; comes first in `rejected`.

    Returns:
        The kept masks, best first.

    Raises:
        InputError: The inputs' lengths or sizes do not agree.
    """
    ranking = _Ranking(masks, labels, iou_predictions, stability_scores, prompt_scores, config)
    ranking.drop_weak()
    if negative_masks is not None and len(negative_masks):
        ranking.drop_negatives(negative_masks, negative_labels, negative_scores)
    if marks:
        ranking.drop_unmarked(marks)
    ranking.drop_overlaps()
    ranking.drop_beyond_top_k()
    return ranking.result(already_rejected)


def _unmarked(mask: BoolArray, marks: Marks) -> str | None:
    """Why points and boxes do not mark a mask; None if they do."""
    height, width = mask.shape
    wanted = covers_wanted = False
    for (x, y), label in zip(marks.points, marks.point_labels, strict=True):
        covered = bool(mask[min(int(y), height - 1), min(int(x), width - 1)])
        if label == 0 and covered:
            return f"covers the background point ({x:g}, {y:g})"
        wanted |= label == 1
        covers_wanted |= label == 1 and covered
    if wanted and not covers_wanted:
        return "covers no foreground point"
    if not len(marks.boxes):
        return None
    area = np.count_nonzero(mask)
    inside = max(
        np.count_nonzero(mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))])
        for x0, y0, x1, y1 in np.maximum(marks.boxes, 0)
    )
    return None if 2 * inside >= area else f"only {inside / area:.0%} of it lies in a box"


def _rejected(result: Result, i: int, reason: str) -> RejectedMask:
    """Mask i of a result as a dropped one."""
    there = bool(result.masks[i].any())
    return RejectedMask(
        label=result.labels[i],
        reason=reason,
        prompt_score=float(result.prompt_scores[i]),
        iou_prediction=float(result.iou_predictions[i]),
        stability_score=float(result.stability_scores[i]),
        score=float(result.scores[i]),
        box_xyxy=mask_to_box(result.masks[i]) if there else None,
        # A copy: a view would keep all N masks in memory.
        mask=result.masks[i].copy() if there else None,
    )


class _Ranking:
    """The masks of one image, the order of their scores, and why some of them are dropped."""

    def __init__(
        self,
        masks: BoolArray,
        labels: Sequence[str],
        iou_predictions: ArrayLike,
        stability_scores: ArrayLike,
        prompt_scores: ArrayLike,
        config: RankingConfig,
    ) -> None:
        arrays = [
            np.asarray(a, np.float32) for a in (iou_predictions, stability_scores, prompt_scores)
        ]
        shapes = [array.shape for array in arrays]
        if masks.ndim != 3 or shapes != [(len(masks),)] * 3:
            raise InputError(
                f"masks (N, H, W) and their scores, each (N,), must agree: "
                f"masks {masks.shape}, scores {shapes}"
            )
        self.all = Result(
            masks=masks,
            boxes_xyxy=masks_to_boxes(masks),
            labels=list(labels),
            scores=combined_score(
                *arrays,
                stability_weight=config.stability_weight,
                prompt_weight=config.prompt_weight,
            ),
            iou_predictions=arrays[0],
            stability_scores=arrays[1],
            prompt_scores=arrays[2],
        )
        self.order: list[int] = np.argsort(-self.all.scores, kind="stable").tolist()
        self.areas = _areas(masks)
        self.config = config
        self.reasons: dict[int, str] = {}

    def alive(self) -> list[int]:
        """Return the masks not dropped so far, best first."""
        return [i for i in self.order if i not in self.reasons]

    def drop_weak(self) -> None:
        config = self.config
        for i in self.order:
            score, stability = float(self.all.scores[i]), float(self.all.stability_scores[i])
            if self.areas[i] == 0:
                self.reasons[i] = "the mask is empty"
            elif self.areas[i] < config.min_area:
                self.reasons[i] = f"area {self.areas[i]} px below min_area {config.min_area} px"
            elif stability < config.min_stability:
                self.reasons[i] = (
                    f"stability {stability:.2f} below min_stability {config.min_stability:.2f}"
                )
            elif score < config.min_score:
                self.reasons[i] = f"score {score:.2f} below min_score {config.min_score:.2f}"

    def drop_negatives(self, negatives: BoolArray, names: Sequence[str], scores: ArrayLike) -> None:
        strengths = np.asarray(scores, np.float32)
        if len(names) != len(negatives) or strengths.shape != (len(negatives),):
            raise InputError(
                "negative_labels and negative_scores must have one entry a mask: "
                f"{len(names)} and {strengths.shape} for {len(negatives)}"
            )
        if negatives.dtype != np.bool_ or negatives.shape[1:] != self.all.masks.shape[1:]:
            raise InputError(
                f"negative_masks must be bool (M, {self.all.image_size[0]}, "
                f"{self.all.image_size[1]}), not {negatives.dtype} {negatives.shape}"
            )
        boxes, areas = masks_to_boxes(negatives), _areas(negatives)
        for i in self.alive():
            iou, counts = self._overlaps(i, negatives, boxes, areas)
            # A doubtful negative does not outweigh a certain find.
            weak = strengths < self.config.negative_share * self.all.prompt_scores[i]
            iou, inside = np.where(weak, 0, iou), np.where(weak, 0, counts / self.areas[i])
            by_iou, by_inside = int(np.argmax(iou)), int(np.argmax(inside))
            if iou[by_iou] > self.config.negative_iou:
                self.reasons[i] = f"overlaps the negative '{names[by_iou]}' (IoU {iou[by_iou]:.2f})"
            elif inside[by_inside] > self.config.negative_ios:
                self.reasons[i] = (
                    f"lies {inside[by_inside]:.0%} inside the negative '{names[by_inside]}'"
                )

    def drop_unmarked(self, marks: Marks) -> None:
        for i in self.alive():
            reason = _unmarked(self.all.masks[i], marks)
            if reason is not None:
                self.reasons[i] = reason

    def drop_overlaps(self) -> None:
        kept: dict[str, list[int]] = {}
        for i in self.alive():
            label = self.all.labels[i]
            better = kept.setdefault(label, [])
            if better:
                views = [self.all.masks[j] for j in better]
                areas = self.areas[better]
                iou, counts = self._overlaps(i, views, self.all.boxes_xyxy[better], areas)
                shared = counts / np.minimum(self.areas[i], areas)
                by_iou, by_shared = int(np.argmax(iou)), int(np.argmax(shared))
                if iou[by_iou] > self.config.nms_iou:
                    self.reasons[i] = f"overlaps a better mask of '{label}' (IoU {iou[by_iou]:.2f})"
                elif shared[by_shared] > self.config.nms_ios:
                    self.reasons[i] = (
                        f"shares {shared[by_shared]:.0%} of the smaller area with a better mask "
                        f"of '{label}'"
                    )
            if i not in self.reasons:
                better.append(i)

    def _overlaps(
        self, i: int, others: Masks, boxes: Float32Array, areas: IntArray
    ) -> tuple[Float32Array, IntArray]:
        """Return mask i's IoU and intersection with each of M others: (M,) both."""
        counts = _intersections([self.all.masks[i]], self.all.boxes_xyxy[i : i + 1], others, boxes)
        return _iou(counts, self.areas[i : i + 1], areas)[0], counts[0]

    def drop_beyond_top_k(self) -> None:
        if self.config.top_k is None:
            return
        seen: dict[str, int] = {}
        for i in self.alive():
            label = self.all.labels[i]
            seen[label] = seen.get(label, 0) + 1
            if seen[label] > self.config.top_k:
                self.reasons[i] = f"beyond top_k={self.config.top_k}"

    def result(self, already_rejected: Sequence[RejectedMask]) -> Result:
        rejected = [
            _rejected(self.all, i, self.reasons[i]) for i in self.order if i in self.reasons
        ]
        return replace(self.all[self.alive()], rejected=(*already_rejected, *rejected))
