"""The pipeline end to end, with a grounder that is told what to find."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptseg.models.errors import InputError
from promptseg.pipeline.config import PipelineConfig
from promptseg.pipeline.decoding.decode import DecodingConfig
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.result import Result
from promptseg.pipeline.scoring.ranking import RankingConfig, combined_score

SIZE = (96, 96)  # the model input's own: a cell of a heat map is 4 x 4 pixels
IMAGE = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
# In cells of the heat maps, XYXY.
LEFT, RIGHT, SMALL = (2, 4, 9, 18), (13, 4, 21, 18), (4, 8, 7, 12)


def heat_of(*boxes: tuple[tuple[int, int, int, int], float]) -> np.ndarray:
    heat = np.zeros((24, 24), np.float32)
    for (x0, y0, x1, y1), value in boxes:
        heat[y0:y1, x0:x1] = value
    return heat


HEATS = {
    "cat": heat_of((LEFT, 0.8)),
    "dog": heat_of((RIGHT, 0.9)),
    "animal": heat_of((LEFT, 0.64), (RIGHT, 0.81)),
    "collar": heat_of((SMALL, 0.7)),
}


@pytest.fixture
def grounder(make_grounder):
    return make_grounder(HEATS)


@pytest.fixture
def pipeline(obedient_segmenter, grounder) -> Pipeline:
    """Masks are what the heat maps, boxes and clicks say."""
    return Pipeline(obedient_segmenter, text_prompter=grounder.prompter(obedient_segmenter))


def pixels(cells: tuple[int, int, int, int]) -> np.ndarray:
    """The mask (96, 96) of a box in cells."""
    x0, y0, x1, y1 = (4 * v for v in cells)
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def iou(mask: np.ndarray, other: np.ndarray) -> float:
    return (mask & other).sum() / (mask | other).sum()


def assert_found(result: Result, *expected: tuple[str, tuple[int, int, int, int]]) -> None:
    """The result's labels and masks, in this order; borders may differ by two pixels or so."""
    assert result.labels == [label for label, _ in expected]
    for mask, (_, cells) in zip(result.masks, expected, strict=True):
        assert iou(mask, pixels(cells)) > 0.7


def reasons(result: Result) -> list[str]:
    return [item.reason for item in result.rejected]


def test_a_phrase_becomes_its_mask(pipeline) -> None:
    result = pipeline(IMAGE, text="cat")
    assert_found(result, ("cat", LEFT))
    assert result.image_size == SIZE
    assert result.rejected == ()
    np.testing.assert_allclose(result.prompt_scores, [0.8])
    np.testing.assert_allclose(result.iou_predictions, [0.9])
    expected = combined_score([0.9], result.stability_scores, [0.8])
    np.testing.assert_allclose(result.scores, expected)


def test_several_objects_of_a_phrase_come_best_first(pipeline) -> None:
    result = pipeline(IMAGE, text="animal")
    assert_found(result, ("animal", RIGHT), ("animal", LEFT))
    np.testing.assert_allclose(result.prompt_scores, [0.81, 0.64])
    assert result.scores[0] > result.scores[1]


def test_phrases_are_looked_for_on_their_own(pipeline, grounder) -> None:
    result = pipeline(IMAGE, text=["cat", "zebra", " dog", "cat ", "dog"])
    # Asked once each, without the space around them, in the order given.
    assert grounder.asked == [("cat", "zebra", "dog")]
    assert_found(result, ("dog", RIGHT), ("cat", LEFT))
    assert [item.label for item in result.rejected] == ["zebra"]
    for phrase, i in (("dog", 0), ("cat", 1)):
        np.testing.assert_array_equal(pipeline(IMAGE, text=phrase).masks[0], result.masks[i])


def test_the_same_mask_under_two_phrases_is_kept_twice(pipeline) -> None:
    assert_found(
        pipeline(IMAGE, text=["animal", "dog"]),
        ("dog", RIGHT),
        ("animal", RIGHT),
        ("animal", LEFT),
    )


def test_negatives_drop_what_they_name(pipeline, grounder) -> None:
    result = pipeline(IMAGE, text="animal", negative_text=["dog", "zebra"])
    assert_found(result, ("animal", LEFT))
    (dropped,) = result.rejected  # that there is no zebra is no news
    assert "the negative 'dog'" in dropped.reason
    assert iou(dropped.mask, pixels(RIGHT)) > 0.85
    assert grounder.asked == [("animal",), ("dog", "zebra")]


def test_negatives_elsewhere_and_absent_change_nothing(pipeline) -> None:
    plain = pipeline(IMAGE, text="cat")
    for negative in ("dog", "zebra", "collar"):
        result = pipeline(IMAGE, text="cat", negative_text=negative)
        np.testing.assert_array_equal(result.masks, plain.masks)
        assert result.rejected == ()


def test_negatives_hold_for_marks_too(pipeline) -> None:
    boxes = [[8, 16, 36, 72], [52, 16, 84, 72]]
    result = pipeline(IMAGE, boxes=boxes, negative_text="dog")
    assert_found(result, ("box 1", LEFT))
    assert "the negative 'dog'" in result.rejected[0].reason


def test_a_lone_click_gives_its_three_masks(pipeline, grounder) -> None:
    result = pipeline(IMAGE, points=[(40, 50)])
    assert result.labels == ["point"] * 3
    np.testing.assert_allclose(result.iou_predictions, [0.8, 0.7, 0.6])
    assert result.masks[:, 50, 40].all()
    areas = result.masks.sum((1, 2))
    assert areas[0] > areas[1] > areas[2] > 0
    assert not grounder.asked
    assert len(pipeline(IMAGE, points=[(40, 50)], top_k=1)) == 1


def test_several_points_are_one_object_with_one_mask(pipeline) -> None:
    result = pipeline(IMAGE, points=[(40, 50), (60, 50), (5, 5)], point_labels=[1, 1, 0])
    assert result.labels == ["point"]
    np.testing.assert_allclose(result.iou_predictions, [0.9])  # the single mask's
    assert result.masks[0, 50, 40]
    assert not result.masks[0, 5, 5]


def test_each_box_gives_a_mask(pipeline) -> None:
    result = pipeline(IMAGE, boxes=[[8, 16, 36, 72], [52, 16, 84, 72]])
    assert_found(result, ("box 1", LEFT), ("box 2", RIGHT))
    # Each is an object of its own: top_k and overlaps count for each box alone.
    assert len(pipeline(IMAGE, boxes=[[8, 16, 36, 72], [8, 16, 36, 71]], top_k=1)) == 2


def test_points_choose_among_what_a_phrase_names(pipeline) -> None:
    result = pipeline(IMAGE, text="animal", points=[(20, 40)])
    assert_found(result, ("animal", LEFT))
    assert reasons(result) == ["covers no foreground point"]
    both = pipeline(IMAGE, text="animal", points=[(20, 40), (60, 40)])
    assert_found(both, ("animal", RIGHT), ("animal", LEFT))
    # A background point alone is enough beside a phrase.
    rest = pipeline(IMAGE, text="animal", points=[(20, 40)], point_labels=[0])
    assert_found(rest, ("animal", RIGHT))
    result = pipeline(IMAGE, text="animal", points=[(20, 40), (60, 40)], point_labels=[1, 0])
    assert_found(result, ("animal", LEFT))
    assert len(pipeline(IMAGE, text="cat", points=[(90, 90)])) == 0


def test_an_absent_phrase_gives_an_empty_result(pipeline) -> None:
    image = np.zeros((30, 50, 3), np.uint8)
    result = pipeline(image, text=["zebra", "yak"], negative_text="cat", points=[(1, 1)], top_k=3)
    assert len(result) == 0
    assert result.masks.shape == (0, 30, 50)
    assert result.boxes_xyxy.shape == (0, 4)
    for name in ("scores", "iou_predictions", "stability_scores", "prompt_scores"):
        assert getattr(result, name).shape == (0,)
        assert getattr(result, name).dtype == np.float32
    assert result.labels == []
    assert [item.label for item in result.rejected] == ["zebra", "yak"]
    assert result.to_dict()["masks"] == []
    assert result.to_dict()["image_size"] == [30, 50]


def test_an_image_that_another_model_encoded_is_refused(
    pipeline, grounder, obedient_segmenter
) -> None:
    foreign = replace(obedient_segmenter.encode_image(IMAGE), model_id="another")
    for query in ({"text": "cat"}, {"points": [(1, 1)]}):
        with pytest.raises(InputError, match=r"made by 'another'.*encode the image with it"):
            pipeline(foreign, **query)
    assert not grounder.asked


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({}, "give text, a reference, points or boxes"),
        ({"text": []}, "give text, a reference, points or boxes"),
        ({"negative_text": "cat"}, "give text, a reference, points or boxes"),
        ({"text": " "}, "text: the text is empty"),
        ({"text": ["cat", ""]}, "text: the text is empty"),
        ({"text": "\ud800"}, "is not valid Unicode text"),
        ({"text": 3}, "text must be text or a list of texts, got 3"),
        ({"text": ["cat", None]}, "text must be text or a list of texts, got None"),
        ({"text": "cat", "negative_text": [""]}, "negative_text: the text is empty"),
        ({"text": "cat", "top_k": 0}, "top_k must be a whole number"),
        ({"text": "cat", "min_score": 1.5}, "min_score must be between 0 and 1"),
        ({"text": "cat", "points": [(97, 1)]}, "lies outside the image"),
        ({"points": [(1, 1)], "point_labels": [0]}, "all points are background"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(pipeline, grounder, query: dict[str, Any], says) -> None:
    with pytest.raises(InputError, match=says):
        pipeline(IMAGE, **query)
    assert not grounder.asked


def configured(segmenter, grounder, least=0.5, **options) -> Pipeline:
    return Pipeline(
        segmenter,
        text_prompter=grounder.prompter(segmenter, least),
        config=PipelineConfig(**options),
    )


def test_first_pass_names_the_parts_decoded_from(obedient_segmenter, grounder) -> None:
    grounder.heats["hollow"] = heat_of((LEFT, 0.8), (SMALL, 0.0))
    inside = (np.array(SMALL[:2]) * 4 + 6).astype(int)
    covers = {}
    for part in ("masks", "boxes"):
        pipeline = configured(
            obedient_segmenter,
            grounder,
            decoding=DecodingConfig(first_pass=(part,), refine_passes=0),
        )
        (mask,) = pipeline(IMAGE, text="hollow").masks
        covers[part] = bool(mask[inside[1], inside[0]])
        assert iou(mask, pixels(LEFT)) > 0.7
    # The prior has the hole, the box has not.
    assert covers == {"masks": False, "boxes": True}


def test_unknown_parts_are_refused() -> None:
    for parts in ((), ("masks", "text")):
        with pytest.raises(InputError, match="first_pass must name some of"):
            DecodingConfig(first_pass=parts)


def test_refinement_starts_from_the_masks_own_box_and_logits(
    obedient_segmenter, grounder, monkeypatch
) -> None:
    calls = []
    decode = obedient_segmenter.decode_low_res

    def record(embedding, **prompts):
        masks = decode(embedding, **prompts)
        calls.append((prompts, masks))
        return masks

    monkeypatch.setattr(obedient_segmenter, "decode_low_res", record)
    pipeline = configured(obedient_segmenter, grounder, decoding=DecodingConfig(refine_passes=2))
    result = pipeline(IMAGE, text="animal")
    assert len(calls) == 3
    for (_, before), (prompts, _) in pairwise(calls):
        best = before.iou_predictions[0].argmax()
        rows, columns = np.nonzero(before.logits[0, best] > 0)
        # A cell of the logits spans 4 pixels of this image.
        cells = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_array_equal(prompts["boxes"][0], 4 * cells)
        np.testing.assert_array_equal(prompts["mask_input"][0, 0], before.logits[0, best])
        np.testing.assert_array_equal(prompts["point_coords"], calls[0][0]["point_coords"])
    embedding = obedient_segmenter.encode_image(IMAGE)
    final = obedient_segmenter.upscale(embedding, calls[-1][1])
    np.testing.assert_array_equal(result.masks[0], final.masks[0, 0])


def test_an_empty_mask_is_refined_from_its_prompts_box(
    obedient_segmenter, make_grounder, monkeypatch
) -> None:
    boxes = []
    decode = obedient_segmenter.decode_low_res
    monkeypatch.setattr(
        obedient_segmenter,
        "decode_low_res",
        lambda e, **p: boxes.append(p["boxes"]) or decode(e, **p),
    )
    # Heat below a half: the prior is below zero everywhere.
    grounder = make_grounder({"cat": heat_of((LEFT, 0.4))})
    result = configured(obedient_segmenter, grounder, 0.3)(IMAGE, text="cat")
    np.testing.assert_array_equal(boxes[1], boxes[0])
    assert len(result) == 0
    assert reasons(result) == ["the mask is empty"]
    assert result.rejected[0].box_xyxy is None


def test_the_pipelines_own_thresholds_hold_unless_overridden(obedient_segmenter, grounder) -> None:
    strict = configured(
        obedient_segmenter, grounder, ranking=RankingConfig(min_score=0.99, top_k=1)
    )
    assert reasons(strict(IMAGE, text="cat"))[0].endswith("below min_score 0.99")
    assert len(strict(IMAGE, text="animal", min_score=0.0, top_k=5)) == 2


@pytest.fixture
def random_pipeline(tiny_segmenter, grounder) -> Pipeline:
    """Of a real, if untrained, pocket SAM."""
    return Pipeline(tiny_segmenter, text_prompter=grounder.prompter(tiny_segmenter))


@pytest.mark.parametrize("size", [(96, 96), (40, 130), (200, 30), (1, 1)])
@pytest.mark.parametrize(
    "query",
    [
        {"text": ["animal", "cat", "zebra"], "negative_text": "dog", "top_k": 1},
        {"points": [(0.5, 0.5)]},
        {"points": [(0.5, 0.5), (1, 1)], "point_labels": [1, 0]},
        {"boxes": [(0, 0, 1, 1), (0, 0, 30, 20)]},
        {"text": "animal", "points": [(0.5, 0.5)], "boxes": [(0, 0, 30, 20)]},
    ],
    ids=str,
)
def test_every_query_at_every_size(random_pipeline, size, query: dict[str, Any]) -> None:
    image = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    before = image.copy()
    result = random_pipeline(image, **query)
    np.testing.assert_array_equal(image, before)
    assert result.masks.shape == (len(result), *size)
    assert result.masks.any((1, 2)).all()
    assert (np.diff(result.scores) <= 0).all()
    assert ((result.scores >= 0) & (result.scores <= 1)).all()
    for mask, (x0, y0, x1, y1) in zip(result.masks, result.boxes_xyxy.astype(int), strict=True):
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
    again = random_pipeline(Image.fromarray(image), **query)
    assert again.to_dict() == result.to_dict()
    decoded = [item for item in result.rejected if item.score is not None]
    # A mask for each object, or three for a lone click: each is kept or explained.
    if "text" in query:
        assert len(result) + len(decoded) == (3 if "negative_text" in query else 2)
    elif "boxes" in query:
        assert len(result) + len(decoded) == 2
    else:
        assert len(result) + len(decoded) == (3 if len(query["points"]) == 1 else 1)
