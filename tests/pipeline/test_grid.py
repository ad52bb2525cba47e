"""Proposals on a grid, without upscaling."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from promptseg.pipeline import Segmenter
from promptseg.pipeline.decoding.grid import point_grid, propose_on_grid

SIZE = (90, 120)


@pytest.fixture(scope="module")
def ours(sam) -> Segmenter:
    """With predicted IoU of about 0.5."""
    model = deepcopy(sam)
    with torch.no_grad():
        model.mask_decoder.iou_prediction_head.layers[-1].bias.add_(0.5)
    return Segmenter(model)


def test_proposals_are_the_clicks_own_masks_best_first(ours, photo) -> None:
    embedding = ours.encode_image(photo(SIZE))
    found = propose_on_grid(ours, embedding, 9, nms_iou=1.0)  # in two blocks
    assert found.logits.shape[1:] == (1, *ours.model.mask_input_size)
    assert len(found.logits) == len(found.iou_predictions) > 81
    assert (found.logits > ours.model.mask_threshold).any(axis=(1, 2, 3)).all()
    assert (np.diff(found.iou_predictions[:, 0]) <= 0).all()
    points = point_grid(9) * (SIZE[1], SIZE[0])
    single = ours.decode_low_res(embedding, point_coords=points[:1, None], point_labels=[[1]])
    differences = np.abs(found.logits - single.logits[0, 0]).max(axis=(1, 2, 3))
    assert differences.min() < 1e-4


def test_doubles_and_the_unlikely_are_left_out(ours, photo) -> None:
    embedding = ours.encode_image(photo(SIZE))
    everything = propose_on_grid(ours, embedding, 6, nms_iou=1.0)
    distinct = propose_on_grid(ours, embedding, 6, nms_iou=0.7)
    assert 0 < len(distinct.logits) < len(everything.logits)
    middle = float(np.median(everything.iou_predictions))
    likely = propose_on_grid(ours, embedding, 6, min_iou_prediction=middle, nms_iou=1.0)
    assert len(likely.logits) == (everything.iou_predictions >= middle).sum()
    assert len(propose_on_grid(ours, embedding, 2, min_iou_prediction=9.0).logits) == 0
