"""IoU and Matthews correlation on worked examples."""

from __future__ import annotations

import numpy as np
import pytest

from promptseg.apps.metrics import mask_iou, matthews


def strip(start: int, stop: int) -> np.ndarray:
    mask = np.zeros((2, 10), bool)
    mask[0, start:stop] = True
    return mask


def test_iou_is_shared_over_covered_area() -> None:
    assert mask_iou(strip(0, 6), strip(4, 10)) == 2 / 10
    assert mask_iou(strip(0, 6), strip(0, 3)) == 3 / 6
    assert mask_iou(strip(0, 6), strip(0, 6)) == 1
    assert mask_iou(strip(0, 5), strip(5, 10)) == 0


def test_void_counts_neither_for_nor_against() -> None:
    valid = ~strip(5, 10)
    assert mask_iou(strip(0, 8), strip(4, 10), valid) == 1 / 5
    assert mask_iou(strip(0, 8), strip(0, 5), valid) == 1


def test_two_empty_masks_agree() -> None:
    assert mask_iou(strip(0, 0), strip(0, 0)) == 1
    assert mask_iou(strip(0, 3), strip(6, 9), ~strip(0, 10)) == 1
    assert mask_iou(strip(0, 0), strip(0, 1)) == 0


@pytest.mark.parametrize(
    ("tp", "tn", "fp", "fn", "expected"),
    [
        (6, 3, 1, 2, (18 - 2) / np.sqrt(7 * 8 * 4 * 5)),  # 16 / sqrt(1120)
        (1, 1, 3, 3, (1 - 9) / 16),
        (5, 5, 0, 0, 1.0),
        (0, 0, 5, 5, -1.0),
        (90, 1, 4, 5, (90 - 20) / np.sqrt(94 * 95 * 5 * 6)),
        (4, 0, 4, 0, 0.0),  # always "there": undefined
        (0, 0, 0, 0, 0.0),
    ],
)
def test_matthews(tp: int, tn: int, fp: int, fn: int, expected: float) -> None:
    present = [True] * tp + [False] * tn + [False] * fp + [True] * fn
    decided = [True] * tp + [False] * tn + [True] * fp + [False] * fn
    assert matthews(present, decided) == pytest.approx(expected)


def test_matthews_is_the_correlation_of_the_two_columns() -> None:
    rng = np.random.default_rng(0)
    present = rng.random(200) < 0.3
    decided = present ^ (rng.random(200) < 0.2)
    assert matthews(present, decided) == pytest.approx(np.corrcoef(present, decided)[0, 1])
