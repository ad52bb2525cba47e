"""Non-maximum suppression of boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .types import Float32Array


def box_nms(boxes: Float32Array, scores: NDArray[np.float64], threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) XYXY.
        scores: (N,); of equal ones the earlier is preferred.
        threshold: A box whose IoU with a kept one is above this is dropped.

    Returns:
        (M,) indices of the boxes kept, best first.
    """
    x0, y0, x1, y1 = boxes.T
    areas = (x1 - x0) * (y1 - y0)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        width = np.minimum(x1[best], x1[order]) - np.maximum(x0[best], x0[order])
        height = np.minimum(y1[best], y1[order]) - np.maximum(y0[best], y0[order])
        shared = width.clip(0) * height.clip(0)
        with np.errstate(invalid="ignore"):
            # Two boxes without area have no IoU (0 / 0), and neither drops the other.
            iou = shared / (areas[best] + areas[order] - shared)
        # A float32 quotient against the threshold in full precision, as torchvision's.
        order = order[~(iou.astype(np.float64) > threshold)]
    return np.array(kept, np.intp)
