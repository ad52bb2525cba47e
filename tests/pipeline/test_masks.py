"""Boxes and regions against the official functions."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import nms

from promptseg.pipeline.masks import box_nms, masks_to_boxes, tight_box

BOXED = (20, 30)


def box_mask(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(BOXED, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_tight_box_counts_pixel_edges() -> None:
    assert tight_box(box_mask(3, 2, 10, 7)) == (3, 2, 10, 7)
    assert tight_box(box_mask(29, 19, 30, 20)) == (29, 19, 30, 20)
    assert tight_box(box_mask(0, 0, 0, 0)) == (0, 0, 0, 0)
    two = box_mask(1, 1, 2, 2) | box_mask(20, 15, 25, 16)
    assert tight_box(two) == (1, 1, 25, 16)
    assert masks_to_boxes(np.zeros((0, *BOXED), bool)).shape == (0, 4)


@settings(deadline=None)
@given(
    boxes=st.lists(st.tuples(*[st.integers(0, 12)] * 4), max_size=25),
    # Halves and thirds, so that an IoU often is the threshold; quarters make equal scores.
    threshold=st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.6, 2 / 3, 0.7, 1.0]),
    seed=st.integers(0, 99),
)
def test_suppression_is_torchvisions(boxes, threshold, seed):
    corners = np.array(boxes, np.float32).reshape(-1, 2, 2)
    array = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    scores = np.random.default_rng(seed).integers(0, 5, len(array)) / 4
    expected = nms(torch.from_numpy(array), torch.from_numpy(scores).float(), threshold)
    assert box_nms(array, scores, threshold).tolist() == expected.tolist()
