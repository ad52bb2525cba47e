"""Masks of a phrase against the objects that it names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from .metrics import mask_iou
from .pictures import BoolMask, Target


def iou_table(masks: BoolMask, targets: Sequence[Target], valid: BoolMask) -> NDArray[np.float64]:
    """IoU (N, M) of masks (N, H, W) with M targets where ``valid``."""
    table = [[mask_iou(mask, target.mask, valid) for target in targets] for mask in masks]
    return np.array(table, np.float64).reshape(len(masks), len(targets))


def matched_ious(table: NDArray[np.float64]) -> list[float]:
    """IoU of each of M objects with the one mask that is matched to it, 0 for one without a mask.

    Each mask is matched to at most one object, so that the sum is highest (the Hungarian method,
    Kuhn 1955).

    Args:
        table: (N, M), of :func:`iou_table`.
    """
    ious = np.zeros(table.shape[1])
    masks, objects = linear_sum_assignment(table, maximize=True)
    ious[objects] = table[masks, objects]
    return [float(iou) for iou in ious]


def meant_ious(masks: BoolMask, meant: Sequence[Target], valid: BoolMask) -> list[float]:
    """IoU of each mask (N, H, W) with the target that it fits best; 0 where nothing is meant."""
    table = iou_table(masks, meant, valid)
    return [float(row.max(initial=0.0)) for row in table]
