"""Checks of prompt sets."""

from __future__ import annotations

import numpy as np
import pytest

from promptseg.models.errors import InputError
from promptseg.pipeline.decoding.prompts import PromptSet


def test_prompt_set_settles_types() -> None:
    prompts = PromptSet(
        prompt_scores=[0.5, 1],
        labels=["cat", "dog"],
        point_coords=[[[1, 2]], [[3, 4]]],
        point_labels=[[1], [-1]],
        boxes=[[0, 0, 5, 5], [1, 1, 1, 1]],
        mask_input=np.zeros((2, 1, 8, 8)),
    )
    assert len(prompts) == 2
    assert prompts.labels == ("cat", "dog")
    assert prompts.point_coords.dtype == np.float32
    assert prompts.point_labels.dtype == np.int64
    assert prompts.boxes.shape == (2, 4)
    assert prompts.mask_input.shape == (2, 1, 8, 8)
    assert len(PromptSet.empty()) == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "points, a box or a mask"),
        ({"point_coords": [[[1, 2]]]}, "go together"),
        ({"point_labels": [[1]]}, "go together"),
        ({"point_coords": [[[1, 2]]], "point_labels": [[2]]}, "point_labels must be"),
        ({"point_coords": [[[1, np.nan]]], "point_labels": [[1]]}, "finite"),
        ({"point_coords": [[1, 2]], "point_labels": [[1]]}, "point_coords must have shape"),
        ({"point_coords": [[[1, 2]]], "point_labels": [[1, 1]]}, "point_labels must have shape"),
        ({"boxes": [[5, 0, 1, 1]]}, "x0 <= x1"),
        ({"boxes": [[0, 0, 1, 1], [0, 0, 1, 1]]}, r"boxes must have shape \(1, 4\)"),
        ({"boxes": [["a", 0, 1, 1]]}, "array of numbers"),
        ({"mask_input": np.zeros((1, 8, 8))}, "mask_input"),
        ({"boxes": [[0, 0, 1, 1]], "prompt_scores": [0.1, 0.2]}, "prompt_scores"),
    ],
)
def test_senseless_prompts_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        PromptSet(**{"prompt_scores": [1.0], "labels": ("cat",), **fields})
