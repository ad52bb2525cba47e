"""Connected regions of masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .masks import Box, cut, shift, tight_box
from .types import BoolArray


def remove_small_regions(
    mask: BoolArray, box: Box, size: tuple[int, int], min_area: int
) -> tuple[BoolArray, Box] | None:
    """Fill holes and then remove islands of fewer than `min_area` pixels, 8-connected.

    A hole is any connected part of the background, also one at the image's edge. If all islands
    are small, the largest stays.

    Args:
        mask: (y1 - y0, x1 - x0), the mask within its tight box.
        box: The box (x0, y0, x1, y1) as pixel edges.
        size: Of the image, (H, W).
        min_area: In pixels, 1 or more.

    Returns:
        The new mask within its tight box, and the box; None if no region is small.
    """
    (height, width), (x0, y0, x1, y1) = size, box
    # A window around the box stands for the whole image. The stripe of background beyond each side
    # of the box is in it where it is small, and else begun only, for it is too large to be filled.
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
    """Label the 8-connected regions from 1; the labels (H, W) and the pixels of each label."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    return labels, np.bincount(labels.ravel(), minlength=count + 1)
