"""Detections made by hand, and the prompts that they become."""

from __future__ import annotations

import numpy as np
import pytest

from promptseg.models.errors import InputError
from promptseg.models.grounding.answers import Detections
from promptseg.pipeline.prompters.text.box_prompts import BoxPromptConfig, BoxPrompts

BOXES = np.array(
    [[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [5, 5, 9, 9], [40, 0, 50, 10]], np.float32
)
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.2], np.float32)
FOUND = Detections("cat", BOXES, SCORES, 0.9)
NOTHING = Detections("yak", np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.02)


def test_each_sure_box_is_a_prompt_and_doubles_are_left_out() -> None:
    prompts = BoxPrompts(BoxPromptConfig(min_score=0.5, nms_iou=0.7))(FOUND, None)
    # The second overlaps the first by 90 / 110; the fourth lies within it and is small.
    np.testing.assert_array_equal(prompts.boxes, BOXES[[0, 2, 3]])
    np.testing.assert_array_equal(prompts.prompt_scores, SCORES[[0, 2, 3]])
    assert prompts.labels == ("cat",) * 3
    assert prompts.point_coords is prompts.mask_input is None


def test_no_more_boxes_than_asked_for() -> None:
    config = BoxPromptConfig(min_score=0.0, nms_iou=1.0, max_prompts=2)
    np.testing.assert_array_equal(BoxPrompts(config)(FOUND, None).boxes, BOXES[:2])


def test_no_box_is_no_prompt() -> None:
    assert len(BoxPrompts()(NOTHING, None)) == 0


def test_of_boxes_that_are_all_too_unsure_the_best_stays() -> None:
    """Whether the phrase is there is the gate's to say; it has let the phrase pass."""
    prompts = BoxPrompts(BoxPromptConfig(min_score=0.95))(FOUND, None)
    np.testing.assert_array_equal(prompts.prompt_scores, np.array([0.9], np.float32))
    assert BoxPrompts().peak(NOTHING, None) is None


def test_the_peak_is_the_middle_of_the_surest_box() -> None:
    assert BoxPrompts().peak(FOUND, None) == (5.0, 5.0)


@pytest.mark.parametrize("change", [{"min_score": 1.1}, {"nms_iou": -0.1}, {"max_prompts": 0}])
def test_values_are_checked(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        BoxPromptConfig(**change)
