"""IoU, boundary F, Matthews correlation and AUC: worked examples and other implementations."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from promptseg.apps.evaluation.metrics import (
    balanced_weights,
    boundary_f,
    contour,
    mask_iou,
    matthews,
    roc_auc,
)


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


def test_iou_is_that_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.random((2, 13, 17)) < rng.random((2, 1, 1))
        first[0, 0] = True  # two empty masks have no IoU there
        encoded = [
            coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in (first, second)
        ]
        expected = coco_mask.iou(encoded[:1], encoded[1:], [0]).item()
        assert mask_iou(first, second) == pytest.approx(expected, abs=1e-12)


def block(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_contour_is_one_pixel_wide_and_not_the_pictures_border() -> None:
    mask = contour(block(10, 10, 15, 14))
    assert mask.sum() == 5 * 4 - 3 * 2
    assert not mask[11:13, 11:14].any()
    # In the corner of the picture only the right and the lower side are known.
    assert contour(block(0, 0, 5, 4)).sum() == 5 + 4 - 1
    assert not contour(np.ones((6, 8), bool)).any()
    assert not contour(np.zeros((6, 8), bool)).any()


def test_boundary_f_of_a_worked_example() -> None:
    # The diagonal is 100 pixels, the tolerance 0.8, rounded up to 1. The prediction is the target
    # with its right side 10 pixels further out.
    target, prediction = block(20, 20, 50, 40), block(20, 20, 60, 40)
    # The prediction's contour has 2 * (40 + 20) - 4 = 116 pixels. Apart from the target's lie, of
    # its upper and its lower side, the columns 51 to 58 (column 50 touches the target's corner),
    # and the 20 pixels of its right side.
    precision = (116 - 2 * 8 - 20) / 116
    # The target's has 2 * (30 + 20) - 4 = 96. Apart from the prediction's lie the 20 of its right
    # side but for two at each end, which are on the common sides or next to them.
    recall = (96 - 16) / 96
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_f(prediction, target) == pytest.approx(expected)


def test_the_tolerance_is_a_share_of_the_diagonal_rounded_up() -> None:
    # 0.008 of 500 pixels are 4, of 501 a little more.
    for size, tolerance in (((300, 400), 4), ((301, 400), 5)):
        target = block(100, 100, 200, 200, size)
        for apart in (tolerance, tolerance + 1):
            prediction = block(100 - apart, 100 - apart, 200 + apart, 200 + apart, size)
            value = boundary_f(prediction, target)
            if apart == tolerance:
                assert 0.9 < value < 1  # the corners alone are further
            else:
                assert value == 0


def brute_boundary_f(prediction, target, valid, tolerance: float) -> float:
    """By the definition, with every distance between two pixels."""
    height, width = target.shape
    target = np.array([[t if v else p for t, v, p in zip(*rows, strict=True)]
                       for rows in zip(target, valid, prediction, strict=True)])  # fmt: skip

    def outline(mask: np.ndarray) -> list[tuple[int, int]]:
        found = []
        for y in range(height):
            for x in range(width):
                around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                inside = [(j, i) for j, i in around if 0 <= j < height and 0 <= i < width]
                if mask[y, x] and not all(mask[place] for place in inside):
                    found.append((y, x))
        return found

    def near(pixels: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        hits = [any(np.hypot(y - j, x - i) <= tolerance for j, i in others) for y, x in pixels]
        return sum(hits) / len(hits)

    predicted, true = outline(prediction), outline(target)
    if not predicted or not true:
        return float(not predicted and not true)
    precision, recall = near(predicted, true), near(true, predicted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(8))
def test_boundary_f_is_that_of_all_distances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = (24, 250) if seed % 2 else (28, 30)  # tolerances of 3 pixels and of 1
    tolerance = np.ceil(0.008 * np.hypot(*size))
    assert tolerance == (3 if seed % 2 else 1)
    target, prediction = np.zeros(size, bool), np.zeros(size, bool)
    for mask in (target, prediction):
        for _ in range(3):
            x, y = rng.integers(0, min(size[1], 60)), rng.integers(0, size[0])
            mask[max(0, y - 6) : y + 5, max(0, x - 5) : x + 8] = True
    prediction |= target & (rng.random(size) < 0.9)
    valid = rng.random(size) < 0.9 if seed > 2 else np.ones(size, bool)
    expected = brute_boundary_f(prediction, target, valid, tolerance)
    assert 0 < expected < 1
    assert boundary_f(prediction, target, valid) == pytest.approx(expected)


def test_in_the_void_an_outline_is_right_wherever_it_runs() -> None:
    target = block(20, 20, 50, 40)
    void = block(14, 14, 56, 46) & ~target
    for grown in (0, 3, 6):
        prediction = block(20 - grown, 20 - grown, 50 + grown, 40 + grown)
        assert boundary_f(prediction, target, ~void) == 1
    assert boundary_f(block(10, 10, 60, 50), target, ~void) == 0


def test_masks_without_contours() -> None:
    nothing, something = block(0, 0, 0, 0), block(20, 20, 50, 40)
    assert boundary_f(nothing, nothing) == 1
    assert boundary_f(nothing, something) == 0
    assert boundary_f(something, nothing) == 0
    assert boundary_f(np.ones((6, 8), bool), np.ones((6, 8), bool)) == 1
    assert boundary_f(something, nothing, ~something) == 1


def test_weights_count_like_repetitions() -> None:
    present, decided = [1, 1, 1, 0, 0], [1, 1, 0, 0, 1]
    weights = [2, 2, 2, 3, 3]
    expected = matthews(np.repeat(present, weights), np.repeat(decided, weights))
    assert matthews(present, decided, weights) == pytest.approx(expected)
    np.testing.assert_allclose(balanced_weights(present), [1 / 6] * 3 + [1 / 4] * 2)
    assert matthews(present, decided, balanced_weights(present)) == pytest.approx(expected)


def test_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    present = rng.random(60) < 0.4
    scores = np.round(rng.random(60) + 0.3 * present, 1)  # with ties
    above = [np.sign(a - b) / 2 + 0.5 for a in scores[present] for b in scores[~present]]
    assert roc_auc(present, scores) == pytest.approx(np.mean(above))
    assert roc_auc([1, 1, 0], [0.9, 0.8, 0.1]) == 1
    assert roc_auc([1, 0], [0.5, 0.5]) == 0.5
    assert roc_auc([1, 0, 0], [0.1, 0.5, 0.7]) == 0
