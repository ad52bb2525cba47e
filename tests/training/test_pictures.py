"""Reading pictures: regions split by boxes, and words without masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import Entry, load_picture, read_entries, read_weak
from PIL import Image

from promptseg.apps.evaluation.index_folder import VOID


def write(folder: Path, ids: np.ndarray, *regions: dict) -> Entry:
    """The entry of one picture with these ids and regions."""
    Image.fromarray(np.full((*ids.shape, 3), 90, np.uint8)).save(folder / "a.png")
    Image.fromarray(ids).save(folder / "a_ids.png")
    row = {"image": "a.png", "mask": "a_ids.png", "source": "mine", "split": "train"}
    (folder / "index.jsonl").write_text(json.dumps({**row, "regions": regions}))
    return read_entries(folder, "train")[0]


def region(label: str, *ids: int, instances: bool = False, boxes: list | None = None) -> dict:
    made = {"label": label, "ids": list(ids), "instances": instances}
    return made if boxes is None else made | {"boxes_xyxy": boxes}


def area(picture, ids: tuple[int, ...]) -> int:
    return int(np.isin(picture.ids, ids).sum())


@pytest.fixture
def herd() -> np.ndarray:
    """A region 7 of 10 x 30 pixels, next to void."""
    ids = np.zeros((20, 40), np.uint8)
    ids[5:15, 0:30] = 7
    ids[5:15, 30:34] = VOID
    return ids


def test_boxes_split_a_region_and_leave_in_doubt_what_lies_in_two(tmp_path, herd) -> None:
    boxes = [[0, 0, 13, 19], [10, 0, 24, 19]]
    picture = load_picture(write(tmp_path, herd, region("sheep", 7, boxes=boxes)))
    left, right = picture.things
    assert left.single
    assert right.single
    # Columns 0-13 and 10-24; both have 10-13; none has 25-29.
    assert (area(picture, left.ids), area(picture, right.ids)) == (100, 110)
    assert area(picture, left.doubtful) == area(picture, right.doubtful) == 40 + 50
    (label, ids), *rest = picture.regions
    assert (label, rest) == ("sheep", [])
    assert area(picture, ids) == 300
    assert (picture.ids == VOID).sum() == 40


def test_one_box_says_that_the_region_is_one_object(tmp_path, herd) -> None:
    picture = load_picture(write(tmp_path, herd, region("dog", 7, boxes=[[0, 0, 10, 10]])))
    (thing,) = picture.things
    assert (thing.ids, thing.doubtful, thing.single) == ((7,), (), True)


def test_boxes_on_top_of_each_other_split_nothing(tmp_path, herd) -> None:
    boxes = [[0, 0, 29, 19], [1, 0, 29, 19]]
    (thing,) = load_picture(write(tmp_path, herd, region("cow", 7, boxes=boxes))).things
    assert (thing.ids, thing.single) == ((7,), False)


def test_instances_regions_and_objects_of_parts(tmp_path) -> None:
    ids = np.arange(1, 7, dtype=np.uint8).repeat(10).reshape(6, 10)
    entry = write(
        tmp_path,
        ids,
        region("cup", 1, 2, instances=True),
        region("grass", 3, 4),
        region("shoes", 5),
        region("coat", 6),
        region("person", 5, 6, instances=True),
    )
    found = {(t.label, t.ids): t.single for t in load_picture(entry).things}
    assert found == {
        ("cup", (1,)): True,
        ("cup", (2,)): True,
        ("grass", (3, 4)): False,
        ("shoes", (5,)): False,
        ("coat", (6,)): False,
        ("person", (5, 6)): True,
    }


def test_words_without_masks(data_folder) -> None:
    plain, boxed = read_weak(data_folder, "train")
    assert plain.weak
    assert plain.words == (("gnome", ()),)
    assert boxed.words == (("gnome", ((8.0, 8.0, 40.0, 60.0),)),)
    assert boxed.sample.source == "shed"
    picture = load_picture(boxed)
    assert not picture.ids.any()
    assert picture.things == picture.regions == ()
    assert read_weak(data_folder, "dev") == []
    assert not any(entry.weak for entry in read_entries(data_folder, "train"))


def test_a_folder_without_weak_words_has_none(tmp_path) -> None:
    assert read_weak(tmp_path, "train") == []
