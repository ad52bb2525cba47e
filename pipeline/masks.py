"""Facts about masks that several stages need."""

from __future__ import annotations

import numpy as np

from .types import BoolArray, Float32Array


def mask_to_box(mask: BoolArray) -> tuple[float, float, float, float]:
    """Return the tight XYXY box of an (H, W) mask as pixel edges; all 0 for an empty mask.

    x1 and y1 are one past the last pixel, so that one pixel has a box of area 1.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return 0.0, 0.0, 0.0, 0.0
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def masks_to_boxes(masks: BoolArray) -> Float32Array:
    """Return the (N, 4) tight boxes of (N, H, W) masks, as `mask_to_box` gives them."""
    return np.array([mask_to_box(mask) for mask in masks], np.float32).reshape(len(masks), 4)
