"""Figures of merit of masks and of decisions whether something is there."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


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


def matthews(present: ArrayLike, decided: ArrayLike) -> float:
    """Matthews correlation of decisions with the truth; 0 where it is undefined.

    Over phrases and pictures it is the image-level MCC (IL_MCC) of SAM 3's benchmark.

    Args:
        present: (N,) bool, the phrase's object is in the picture.
        decided: (N,) bool, a mask was given.
    """
    truth, guess = np.asarray(present, bool), np.asarray(decided, bool)
    tp, tn = int((truth & guess).sum()), int((~truth & ~guess).sum())
    fp, fn = int((~truth & guess).sum()), int((truth & ~guess).sum())
    scale = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / scale if scale else 0.0
