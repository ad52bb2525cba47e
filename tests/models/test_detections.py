"""Which of a detector's boxes are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptseg.models.errors import InputError
from promptseg.models.grounding.answers import (
    MAX_BOXES,
    MIN_SCORE,
    Detections,
    best_boxes,
    corners_xyxy,
)

SIZE = (30, 50)


def keep(boxes: list[list[float]], scores: list[float]) -> Detections:
    shaped = np.array(boxes, np.float32).reshape(-1, 4)
    return best_boxes("cat", shaped, np.array(scores, np.float32), SIZE)


def test_boxes_are_clipped_and_sorted() -> None:
    found = keep([[1, 2, 9, 8], [-5, 10, 60, 40], [10, -3, 20, 5]], [0.3, 0.9, 0.6])
    assert found.phrase == "cat"
    np.testing.assert_array_equal(found.boxes_xyxy, [[0, 10, 50, 30], [10, 0, 20, 5], [1, 2, 9, 8]])
    np.testing.assert_array_equal(found.scores, np.array([0.9, 0.6, 0.3], np.float32))
    assert found.presence == pytest.approx(0.9)


def test_equal_scores_keep_their_order() -> None:
    found = keep([[i, 0, i + 5, 5] for i in range(4)], [0.5, 0.7, 0.5, 0.5])
    assert found.boxes_xyxy[:, 0].tolist() == [1, 0, 2, 3]


def test_what_is_no_box_in_the_image_is_dropped_and_tells_nothing() -> None:
    beside, thin, inverted = [10, 35, 20, 60], [10, 5, 10.5, 20], [20, 5, 10, 9]
    found = keep([beside, thin, inverted, [1, 1, 2, 2]], [0.9, 0.8, 0.7, 0.2])
    np.testing.assert_array_equal(found.boxes_xyxy, [[1, 1, 2, 2]])
    assert found.presence == pytest.approx(0.2)


def test_a_low_score_is_dropped_but_tells_the_presence() -> None:
    found = keep([[1, 1, 9, 9]], [MIN_SCORE - 0.01])
    assert found.presence == pytest.approx(MIN_SCORE - 0.01)
    assert_empty(found)


def test_no_box_at_all() -> None:
    found = keep([], [])
    assert found.presence == 0
    assert_empty(found)


def assert_empty(found: Detections) -> None:
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert found.boxes_xyxy.dtype == found.scores.dtype == np.float32


def test_the_best_are_kept_of_many() -> None:
    scores = np.random.default_rng(0).permutation(np.linspace(0.1, 0.9, MAX_BOXES + 20))
    found = keep([[0, 0, 9, 9]] * len(scores), scores.tolist())
    np.testing.assert_allclose(found.scores, np.sort(scores)[::-1][:MAX_BOXES], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_overflow_is_told(bad: float) -> None:
    with pytest.raises(InputError, match="not finite for 'cat'; run it with dtype bf16 or fp32"):
        keep([[1, 1, 9, 9]], [bad])
    with pytest.raises(InputError, match="not finite"):
        keep([[1, 1, bad, 9]], [0.5])


def test_corners() -> None:
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4]], [[0.0, 1.0, 1.0, 0.5]]], dtype=torch.bfloat16)
    corners = corners_xyxy(boxes, (100, 200))
    assert corners.dtype == np.float32
    np.testing.assert_allclose(corners, [[[80, 30, 120, 70]], [[-100, 75, 100, 125]]], atol=0.3)
