"""Boxes and regions of masks."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .checks import BoolArray, Float32Array

# XYXY in pixels, as pixel edges: x1 and y1 are one past the last pixel.
Box = tuple[int, int, int, int]
_Scalar = TypeVar("_Scalar", bound=np.generic)


def tight_box(mask: NDArray[np.bool_]) -> Box:
    """Return the tight box of an (H, W) mask; all 0 for an empty one.

    One pixel has a box of area 1.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return 0, 0, 0, 0
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1] + 1), int(rows[-1] + 1)


def masks_to_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the (N, 4) tight boxes of (N, H, W) masks."""
    return np.array([tight_box(mask) for mask in masks], np.float32).reshape(len(masks), 4)


def shift(box: Box, x: int, y: int) -> Box:
    """Return the box moved by (x, y)."""
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def cut(array: NDArray[_Scalar], box: Box) -> NDArray[_Scalar]:
    """Return the view of an array (H, W, ...) within a box."""
    return array[box[1] : box[3], box[0] : box[2]]


def box_nms(boxes: Float32Array, scores: NDArray[np.float64], threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4) XYXY.
        scores: (N,); among equal scores the earlier box wins.
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


def remove_small_regions(
    mask: BoolArray, box: Box, size: tuple[int, int], min_area: int
) -> tuple[BoolArray, Box] | None:
    """Fill holes and then remove islands of fewer than `min_area` pixels, 8-connected.

    A hole is any connected part of the background, including one at the image's edge. If all
    islands are small, the largest stays.

    Args:
        mask: (y1 - y0, x1 - x0), the mask within its tight box.
        box: The box (x0, y0, x1, y1) as pixel edges.
        size: (H, W) of the image.
        min_area: In pixels, 1 or more.

    Returns:
        The new mask within its tight box, and the box; None if no region is small.
    """
    (height, width), (x0, y0, x1, y1) = size, box
    # A window around the box stands in for the whole image. It includes the stripe of background
    # beyond each side of the box if the stripe is small enough to be filled; otherwise it includes
    # only the first row or column of it.
    stripes = (x0 * height, y0 * width, (width - x1) * height, (height - y1) * width)
    begun = [stripe >= min_area for stripe in stripes]
    left, top = x0 - 1 if begun[0] else 0, y0 - 1 if begun[1] else 0
    right, bottom = x1 + 1 if begun[2] else width, y1 + 1 if begun[3] else height
    window = np.zeros((bottom - top, right - left), np.bool_)
    window[y0 - top : y1 - top, x0 - left : x1 - left] = mask

    holes, sizes = _regions(~window)
    small = sizes < min_area
    edges = (holes[:, 0], holes[0], holes[:, -1], holes[-1])
    for edge, is_begun in zip(edges, begun, strict=True):
        if is_begun:
            small[edge] = False
    small[0] = False  # the mask itself
    changed = bool(small.any())
    window |= small[holes]

    islands, sizes = _regions(window)
    large = sizes >= min_area
    if not changed and large[1:].all():
        return None
    large[0] = False  # the background
    if not large.any():
        large[1 + np.argmax(sizes[1:])] = True
    window = large[islands]
    tight = tight_box(window)
    return cut(window, tight), shift(tight, left, top)


def _regions(mask: BoolArray) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Return the 8-connected regions as labels (H, W) from 1, and the pixels of each label."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return labels, np.bincount(labels.ravel(), minlength=count + 1)
