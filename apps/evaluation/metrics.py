"""Figures of merit for masks, and for decisions whether something is there."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, stats

# Share of the picture's diagonal that two contours may lie apart.
BOUNDARY_TOLERANCE = 0.008


def mask_iou(
    prediction: NDArray[np.bool_],
    target: NDArray[np.bool_],
    valid: NDArray[np.bool_] | None = None,
) -> float:
    """IoU of two masks (H, W) where ``valid``; 1 if both are empty there."""
    if valid is not None:
        prediction, target = prediction & valid, target & valid
    union = np.count_nonzero(prediction | target)
    return np.count_nonzero(prediction & target) / union if union else 1.0


def contour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (H, W) of a mask with one of their four neighbours outside it.

    The picture's border is not a contour: where an object leaves the picture, its outline is
    unknown.
    """
    edge: NDArray[np.bool_] = mask & ~ndimage.binary_erosion(mask, border_value=1)
    return edge


def boundary_f(
    prediction: NDArray[np.bool_],
    target: NDArray[np.bool_],
    valid: NDArray[np.bool_] | None = None,
) -> float:
    """F-measure of the contour of a mask (H, W).

    Precision is the share of the prediction's contour that lies within the tolerance of the
    target's, recall the share of the target's within the tolerance of the prediction's; the
    tolerance is 0.008 of the picture's diagonal, rounded up to whole pixels. Where ``valid`` is
    false the target is taken to be as predicted, so that an outline there is right wherever it
    runs. Two masks without contours agree (1); if one has none, the figure is 0.

    Source: Perazzi et al. 2016, "A Benchmark Dataset and Evaluation Methodology for Video Object
    Segmentation" (DAVIS), the measure F.
    """
    if valid is not None:
        target = np.where(valid, target, prediction)
    tolerance = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*target.shape))
    box = _box_around(prediction | target)
    predicted, true = contour(prediction[box]), contour(target[box])
    if not (predicted.any() and true.any()):
        return float(predicted.any() == true.any())
    precision = _share_near(predicted, true, tolerance)
    recall = _share_near(true, predicted, tolerance)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _box_around(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Slices around a mask with a margin of one pixel, so that its contour stays the same."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(0, int(rows[0]) - 1), int(rows[-1]) + 2),
        slice(max(0, int(columns[0]) - 1), int(columns[-1]) + 2),
    )


def _share_near(pixels: NDArray[np.bool_], others: NDArray[np.bool_], tolerance: float) -> float:
    """Share of the pixels of one mask that lie within a distance of another's."""
    distance: NDArray[np.float64] = ndimage.distance_transform_edt(~others)
    return float((distance[pixels] <= tolerance).mean())


def matthews(present: ArrayLike, decided: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Matthews correlation of decisions with the truth; 0 where it is undefined.

    Over phrases and pictures it is the image-level MCC (IL_MCC) of SAM 3's benchmark.

    Args:
        present: (N,) bool, the phrase's object is in the picture.
        decided: (N,) bool, a mask was given.
        weights: (N,) weight of each phrase; 1 each by default.
    """
    truth, guess = np.asarray(present, bool), np.asarray(decided, bool)
    share = np.ones(len(truth)) if weights is None else np.asarray(weights, np.float64)
    tp, tn = float(share[truth & guess].sum()), float(share[~truth & ~guess].sum())
    fp, fn = float(share[~truth & guess].sum()), float(share[truth & ~guess].sum())
    scale = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / scale if scale else 0.0


def balanced_weights(present: ArrayLike) -> NDArray[np.float64]:
    """Weights (N,) of N phrases with which present and absent ones count the same in total."""
    truth = np.asarray(present, bool)
    count = max(1, int(truth.sum())), max(1, int((~truth).sum()))
    weights: NDArray[np.float64] = np.where(truth, 0.5 / count[0], 0.5 / count[1])
    return weights


def roc_auc(present: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: how often a present phrase scores above an absent one.

    Equal scores count half (Mann and Whitney's U). There must be phrases of both kinds.

    Args:
        present: (N,) bool.
        scores: (N,), higher for a phrase that is more surely there.
    """
    truth = np.asarray(present, bool)
    ranks = stats.rankdata(np.asarray(scores, np.float64))
    positives = int(truth.sum())
    above = ranks[truth].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(truth) - positives)))
