"""A result as supervision's Detections."""

from __future__ import annotations

import numpy as np

from promptseg.pipeline.drawing import import_supervision
from promptseg.pipeline.result import Result

from .results import make_result


def test_every_field_is_there() -> None:
    result = make_result("cat", "red car", "cat")
    found = result.to_supervision()
    assert isinstance(found, import_supervision().Detections)
    np.testing.assert_array_equal(found.mask, result.masks)
    np.testing.assert_array_equal(found.xyxy, result.boxes_xyxy)
    np.testing.assert_array_equal(found.confidence, result.scores)
    assert found.class_id.tolist() == [0, 1, 0]
    assert found.data["class_name"].tolist() == ["cat", "red car", "cat"]
    np.testing.assert_array_equal(found.data["iou_prediction"], result.iou_predictions)
    np.testing.assert_array_equal(found.data["stability_score"], result.stability_scores)
    np.testing.assert_array_equal(found.data["prompt_score"], result.prompt_scores)


def test_it_is_filtered_as_a_whole_and_apart_from_the_result() -> None:
    result = make_result("cat", "dog")
    found = result.to_supervision()
    kept = found[found.data["class_name"] == "dog"]
    np.testing.assert_array_equal(kept.mask, result.masks[1:])
    np.testing.assert_array_equal(kept.data["prompt_score"], result.prompt_scores[1:])
    found.mask[:] = False
    found.confidence[:] = 0
    assert result.masks.any()
    assert result.scores.all()


def test_nothing_found() -> None:
    found = Result.empty((5, 7)).to_supervision()
    assert found.is_empty()
    assert found.mask.shape == (0, 5, 7)
    assert found.class_id.shape == (0,)
    assert set(found.data) == {"class_name", "iou_prediction", "stability_score", "prompt_score"}
