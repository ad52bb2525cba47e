"""Several clicks are decoded one after the other, and background clicks are obeyed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.pipeline.decoding.clicks import decode_clicks, decode_marked
from promptseg.pipeline.decoding.prompts import PromptSet
from promptseg.pipeline.decoding.segmenter import Segmenter
from promptseg.pipeline.marks import Marks
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.prompters.mark_prompts import mark_prompts

from .reference.scenes import CAT, DOG, FIRST, SECOND, SIDE, KnowingSegmenter, numbered

IMAGE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def ask(points: list[tuple[int, int]], labels: list[int], boxes=None) -> PromptSet:
    return mark_prompts(Marks.read(points, labels, boxes))


@pytest.fixture
def calls(tiny_segmenter, monkeypatch) -> list:
    """What the decoder is given and gives."""
    seen = []
    decode = tiny_segmenter.decode_low_res

    def record(embedding, **prompts):
        masks = decode(embedding, **prompts)
        seen.append((prompts, masks))
        return masks

    monkeypatch.setattr(tiny_segmenter, "decode_low_res", record)
    return seen


def test_each_click_refines_both_readings_of_the_first(tiny_segmenter, calls) -> None:
    embedding = tiny_segmenter.encode_image(IMAGE)
    points = [(10, 10), (40, 40), (70, 20)]
    found = decode_clicks(tiny_segmenter, embedding, ask(points, [1, 1, 1]))
    (ambiguous, three), (lone, single), (second, both), (third, last) = calls
    assert [p["multimask_output"] for p, _ in calls] == [True, False, False, False]
    assert ambiguous["mask_input"] is lone["mask_input"] is None
    best = three.logits[0, three.iou_predictions[0].argmax()]
    np.testing.assert_array_equal(second["mask_input"][:, 0], [best, single.logits[0, 0]])
    np.testing.assert_array_equal(third["mask_input"], both.logits)
    for prompts, count in ((second, 2), (third, 3)):
        np.testing.assert_array_equal(prompts["point_coords"], [points[:count]] * 2)
    chosen = last.iou_predictions[:, 0].argmax()
    np.testing.assert_array_equal(found.logits[0], last.logits[chosen])
    assert found.iou_predictions == last.iou_predictions.max()


def test_a_single_click_is_refined_if_asked(tiny_segmenter, calls) -> None:
    embedding = tiny_segmenter.encode_image(IMAGE)
    whole = decode_marked(tiny_segmenter, embedding, ask([(10, 10)], [1]))
    found = decode_marked(tiny_segmenter, embedding, ask([(10, 10)], [1]), refine=True)
    (_, before), (first, three), (second, again) = calls
    assert [p["multimask_output"] for p in (first, second)] == [True, False]
    np.testing.assert_array_equal(three.logits, before.logits)
    np.testing.assert_array_equal(second["mask_input"][:, 0], three.logits[0])
    np.testing.assert_array_equal(second["point_coords"], [[(10, 10)]] * 3)
    logits = again.logits[:, 0]
    for mask, expected in zip(
        found.masks, tiny_segmenter.upscale_compact(embedding, logits), strict=True
    ):
        assert mask == expected.mask
    np.testing.assert_array_equal(found.iou_predictions, whole.iou_predictions)
    assert found.nested
    assert [len(p["point_coords"]) for p, _ in calls] == [1, 1, 3]


def test_several_clicks_and_boxes_are_not_refined_further(tiny_segmenter, calls) -> None:
    embedding = tiny_segmenter.encode_image(IMAGE)
    for asked in (ask([(10, 10), (40, 40)], [1, 0]), ask([], [], [(5, 5, 60, 60)])):
        plain = decode_marked(tiny_segmenter, embedding, asked)
        count = len(calls)
        refined = decode_marked(tiny_segmenter, embedding, asked, refine=True)
        assert len(calls) == 2 * count
        assert refined.masks == plain.masks
        calls.clear()


def test_the_first_foreground_click_comes_first(tiny_segmenter, calls) -> None:
    embedding = tiny_segmenter.encode_image(IMAGE)
    decode_clicks(tiny_segmenter, embedding, ask([(90, 90), (10, 10), (5, 80)], [0, 1, 1]))
    prompts = calls[3][0]
    np.testing.assert_array_equal(prompts["point_coords"][0], [(10, 10), (90, 90), (5, 80)])
    np.testing.assert_array_equal(prompts["point_labels"][0], [1, 0, 1])


class Stubborn(KnowingSegmenter):
    """Gives the cat and the dog beside it as one, whatever is said against it."""

    def decode_low_res(self, embedding, **prompts):
        prompts["point_labels"] = np.ones_like(np.asarray(prompts["point_labels"]))
        lone = np.asarray(prompts["point_coords"]).shape[1] == 1
        dog = lone and np.asarray(prompts["point_coords"])[0, 0, 0] > SIDE / 2
        prompts.pop("mask_input", None)
        if not dog:
            prompts["point_coords"] = np.array([[self.middle(FIRST), self.middle(SECOND)]])
            prompts["point_labels"] = np.ones((1, 2))
        return super().decode_low_res(embedding, **prompts)

    @staticmethod
    def middle(box: tuple[int, int, int, int]) -> tuple[float, float]:
        return (box[0] + box[2]) * 4 - 1, (box[1] + box[3]) * 4 - 1


def cells_of(mask: np.ndarray) -> np.ndarray:
    return mask.reshape(12, 8, 12, 8).mean((1, 3)) > 0.5


def test_a_background_click_removes_the_object_that_it_marks(obedient_segmenter) -> None:
    numbers = numbered([(CAT, FIRST), (DOG, SECOND)])
    pipe = Pipeline(Stubborn(obedient_segmenter, numbers))
    cat, dog = Stubborn.middle(FIRST), Stubborn.middle(SECOND)
    both = pipe(IMAGE, points=[cat, dog])
    np.testing.assert_array_equal(cells_of(both.masks[0]), numbers >= 2)
    one = pipe(IMAGE, points=[cat, dog], point_labels=[1, 0])
    np.testing.assert_array_equal(cells_of(one.masks[0]), numbers == 2)


def test_a_background_click_on_no_object_of_its_own_removes_what_is_close_to_it(
    obedient_segmenter,
) -> None:
    """A quarter of the way to the foreground click, not half of the object."""
    pipe = Pipeline(Stubborn(obedient_segmenter, numbered([(CAT, (1, 1, 11, 11))])))
    wanted, unwanted = (76, 76), (14, 14)
    whole = pipe(IMAGE, points=[wanted, wanted]).masks[0]
    found = pipe(IMAGE, points=[wanted, unwanted], point_labels=[1, 0]).masks[0]
    rows, columns = np.indices(whole.shape)
    distance = np.hypot(columns - unwanted[0], rows - unwanted[1])
    reach, cell = np.hypot(62, 62) / 4, 8
    assert not found[distance < reach - cell].any()
    np.testing.assert_array_equal(found[distance > reach + cell], whole[distance > reach + cell])


POINT = st.tuples(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(wanted=st.lists(POINT, max_size=2), unwanted=st.lists(POINT, min_size=1, max_size=3))
@pytest.mark.parametrize("boxed", [False, True])
def test_a_background_click_is_never_inside_the_mask(
    boxed: bool, wanted: list, unwanted: list, tiny_segmenter: Segmenter
) -> None:
    if not (wanted or boxed):
        return
    pipe = Pipeline(tiny_segmenter)
    found = pipe(
        IMAGE,
        points=wanted + unwanted,
        point_labels=[1] * len(wanted) + [0] * len(unwanted),
        boxes=(0, 0, SIDE, SIDE) if boxed else None,
    )
    for mask in found.masks:
        assert not any(mask[y, x] for x, y in unwanted)
