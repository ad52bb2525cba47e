"""Objects of a hot region told apart by the boxes that its cells vote for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptseg.models.errors import InputError
from promptseg.models.grounding.answers import ObjectField
from promptseg.pipeline.prompters.heat_prompts import HeatPromptConfig, hot_regions
from promptseg.pipeline.prompters.objects import ObjectSplitConfig, box_ious, split_objects

SIZE = (20, 40)
LEFT, RIGHT = (2, 4, 16, 16), (16, 4, 36, 16)  # two boxes that touch


def filled(box: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros(SIZE, np.bool_)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def votes(*boxes: tuple[int, int, int, int], noise: float = 0.0) -> ObjectField:
    """Each cell of a box votes for it, later boxes on top."""
    field = np.zeros((*SIZE, 4), np.float32)
    for box in boxes:
        field[filled(box)] = box
    field += np.random.default_rng(0).normal(scale=noise, size=field.shape).astype(np.float32)
    return ObjectField(field, np.full(SIZE, 0.8, np.float32))


BOTH = filled(LEFT) | filled(RIGHT)


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_touching_objects_are_split_where_they_touch(noise: float) -> None:
    parts = split_objects(
        BOTH, BOTH.astype(np.float32), votes(LEFT, RIGHT, noise=noise), ObjectSplitConfig()
    )
    parts.sort(key=lambda part: int(part.argmax(1).max()))
    assert len(parts) == 2
    for part, box in zip(parts, (LEFT, RIGHT), strict=True):
        np.testing.assert_array_equal(part, filled(box))


def test_one_object_stays_whole() -> None:
    whole = (2, 4, 36, 16)
    parts = split_objects(BOTH, BOTH.astype(np.float32), votes(whole), ObjectSplitConfig())
    assert len(parts) == 1
    np.testing.assert_array_equal(parts[0], BOTH)


def test_a_box_within_which_most_cells_vote_otherwise_is_no_object() -> None:
    whole, stray = (2, 4, 36, 16), (6, 4, 14, 16)
    field = votes(whole)
    field.boxes_xyxy[6:9, 8:14] = stray  # a few cells claim a box of their own
    parts = split_objects(BOTH, BOTH.astype(np.float32), field, ObjectSplitConfig())
    assert len(parts) == 1
    split = ObjectSplitConfig(agreement=0.0, least_votes=0.0)
    assert len(split_objects(BOTH, BOTH.astype(np.float32), field, split)) == 2


def test_few_votes_are_no_object() -> None:
    small = (33, 4, 36, 6)
    field = votes((2, 4, 36, 16), small)
    heat = BOTH.astype(np.float32)
    assert len(split_objects(BOTH, heat, field, ObjectSplitConfig())) == 1
    few = ObjectSplitConfig(least_votes=0.01)
    assert {int(part.sum()) for part in split_objects(BOTH, heat, field, few)} == {6, 402}


@given(st.integers(0, 10**6))
def test_parts_share_out_the_region(seed: int) -> None:
    rng = np.random.default_rng(seed)
    region = rng.random(SIZE) < 0.4
    region[0, 0] = True
    low = rng.uniform(-5, 40, (*SIZE, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.5, 30, (*SIZE, 2))], -1).astype(np.float32)
    field = ObjectField(boxes, rng.random(SIZE).astype(np.float32))
    config = ObjectSplitConfig(agreement=float(rng.random()), least_votes=0.0)
    parts = split_objects(region, rng.random(SIZE).astype(np.float32), field, config)
    assert all(part.any() for part in parts)
    np.testing.assert_array_equal(np.sum(parts, axis=0), region.astype(int))
    assert len(parts) <= config.most


def test_box_ious_of_worked_examples() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6]], np.float32)
    found = box_ious(boxes, np.array([0, 0, 2, 2], np.float32))
    np.testing.assert_allclose(found, [1, 1 / 7, 0])


def test_each_object_is_prompted_inside_itself() -> None:
    heat = np.where(BOTH, 0.9, 0.05).astype(np.float32)
    heat[8:12, 14:18] = 1.0  # hottest where they touch
    config = HeatPromptConfig(smooth=1.0, objects=ObjectSplitConfig())
    regions = hot_regions(heat, config, votes(LEFT, RIGHT))
    places = sorted((region.column, region.row) for region in regions)
    assert len(places) == 2
    assert filled(LEFT)[places[0][1], places[0][0]]
    assert filled(RIGHT)[places[1][1], places[1][0]]
    # Without votes, or without being asked to, it is one region.
    assert len(hot_regions(heat, config)) == 1
    assert len(hot_regions(heat, HeatPromptConfig(), votes(LEFT, RIGHT))) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"same_iou": 1.1}, {"agreement": -0.1}, {"least_votes": float("nan")}, {"most": 0}],
)
def test_values_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be"):
        ObjectSplitConfig(**wrong)
