"""Masks whose components lie apart, taken apart: one mask an object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..checks import BoolArray
from .prompts import LowResMasks

# Components that are joined when each grows by so many cells belong together.
_REACH = 1
_NEIGHBOURS = np.ones((3, 3), np.bool_)
_LEAST_CELLS = 8  # of a component that can be an object of its own


def split_apart(
    masks: LowResMasks, threshold: float, share: float
) -> tuple[LowResMasks, list[int]]:
    """Split masks into components that lie apart.

    Args:
        masks: One mask for each of B prompts: C is 1.
        threshold: Logits above it are in the mask.
        share: Least area of a component, as a share of the largest, to become a mask of its own;
            smaller ones stay with the nearest.

    Returns:
        One or more masks for each prompt, and for each of them the number of its prompt. A part
        has the logits of the whole where it is, and no higher than the threshold elsewhere in the
        whole; the predicted IoU is the whole's.
    """
    logits, origins = [], []
    for i, whole in enumerate(masks.logits[:, 0]):
        for part in components_apart(whole > threshold, share):
            others = (whole > threshold) & ~part
            logits.append(np.where(others, 2 * threshold - whole, whole))
            origins.append(i)
    if not origins:
        return masks, origins
    stacked = np.stack(logits)[:, None].astype(np.float32)
    return LowResMasks(stacked, masks.iou_predictions[origins]), origins


def components_apart(mask: BoolArray, share: float) -> list[BoolArray]:
    """Split a mask (h, w) into components; it comes back alone if there are no two large ones."""
    grown = ndimage.binary_dilation(mask, _NEIGHBOURS, iterations=_REACH)
    labelled, count = ndimage.label(grown, _NEIGHBOURS)
    labelled = labelled * mask
    areas = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    large = np.flatnonzero(areas >= max(_LEAST_CELLS, share * areas.max(initial=0))) + 1
    if len(large) < 2:
        return [mask]
    distances = [ndimage.distance_transform_edt(labelled != number) for number in large]
    nearest: NDArray[np.intp] = np.argmin(distances, axis=0)
    return [mask & (nearest == i) for i in range(len(large))]
