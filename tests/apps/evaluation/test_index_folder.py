"""Reading data folders made up for the test."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptseg.apps.evaluation.index_folder import (
    VOID,
    Region,
    Sample,
    read_index,
    read_index_collection,
)
from promptseg.models.errors import InputError


def row(name: str, split: str = "train", **changes: Any) -> dict[str, Any]:
    return {
        "image": f"images/{name}.webp",
        "mask": f"masks/{name}.png",
        "source": "made-up",
        "split": split,
        "licence": "CC0-1.0",
        "regions": [{"label": "dog", "ids": [1, 2], "instances": True, "thing": True}],
        **changes,
    }


def write(folder: Path, *rows: Any) -> Path:
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_samples_of_all_splits_or_one(tmp_path: Path) -> None:
    write(tmp_path, row("a"), row("b", "dev"), row("c"), row("d", "test"))
    assert [s.image_path.stem for s in read_index(tmp_path)] == ["a", "b", "c", "d"]
    assert [s.image_path.stem for s in read_index(tmp_path, "train")] == ["a", "c"]
    assert [s.image_path.stem for s in read_index(str(tmp_path), "dev")] == ["b"]


def test_a_line_becomes_a_sample(tmp_path: Path) -> None:
    regions = [
        {"label": "dog", "ids": [1, 2], "instances": True, "thing": True},
        {"label": "Gras, grün", "ids": [7], "instances": False},
    ]
    (sample,) = read_index(write(tmp_path, row("a.b", regions=regions)))
    assert sample == Sample(
        image_path=tmp_path / "images/a.b.webp",
        mask_path=tmp_path / "masks/a.b.png",
        source="made-up",
        split="train",
        regions=(
            Region("dog", (1, 2), instances=True, thing=True),
            Region("Gras, grün", (7,), instances=False, thing=None),
        ),
    )
    assert sample.name == "made-up/a.b"


def test_ids_are_read_as_they_are(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [VOID, 7, 1]], np.uint8)
    (tmp_path / "masks").mkdir()
    Image.fromarray(ids).save(tmp_path / "masks/a.png")
    (sample,) = read_index(write(tmp_path, row("a")))
    found = sample.load_ids()
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, ids)


def objects(*regions: Region) -> list[tuple[str, tuple[int, ...], bool]]:
    return Sample(Path("a"), Path("b"), "s", "train", regions).objects()


def test_instances_are_objects_and_class_regions_are_one() -> None:
    assert objects(
        Region("dog", (1, 2), instances=True, thing=True),
        Region("grass", (3, 4), instances=False, thing=False),
    ) == [("dog", (1,), True), ("dog", (2,), True), ("grass", (3, 4), False)]


def test_a_region_that_shares_an_id_is_one_object_of_parts() -> None:
    assert objects(
        Region("person", (1, 2, 3), instances=True, thing=True),
        Region("shirt", (2,), instances=True, thing=True),
        Region("shoe", (4, 5), instances=True, thing=True),
    ) == [
        ("person", (1, 2, 3), True), ("shirt", (2,), True),
        ("shoe", (4,), True), ("shoe", (5,), True),
    ]  # fmt: skip


def test_no_regions_no_objects() -> None:
    assert objects() == []


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "lost"):
        with pytest.raises(InputError, match=r"has no index\.jsonl; give a data folder"):
            read_index(folder)


def test_an_index_without_the_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path, row("a"))
    with pytest.raises(InputError, match="no sample of split 'dev'; there are train"):
        read_index(tmp_path, "dev")


def test_an_empty_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.jsonl").write_text("")
    with pytest.raises(InputError, match="no sample"):
        read_index(tmp_path)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in row("b").items() if name != key}


def region(**changes: Any) -> list[dict[str, Any]]:
    return [{"label": "dog", "ids": [1], "instances": True, **changes}]


BAD_LINES = [
    ("{not json", "is not valid JSON"),
    ("[]", "Expected object, got array"),
    ("3", "Expected object, got int"),
    ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ('{"image": "\\ud800"}', "is not valid JSON"),
    (without("image"), "Object missing required field image"),
    (without("split"), "Object missing required field split"),
    (without("regions"), "Object missing required field regions"),
    (row("b", image=None), "image: Expected str, got null"),
    (row("b", image="a\0b"), "image: Expected str matching regex"),
    (row("b", source=3), "source: Expected str, got int"),
    (row("b", split=None), "split: Expected str, got null"),
    (row("b", regions=None), "regions: Expected array, got null"),
    (row("b", regions=[3]), "regions[0]: Expected object, got int"),
    (row("b", regions=region(label=3)), "regions[0].label: Expected str, got int"),
    (row("b", regions=region(ids=3)), "regions[0].ids: Expected array, got int"),
    (row("b", regions=region(ids=["1"])), "regions[0].ids[0]: Expected int, got str"),
    (row("b", regions=region(ids=[256])), "regions[0].ids[0]: Expected int <= 255"),
    (row("b", regions=region(ids=[-1])), "regions[0].ids[0]: Expected int >= 0"),
    (row("b", regions=region(instances="no")), "regions[0].instances: Expected bool | int"),
    (row("b", regions=region() * 1001), "regions: Expected array of length <= 1000"),
]


@pytest.mark.parametrize(("line", "says"), BAD_LINES, ids=lambda value: str(value)[:60])
def test_a_wrong_line_is_named(tmp_path: Path, line: Any, says: str) -> None:
    write(tmp_path, row("a"), line)
    # Training takes no wrong line; measuring goes on without it.
    with pytest.raises(InputError) as caught:
        read_index(tmp_path)
    assert "index.jsonl, line 2" in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    collection = read_index_collection(tmp_path, "train")
    assert [picture.name for picture in collection.pictures] == ["made-up/a"]
    assert collection.skipped.named == [str(caught.value)]
    assert collection.skipped.count == 1
    write(tmp_path, line)
    with pytest.raises(InputError, match=r"index\.jsonl, line 1"):
        read_index_collection(tmp_path, "train")


def test_a_byte_order_mark_and_lines_of_windows_are_read(tmp_path: Path) -> None:
    text = "\r\n".join([json.dumps(row("a")), "", json.dumps(row("b")), ""])
    (tmp_path / "index.jsonl").write_text("\ufeff" + text, encoding="utf-8", newline="")
    assert [sample.name for sample in read_index(tmp_path)] == ["made-up/a", "made-up/b"]


def test_an_index_or_mask_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (sample,) = read_index(write(tmp_path, row("a")))
    (tmp_path / "masks").mkdir()
    os.mkfifo(sample.mask_path)
    with pytest.raises(InputError, match="is not a regular file"):
        sample.load_truth()
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (tmp_path / "index.jsonl").unlink()
        make(tmp_path / "index.jsonl")
        with pytest.raises(InputError, match="is not a regular file"):
            read_index(tmp_path)


def write_sample(folder: Path, ids: np.ndarray, regions: list[dict[str, Any]]) -> Sample:
    (folder / "masks").mkdir()
    Image.fromarray(ids).save(folder / "masks/a.png")
    (sample,) = read_index(write(folder, row("a", regions=regions)))
    return sample


def test_truth_has_objects_classes_and_void(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [VOID, 7, 1]], np.uint8)
    regions = [
        {"label": "dog", "ids": [1, 2], "instances": True, "thing": True},
        {"label": "grass", "ids": [7], "instances": False, "thing": False},
        {"label": "dog", "ids": [7], "instances": False},
    ]
    truth = write_sample(tmp_path, ids, regions).load_truth()
    np.testing.assert_array_equal(truth.valid, ids != VOID)
    assert [target.label for target in truth.objects] == ["dog", "dog", "grass", "dog"]
    np.testing.assert_array_equal(truth.objects[0].mask, ids == 1)
    np.testing.assert_array_equal(truth.objects[1].mask, ids == 2)
    (dog,) = truth.classes  # stuff is not asked for; regions of one label are one class
    np.testing.assert_array_equal(dog.mask, np.isin(ids, [1, 2, 7]))
    assert dog.area == 0.5 + 1 / 6


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint16)], ids=["rgb", "16 bits"]
)
def test_masks_of_another_kind_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    sample = write_sample(tmp_path, pixels, [])
    with pytest.raises(InputError, match=r"masks/a.png' must hold uint8 ids of shape \(H, W\)"):
        sample.load_truth()


def test_a_mask_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    sample = write_sample(tmp_path, np.zeros((4, 4), np.uint8), [])
    sample.mask_path.write_text("no picture")
    with pytest.raises(InputError, match=r"the mask .*masks/a.png' cannot be read"):
        sample.load_truth()


def test_a_collection_knows_the_labels_of_all_splits(tmp_path: Path) -> None:
    def of(label: str, **more: Any) -> dict[str, Any]:
        return {"regions": [{"label": label, "ids": [1], "instances": True, **more}]}

    write(
        tmp_path,
        row("a", "dev", **of("dog")),
        row("b", "train", **of("cow")),
        row("c", "train", **of("sky", thing=False)),
        row("d", "train", source="other", **of("cat")),
    )
    collection = read_index_collection(tmp_path, "dev")
    assert [picture.name for picture in collection.pictures] == ["made-up/a"]
    assert collection.vocabulary == {"made-up": ("cow", "dog"), "other": ("cat",)}
    assert collection.supercategories == {}
    (sample,) = read_index(tmp_path, "dev")
    assert sample.labels == {"dog"}
    assert sample.files == (sample.image_path, sample.mask_path)


def test_an_index_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_index(tmp_path)
