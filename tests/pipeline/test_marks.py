"""Checks of points and boxes, and how a person's marks become prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from promptseg.models.errors import InputError
from promptseg.pipeline.decoding.prompts import PromptSet
from promptseg.pipeline.marks import Marks, check_boxes, check_points
from promptseg.pipeline.prompters.mark_prompts import mark_prompts

SIZE = (40, 60)


def make(points: Any = None, labels: Any = None, boxes: Any = None) -> PromptSet:
    marks = Marks.read(points, labels, boxes)
    marks.check_inside(SIZE)
    return mark_prompts(marks)


def test_nothing_marked_is_no_prompt() -> None:
    for points, boxes in ((None, None), ([], None), (None, []), ([], []), (np.zeros((0, 2)), None)):
        prompts = make(points, None, boxes)
        assert len(prompts) == 0
        assert prompts.point_coords is None
        assert prompts.boxes is None


def test_points_alone_describe_one_object() -> None:
    prompts = make([(1, 2), (30.5, 20), (59, 39)], [1, 0, 1])
    assert prompts.labels == ("point",)
    assert prompts.boxes is None
    assert prompts.mask_input is None
    np.testing.assert_array_equal(prompts.point_coords, [[[1, 2], [30.5, 20], [59, 39]]])
    np.testing.assert_array_equal(prompts.point_labels, [[1, 0, 1]])
    np.testing.assert_array_equal(prompts.prompt_scores, [1])


def test_points_are_foreground_by_default() -> None:
    np.testing.assert_array_equal(make([(1, 2), (3, 4)]).point_labels, [[1, 1]])


def test_each_box_describes_an_object() -> None:
    prompts = make(boxes=[(1, 2, 30, 20), (0, 0, 60, 40)])
    assert prompts.labels == ("box 1", "box 2")
    assert prompts.point_coords is None
    assert prompts.point_labels is None
    np.testing.assert_array_equal(prompts.boxes, [[1, 2, 30, 20], [0, 0, 60, 40]])
    np.testing.assert_array_equal(prompts.prompt_scores, [1, 1])


def test_one_box_takes_all_points_even_those_outside() -> None:
    prompts = make([(10, 10), (50, 30)], [1, 0], [(5, 5, 20, 20)])
    assert prompts.labels == ("box",)
    np.testing.assert_array_equal(prompts.boxes, [[5, 5, 20, 20]])
    np.testing.assert_array_equal(prompts.point_coords, [[[10, 10], [50, 30]]])
    np.testing.assert_array_equal(prompts.point_labels, [[1, 0]])


def test_of_several_boxes_each_takes_the_points_inside() -> None:
    points = [(10, 10), (20, 20), (45, 30), (59, 1)]
    prompts = make(points, [1, 0, 1, 0], [(5, 5, 20, 20), (20, 20, 50, 35)])
    # The second lies on the corner of both; the last is background and lies in none.
    np.testing.assert_array_equal(prompts.point_labels, [[1, 0, -1, -1], [-1, 0, 1, -1]])
    np.testing.assert_array_equal(prompts.point_coords, [points, points])
    assert len(prompts) == 2


def test_a_foreground_point_in_none_of_several_boxes_is_refused() -> None:
    boxes = [(5, 5, 20, 20), (30, 5, 50, 20)]
    with pytest.raises(InputError, match=r"foreground point \(25, 10\) lies in none of the 2"):
        make([(10, 10), (25, 10)], None, boxes)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"labels": [1]}, "only the labels were given"),
        ({"points": [(1, 1)], "labels": [1, 0]}, r"one entry per point: \(2,\) for 1"),
        ({"points": [(1, 1)], "labels": [[1]]}, r"one entry per point: \(1, 1\) for 1"),
        ({"points": [(1, 1)], "labels": [2]}, "must be 1 .* or 0"),
        ({"points": [(1, 1)], "labels": [-1]}, "must be 1 .* or 0"),
        ({"points": [(1, 1)], "labels": ["a"]}, "must be an array of numbers"),
        ({"points": [(1, 1), (2, 2)], "labels": [0, 0]}, "all points are background"),
        ({"points": [(1, 1, 1)]}, r"points must have shape \(N, 2\), got \(1, 3\)"),
        ({"points": (1, 1, 1)}, r"points must have shape \(N, 2\), got \(3,\)"),
        ({"points": [(1, 1), (2,)]}, "points must be an array of numbers"),
        ({"points": [("a", "b")]}, "points must be an array of numbers"),
        ({"points": [(np.nan, 1)]}, "points must be finite"),
        ({"points": [(61, 1)]}, r"point \(61, 1\) lies outside the image of 60 x 40"),
        ({"points": [(1, -1)]}, r"point \(1, -1\) lies outside"),
        ({"boxes": (1, 2, 3, 4, 5)}, r"boxes must have shape \(N, 4\), got \(5,\)"),
        ({"boxes": [(1, 2, 3)]}, r"boxes must have shape \(N, 4\)"),
        ({"boxes": [(1, 2, 3, np.inf)]}, "boxes must be finite"),
        ({"boxes": [None]}, r"boxes must "),
        ({"boxes": [(20, 2, 10, 30)]}, "corners in the wrong order"),
        ({"boxes": [(61, 2, 70, 30)]}, "lies outside the image of 60 x 40"),
        ({"boxes": [(1, 2, 3, 4)], "labels": [1]}, "only the labels were given"),
        ({"boxes": [(1, 2, 3, 4)], "points": [(1, 41)]}, "lies outside"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        make(**given)
    assert "\n" not in str(caught.value)


def test_one_point_and_one_box_may_be_flat() -> None:
    prompts = make((1, 2), 0, (5, 5, 20, 20))
    np.testing.assert_array_equal(prompts.point_coords, [[[1, 2]]])
    np.testing.assert_array_equal(prompts.point_labels, [[0]])
    np.testing.assert_array_equal(prompts.boxes, [[5, 5, 20, 20]])


def test_tensors_are_read() -> None:
    prompts = make(torch.tensor([[1.0, 2.0]], requires_grad=True), None, torch.tensor([5, 5, 9, 9]))
    np.testing.assert_array_equal(prompts.point_coords, [[[1, 2]]])
    np.testing.assert_array_equal(prompts.boxes, [[5, 5, 9, 9]])


def test_background_points_alone_serve_a_box() -> None:
    prompts = make([(1, 1)], [0], [(5, 5, 20, 20)])
    np.testing.assert_array_equal(prompts.point_labels, [[0]])


def test_points_up_to_the_edge_are_inside_and_padding_may_be_anywhere() -> None:
    coords = np.array([[[0, 0], [60, 40], [60.5, 0]], [[-5, 900], [1, 1], [2, 2]]])
    check_points(coords, np.array([[1, 0, -1], [-1, 1, 1]]), SIZE)
    with pytest.raises(InputError, match=r"\(60\.5, 0\) lies outside"):
        check_points(coords, np.array([[1, 0, 1], [-1, 1, 1]]), SIZE)


def test_boxes_may_reach_over_the_edge_and_be_flat() -> None:
    check_boxes(np.array([[-5.0, -5, 3, 3], [50, 30, 99, 99], [7, 7, 7, 7]]), SIZE)
    for box in ([-5, 0, -1, 5], [0, -9, 5, -1], [0, 41, 5, 50]):
        with pytest.raises(InputError, match="lies outside"):
            check_boxes(np.array([box], float), SIZE)
    with pytest.raises(InputError, match="wrong order"):
        check_boxes(np.array([[0, 5, 5, 4.0]]), SIZE)
