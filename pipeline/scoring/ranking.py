"""From decoded masks to a ranked result: pure functions, and a reason for every mask dropped.

The score that orders masks, the formula of `combined_score`:

    score = clip(iou_prediction, 0, 1) * stability ** 0.5 * prompt_score ** 0.5

The predicted IoU estimates the mask's quality and counts in full; the stability and the prompt
score are weaker evidence and enter by their square roots. All factors lie in [0, 1], and so does
the score; it is 0 if any of them is 0. Masks that come with a calibrated score (see
:mod:`~promptseg.pipeline.scoring.calibration`) are ordered by that instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ...models.errors import InputError
from ..checks import Float32Array
from ..compact_mask import CompactMask
from ..marks import Marks
from ..masks import cut
from ..proposals import Proposals
from ..result import RejectedMask, Result


@dataclass(frozen=True)
class RankingConfig:
    """Which masks are kept, and the weights of the score.

    Attributes:
        min_score: Minimum combined score.
        min_stability: Minimum stability score.
        min_area: Minimum area in pixels; an empty mask is always dropped.
        nms_iou: A mask whose IoU with a better one of its label is above this is dropped.
        nms_ios: The same for intersection over the smaller area: drops parts of a better mask,
            and wholes around a better part, but not those of a click. 1.0 turns it off.
        nms_across_labels: Whether better masks of other labels count as well.
        no_overlap: Whether each pixel goes to the best of the masks that cover it.
        negative_iou: A mask whose IoU with a negative mask is above this is dropped.
        negative_ios: A mask of which more than this share lies in a negative mask is dropped.
        negative_share: A negative counts against a mask if its prompt score is at least this
            share of the mask's.
        top_k: Maximum number of masks for each label; None keeps all.
        stability_weight: Exponent of the stability score.
        prompt_weight: Exponent of the prompt score.
        calibrated: Whether calibrated scores are used where there are some; false orders all masks
            by the formula.

    Raises:
        InputError: A value is out of its range.
    """

    min_score: float = 0.0
    min_stability: float = 0.0
    min_area: int = 1
    nms_iou: float = 0.7
    nms_ios: float = 1.0
    nms_across_labels: bool = False
    no_overlap: bool = False
    negative_iou: float = 0.5
    negative_ios: float = 0.8
    negative_share: float = 0.5
    top_k: int | None = None
    stability_weight: float = 0.5
    prompt_weight: float = 0.5
    calibrated: bool = True

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
        whole = self.top_k is None or isinstance(self.top_k, (int, np.integer))
        if not whole or (self.top_k is not None and self.top_k < 1):
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


def rank(proposals: Proposals, config: RankingConfig) -> Result:
    """Order masks by the combined score and drop what should not be shown, with reasons.

    A mask is dropped by the first of these that holds: its area is too small, its stability or
    score too low, it lies on a negative mask, the marks do not select it, it overlaps a better
    mask of its label (greedy non-maximum suppression; with `nms_across_labels`, of any label), or
    its label already has top_k better ones. Equal scores keep their order. Finally, with
    `no_overlap`, each pixel goes to the best of the masks that cover it.

    Marks select a mask that covers a foreground point (if there are any), covers no background
    point, and has at least half of its area in one of the boxes (if there are any).

    Args:
        proposals: The masks and their scores.
        config: Thresholds and weights.

    Returns:
        The kept masks, best first.
    """
    ranking = _Ranking(proposals, config)
    ranking.drop_weak()
    if proposals.negatives is not None:
        ranking.drop_negatives(proposals.negatives)
    if proposals.marks:
        ranking.drop_unmarked(proposals.marks)
    if not proposals.distinct:
        ranking.drop_overlaps()
    ranking.drop_beyond_top_k()
    if config.no_overlap:
        ranking.share_pixels()
    return ranking.result()


def _unmarked(mask: CompactMask, marks: Marks) -> str | None:
    """Return why points and boxes do not select a mask; None if they do."""
    height, width = mask.size
    left, top, right, bottom = mask.box
    part = mask.part()
    wanted = covers_wanted = False
    for (x, y), label in zip(marks.points, marks.point_labels, strict=True):
        column, row = min(int(x), width - 1), min(int(y), height - 1)
        within = left <= column < right and top <= row < bottom
        covered = within and bool(part[row - top, column - left])
        if label == 0 and covered:
            return f"covers the background point ({x:g}, {y:g})"
        wanted |= label == 1
        covers_wanted |= label == 1 and covered
    if wanted and not covers_wanted:
        return "covers no foreground point"
    if not len(marks.boxes):
        return None
    edges = np.maximum(marks.boxes, 0)
    first, last = edges[:, :2].astype(int) - (left, top), np.ceil(edges[:, 2:]).astype(int)
    last -= (left, top)
    inside = max(
        np.count_nonzero(part[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)])
        for (x0, y0), (x1, y1) in zip(first.tolist(), last.tolist(), strict=True)
    )
    return None if 2 * inside >= mask.area else f"only {inside / mask.area:.0%} of it lies in a box"


class _Ranking:
    """The masks of one image, the order of their scores, and why some of them are dropped."""

    def __init__(self, proposals: Proposals, config: RankingConfig) -> None:
        self.all = proposals
        self.config = config
        self.masks = list(proposals.masks)
        self.scores = combined_score(
            proposals.iou_predictions,
            proposals.stability_scores,
            proposals.prompt_scores,
            stability_weight=config.stability_weight,
            prompt_weight=config.prompt_weight,
        )
        if config.calibrated and proposals.calibrated is not None:
            known = np.isfinite(proposals.calibrated)
            self.scores = np.where(known, proposals.calibrated, self.scores)
        self.order: list[int] = np.argsort(-self.scores, kind="stable").tolist()
        self.reasons: dict[int, str] = {}

    def alive(self) -> list[int]:
        """Return the masks not dropped so far, best first."""
        return [i for i in self.order if i not in self.reasons]

    def drop_weak(self) -> None:
        config = self.config
        for i in self.order:
            area = self.masks[i].area
            score, stability = float(self.scores[i]), float(self.all.stability_scores[i])
            if area == 0:
                self.reasons[i] = "the mask is empty"
            elif area < config.min_area:
                self.reasons[i] = f"area {area} px below min_area {config.min_area} px"
            elif stability < config.min_stability:
                self.reasons[i] = (
                    f"stability {stability:.2f} below min_stability {config.min_stability:.2f}"
                )
            elif score < config.min_score:
                self.reasons[i] = f"score {score:.2f} below min_score {config.min_score:.2f}"

    def drop_negatives(self, negatives: Proposals) -> None:
        config = self.config
        for i in self.alive():
            # A weak negative does not outweigh a strong mask.
            least = config.negative_share * self.all.prompt_scores[i]
            strong = np.flatnonzero(negatives.prompt_scores >= least).tolist()
            overlaps = self._overlaps(i, [negatives.masks[j] for j in strong])
            if not overlaps:
                continue
            names = [negatives.labels[j] for j in strong]
            by_iou = int(np.argmax([overlap.iou for overlap in overlaps]))
            by_inside = int(np.argmax([overlap.inside for overlap in overlaps]))
            iou, inside = overlaps[by_iou].iou, overlaps[by_inside].inside
            if iou > config.negative_iou:
                self.reasons[i] = f"overlaps the negative '{names[by_iou]}' (IoU {iou:.2f})"
            elif inside > config.negative_ios:
                self.reasons[i] = f"lies {inside:.0%} inside the negative '{names[by_inside]}'"

    def drop_unmarked(self, marks: Marks) -> None:
        for i in self.alive():
            reason = _unmarked(self.masks[i], marks)
            if reason is not None:
                self.reasons[i] = reason

    def drop_overlaps(self) -> None:
        kept: dict[str, list[int]] = {}
        for i in self.alive():
            label = "" if self.config.nms_across_labels else self.all.labels[i]
            better = kept.setdefault(label, [])
            reason = self._overlapped(i, better)
            if reason is None:
                better.append(i)
            else:
                self.reasons[i] = reason

    def _overlapped(self, i: int, better: Sequence[int]) -> str | None:
        """Return how mask i overlaps the better masks too much; None if it does not."""
        overlaps = self._overlaps(i, [self.masks[j] for j in better])
        if not overlaps:
            return None
        by_iou = int(np.argmax([overlap.iou for overlap in overlaps]))
        by_shared = int(np.argmax([overlap.of_smaller for overlap in overlaps]))
        iou, shared = overlaps[by_iou].iou, overlaps[by_shared].of_smaller
        if iou > self.config.nms_iou:
            label = self.all.labels[better[by_iou]]
            return f"overlaps a better mask of '{label}' (IoU {iou:.2f})"
        if shared > self.config.nms_ios and not self.all.nested:
            label = self.all.labels[better[by_shared]]
            return f"shares {shared:.0%} of the smaller area with a better mask of '{label}'"
        return None

    def _overlaps(self, i: int, others: Sequence[CompactMask]) -> list[_Overlap]:
        mask = self.masks[i]
        return [
            _Overlap(shared, mask.area, other.area)
            for other, shared in zip(others, mask.shares(others).tolist(), strict=True)
        ]

    def drop_beyond_top_k(self) -> None:
        if self.config.top_k is None:
            return
        seen: dict[str, int] = {}
        for i in self.alive():
            label = self.all.labels[i]
            seen[label] = seen.get(label, 0) + 1
            if seen[label] > self.config.top_k:
                self.reasons[i] = f"beyond top_k={self.config.top_k}"

    def share_pixels(self) -> None:
        """Give each pixel to the best of the masks that cover it."""
        taken = np.zeros(self.all.image_size, np.bool_)
        for i in self.alive():
            whole = self.masks[i]
            there = cut(taken, whole.box)
            part = whole.part() & ~there
            there |= part
            left = int(np.count_nonzero(part))
            if left == whole.area:
                continue
            if left < max(1, self.config.min_area):
                self.reasons[i] = f"better masks cover all but {left} px of it"
                continue
            self.masks[i] = CompactMask.within(part, whole.box, whole.size)

    def result(self) -> Result:
        kept = self.alive()
        dropped = [self._rejected(i) for i in self.order if i in self.reasons]
        return Result(
            image_size=self.all.image_size,
            compact_masks=tuple(self.masks[i] for i in kept),
            labels=[self.all.labels[i] for i in kept],
            scores=self.scores[kept],
            iou_predictions=self.all.iou_predictions[kept],
            stability_scores=self.all.stability_scores[kept],
            prompt_scores=self.all.prompt_scores[kept],
            rejected=(*self.all.rejected, *dropped),
            image=self.all.image,
            unseen=self.all.unseen,
        )

    def _rejected(self, i: int) -> RejectedMask:
        """Return mask i as rejected."""
        mask = self.masks[i]
        x0, y0, x1, y1 = mask.box
        return RejectedMask(
            label=self.all.labels[i],
            reason=self.reasons[i],
            prompt_score=float(self.all.prompt_scores[i]),
            iou_prediction=float(self.all.iou_predictions[i]),
            stability_score=float(self.all.stability_scores[i]),
            score=float(self.scores[i]),
            box_xyxy=(float(x0), float(y0), float(x1), float(y1)) if mask.area else None,
            compact_mask=mask if mask.area else None,
        )


@dataclass(frozen=True)
class _Overlap:
    """Pixels that a mask shares with another, and their areas."""

    shared: int
    area: int
    other_area: int

    @property
    def iou(self) -> float:
        return self.shared / max(1, self.area + self.other_area - self.shared)

    @property
    def inside(self) -> float:
        """Share of the mask that lies in the other."""
        return self.shared / max(1, self.area)

    @property
    def of_smaller(self) -> float:
        return self.shared / max(1, min(self.area, self.other_area))
