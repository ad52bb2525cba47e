from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from promptseg.models.errors import InputError
from promptseg.pipeline.compact_mask import CompactMask
from promptseg.pipeline.result import RejectedMask, Result


def make_result(count: int = 4, size: tuple[int, int] = (5, 6)) -> Result:
    rng = np.random.default_rng(0)
    return Result.of(
        masks=rng.random((count, *size)) > 0.5,
        labels=[f"label {i}" for i in range(count)],
        scores=np.linspace(0.9, 0.1, count),
        iou_predictions=np.arange(count) / 10,
        stability_scores=np.arange(count) / 20,
        prompt_scores=np.arange(count) / 40,
        rejected=(RejectedMask("dog", "presence 0.03 below 0.20", 0.03),),
    )


FIELDS = ("masks", "boxes_xyxy", "scores", "iou_predictions", "stability_scores", "prompt_scores")


@pytest.mark.parametrize(
    ("key", "positions"),
    [
        (0, [0]),
        (-1, [3]),
        (np.int64(2), [2]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        ([True, False, False, True], [0, 3]),
        (np.array([False] * 4), []),
        (np.array([2, 0, 0]), [2, 0, 0]),
        ([], []),
    ],
)
def test_indexing_filters_every_field(key: object, positions: list[int]) -> None:
    result = make_result()
    part = result[key]
    assert len(part) == len(positions)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(part, name), getattr(result, name)[positions])
    assert part.labels == [f"label {i}" for i in positions]
    assert part.rejected == result.rejected
    assert part.image_size == (5, 6)


@pytest.mark.parametrize("key", [4, -5, [True, False], np.array([0, 9])])
def test_indices_out_of_range(key: object) -> None:
    with pytest.raises(IndexError):
        make_result()[key]


@pytest.mark.parametrize("key", ["label 0", 1.0, (0, 1), None, True, [[0]], np.array([0.5])])
def test_other_keys_are_refused(key: object) -> None:
    with pytest.raises(TypeError, match="indexed by"):
        make_result()[key]


def test_iterating_gives_single_results_best_first() -> None:
    parts = list(make_result())
    assert [part.labels for part in parts] == [[f"label {i}"] for i in range(4)]
    assert all(len(part) == 1 for part in parts)


def test_empty_result() -> None:
    gated = RejectedMask("zebra", "presence 0.03 below 0.20", 0.03)
    result = Result.empty((7, 9), rejected=[gated])
    assert len(result) == 0
    assert result.image_size == (7, 9)
    assert result.masks.shape == (0, 7, 9)
    assert result.boxes_xyxy.shape == (0, 4)
    assert list(result) == []
    assert len(result[result.scores > 0.5]) == 0
    assert result.rejected == (gated,)
    assert json.loads(json.dumps(result.to_dict()))["masks"] == []


def test_result_types_are_settled_and_frozen() -> None:
    result = make_result()
    for name in FIELDS[1:]:
        assert getattr(result, name).dtype == np.float32
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.scores = np.zeros(4)


def test_to_dict_is_json_and_its_masks_decode_to_the_masks() -> None:
    result = dataclasses.replace(
        make_result(),
        rejected=(
            RejectedMask(
                "cat", "beyond top_k=1", 0.5, 0.6, 0.7, 0.3, (1.0, 2.0, 3.0, 4.0),
                CompactMask.of(make_result().masks[1]),
            ),
        ),
    )  # fmt: skip
    told = json.loads(json.dumps(result.to_dict()))
    assert told["schema"] == "promptseg.result/1"
    assert told["image_size"] == [5, 6]
    for i, entry in enumerate(told["masks"]):
        np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), result.masks[i])
        assert entry["area"] == result.masks[i].sum()
        assert entry["label"] == f"label {i}"
        assert entry["score"] == pytest.approx(result.scores[i])
        assert entry["box_xyxy"] == result.boxes_xyxy[i].tolist()
    (dropped,) = told["rejected"]
    np.testing.assert_array_equal(coco_mask.decode(dropped["segmentation"]), result.masks[1])
    assert dropped["reason"] == "beyond top_k=1"
    assert dropped["box_xyxy"] == [1, 2, 3, 4]
    assert make_result().to_dict()["rejected"][0]["segmentation"] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"compact_masks": ()}, "labels must have one entry per mask: 4 for 0"),
        ({"image_size": (6, 5)}, r"all masks must be of the image's size \(6, 5\), got \(5, 6\)"),
        ({"scores": np.zeros(3)}, r"scores must have shape \(4\), got \(3,\)"),
        ({"prompt_scores": [0, 0, 0, np.nan]}, "prompt_scores must be finite"),
        ({"labels": ["a"]}, "labels"),
    ],
)
def test_disagreeing_fields_are_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        dataclasses.replace(make_result(), **change)


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        (np.zeros((4, 5, 6), np.uint8), "masks must be bool, not uint8"),
        (np.zeros((5, 6), bool), r"masks must have shape \(any, any, any\)"),
    ],
)
def test_other_arrays_than_masks_are_refused(masks: np.ndarray, says: str) -> None:
    ones = np.ones(len(masks))
    with pytest.raises(InputError, match=says):
        Result.of(masks, ["cat"] * len(masks), ones, ones, ones, ones)


def test_pixels_are_made_on_demand_and_only_once() -> None:
    result = make_result()
    assert "masks" not in vars(result)
    assert result.masks is result.masks
    for i, mask in enumerate(result.compact_masks):
        np.testing.assert_array_equal(mask.full(), result.masks[i])
        x0, y0, x1, y1 = result.boxes_xyxy[i].astype(int)
        np.testing.assert_array_equal(mask.part(), result.masks[i, y0:y1, x0:x1])
    assert result.masks.dtype == np.bool_
