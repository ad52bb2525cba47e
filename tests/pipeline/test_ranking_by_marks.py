"""Ranked masks of a phrase, of which a person's points and boxes choose."""

from __future__ import annotations

import numpy as np
import pytest

from promptseg.pipeline.marks import Marks
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.result import RejectedMask, Result
from promptseg.pipeline.scoring.ranking import RankingConfig, rank

SIZE = (20, 30)
EARLIER = RejectedMask("dog", "not in this image", 0.1)


def found(*boxes: tuple[int, int, int, int], labels: list[str] | None = None) -> dict:
    """Masks that fill boxes, best first, as the arguments of `Proposals.of`."""
    masks = np.zeros((len(boxes), *SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return {
        "masks": masks,
        "labels": labels or ["cat"] * len(boxes),
        "iou_predictions": np.linspace(0.9, 0.5, len(boxes)),
        "stability_scores": np.ones(len(boxes)),
        "prompt_scores": np.ones(len(boxes)),
        "rejected": (EARLIER,),
    }


def choose(masks: dict, points=None, labels=None, boxes=None, top_k=None) -> Result:
    marks = Marks.read(points, labels, boxes)
    return rank(Proposals.of(**masks, marks=marks), RankingConfig(nms_iou=1.0, top_k=top_k))


LEFT, RIGHT, ALL = (0, 0, 10, 20), (20, 0, 30, 20), (0, 0, 30, 20)
ALL_FOUND = found(ALL, LEFT, RIGHT)


def kept(result: dict, points=None, labels=None, boxes=None, top_k=None) -> list[tuple]:
    """The boxes of the masks kept."""
    chosen = choose(result, points, labels, boxes, top_k=top_k)
    return [tuple(int(v) for v in box) for box in chosen.boxes_xyxy]


def reasons(result: dict, points=None, labels=None, boxes=None, top_k=None) -> list[str]:
    chosen = choose(result, points, labels, boxes, top_k=top_k)
    assert chosen.rejected[0] is EARLIER
    return [item.reason for item in chosen.rejected[1:]]


def test_without_marks_all_are_kept() -> None:
    assert kept(ALL_FOUND) == [ALL, LEFT, RIGHT]
    assert kept(ALL_FOUND, [], None, []) == [ALL, LEFT, RIGHT]
    assert reasons(ALL_FOUND) == []


def test_a_foreground_point_must_be_covered() -> None:
    assert kept(ALL_FOUND, [(5, 5)]) == [ALL, LEFT]
    assert reasons(ALL_FOUND, [(5, 5)]) == ["covers no foreground point"]
    # A click on each of two objects means both.
    assert kept(found(LEFT, RIGHT), [(5, 5), (25, 5)]) == [LEFT, RIGHT]
    assert kept(ALL_FOUND, [(15, 5)]) == [ALL]


def test_background_points_must_not_be_covered() -> None:
    assert kept(ALL_FOUND, [(5, 5), (25, 5)], [1, 0]) == [LEFT]
    assert reasons(ALL_FOUND, [(5, 5), (25, 5)], [1, 0]) == [
        "covers the background point (25, 5)",
        "covers the background point (25, 5)",
    ]
    assert kept(ALL_FOUND, [(15, 5)], [0]) == [LEFT, RIGHT]


def test_a_point_means_the_pixel_that_it_lies_in() -> None:
    assert kept(ALL_FOUND, [(9.99, 0)]) == [ALL, LEFT]
    assert kept(ALL_FOUND, [(10, 0)]) == [ALL]
    # The far edges of the image belong to its last pixels.
    assert kept(ALL_FOUND, [(30, 20)]) == [ALL, RIGHT]


def test_half_of_a_mask_must_lie_in_one_box() -> None:
    assert kept(ALL_FOUND, boxes=[(0, 0, 10, 20)]) == [LEFT]
    assert kept(ALL_FOUND, boxes=[(0, 0, 15, 20)]) == [ALL, LEFT]  # exactly half of the first
    # Two boxes do not add up, but each may keep its mask.
    assert kept(ALL_FOUND, boxes=[(0, 0, 10, 20), (20, 0, 30, 20)]) == [LEFT, RIGHT]
    assert reasons(ALL_FOUND, boxes=[(0, 0, 10, 20)]) == [
        "only 33% of it lies in a box",
        "only 0% of it lies in a box",
    ]


def test_a_box_may_reach_over_the_edge() -> None:
    assert kept(ALL_FOUND, boxes=[(-50, -50, 10, 99)]) == [LEFT]


def test_points_and_boxes_must_both_agree() -> None:
    assert kept(ALL_FOUND, [(25, 5)], None, [(0, 0, 30, 20)]) == [ALL, RIGHT]
    assert kept(ALL_FOUND, [(25, 5)], None, [(0, 0, 10, 20)]) == []


def test_top_k_counts_what_the_marks_leave_for_each_label() -> None:
    result = found(ALL, LEFT, LEFT, LEFT, labels=["cat", "cat", "dog", "cat"])
    assert kept(result, boxes=[LEFT], top_k=1) == [LEFT, LEFT]
    chosen = choose(result, None, None, [LEFT], top_k=1)
    assert chosen.labels == ["cat", "dog"]
    assert reasons(result, boxes=[LEFT], top_k=1) == [
        "only 33% of it lies in a box",
        "beyond top_k=1",
    ]


def test_all_fields_and_the_order_stay() -> None:
    chosen = choose(ALL_FOUND, [(15, 5)], [0], None, top_k=None)
    np.testing.assert_allclose(chosen.scores, [0.7, 0.5])
    np.testing.assert_array_equal(chosen.masks, ALL_FOUND["masks"][1:])
    dropped = chosen.rejected[1]
    assert dropped.score == pytest.approx(0.9)
    assert dropped.box_xyxy == ALL
    np.testing.assert_array_equal(dropped.mask, ALL_FOUND["masks"][0])


def test_nothing_found_stays_nothing() -> None:
    chosen = choose(found(), [(1, 1)], [1], [LEFT], top_k=2)
    assert len(chosen) == 0
    assert chosen.masks.shape == (0, *SIZE)
    assert chosen.rejected == (EARLIER,)
