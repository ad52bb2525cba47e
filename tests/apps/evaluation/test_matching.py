"""Masks matched to objects, on worked examples."""

from __future__ import annotations

import numpy as np
import pytest

from promptseg.apps.evaluation.matching import iou_table, matched_ious, meant_ious
from promptseg.apps.evaluation.pictures import Target


def row_of(*columns: int) -> np.ndarray:
    mask = np.zeros((1, 6), bool)
    mask[0, list(columns)] = True
    return mask


OBJECTS = [Target("cup", row_of(0, 1)), Target("cup", row_of(2, 3))]
VALID = np.ones((1, 6), bool)


def test_the_table_counts_valid_pixels_only() -> None:
    masks = np.stack([row_of(0, 1), row_of(0, 1, 2, 3), row_of(5)])
    np.testing.assert_allclose(iou_table(masks, OBJECTS, VALID), [[1, 0], [0.5, 0.5], [0, 0]])
    part = VALID.copy()
    part[0, 0] = False
    np.testing.assert_allclose(iou_table(masks[1:2], OBJECTS, part), [[1 / 3, 2 / 3]])


@pytest.mark.parametrize(
    ("table", "ious"),
    [
        ([[1.0, 0.0], [0.0, 0.5]], [1.0, 0.5]),
        ([[0.5, 0.5]], [0.5, 0.0]),  # one mask over both objects serves one of them
        ([[0.6, 0.5], [0.55, 0.0]], [0.55, 0.5]),  # the sum decides, not the best pair
        ([[0.2], [0.9], [0.4]], [0.9]),
    ],
)
def test_each_object_has_one_mask_of_its_own(table, ious) -> None:
    found = matched_ious(np.array(table))
    assert sorted(found) == sorted(ious)
    assert sum(found) == pytest.approx(sum(ious))


def test_without_masks_every_object_has_none() -> None:
    assert matched_ious(np.zeros((0, 3))) == [0, 0, 0]
    assert matched_ious(np.zeros((2, 0))) == []


def test_a_mask_means_what_it_fits_best() -> None:
    masks = np.stack([row_of(2, 3, 4), row_of(5)])
    assert meant_ious(masks, OBJECTS, VALID) == pytest.approx([2 / 3, 0])
    assert meant_ious(masks, [], VALID) == [0, 0]
