"""Simulated clicks, as in the protocol of Segment Anything (Kirillov et al. 2023, appendix D)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def interior_depth(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance (H, W) in pixels of each cell of ``mask`` to the nearest one outside it.

    The picture's border counts as outside, so that the deepest point is well inside.
    """
    depth: NDArray[np.float32] = ndimage.distance_transform_edt(np.pad(mask, 1)).astype(np.float32)
    return depth[1:-1, 1:-1]


def next_click(
    target: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    valid: NDArray[np.bool_] | None = None,
) -> tuple[int, int, int]:
    """The next click of a patient user: the centre of the largest error.

    Args:
        target: True mask (H, W).
        prediction: Mask so far (H, W); all false for the first click.
        valid: Cells that count (H, W); all by default.

    Returns:
        Column, row and label: 1 where the mask lacks something, 0 where it has too much. With no
        error left, the centre of the target.
    """
    counted = np.ones_like(target) if valid is None else valid
    missing = interior_depth(target & ~prediction & counted)
    excess = interior_depth(prediction & ~target & counted)
    if missing.max() == 0 and excess.max() == 0:
        missing = interior_depth(target)
    label = int(missing.max() >= excess.max())
    row, column = np.unravel_index(int((missing if label else excess).argmax()), target.shape)
    return int(column), int(row), label
