"""COCO's two layouts, against pycocotools and hand-made PNGs."""

from __future__ import annotations

import copy
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from promptseg.apps.evaluation.coco_dataset import read_coco
from promptseg.apps.evaluation.pictures import check_pictures, large
from promptseg.apps.evaluation.tasks.base import open_picture
from promptseg.models.errors import InputError

SIZE = (24, 32)
TRIANGLE = [3.0, 2.0, 20.5, 4.0, 6.0, 18.0]
SQUARE = [22, 10, 30, 10, 30, 20, 22, 20]
PIECES = [[1, 19, 8, 19, 8, 23, 1, 23], [12, 19, 20, 19, 20, 23, 12, 23]]


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


CROWD = rectangle(18, 0, 32, 14)


def runs_of(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: zeros first, column by column."""
    flat = np.concatenate([[0], mask.flatten(order="F").astype(int)])
    changes = np.flatnonzero(np.diff(np.concatenate([flat, [1 - flat[-1]]])))
    return np.diff(np.concatenate([[0], changes])).tolist()


def compressed(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def instances() -> dict[str, Any]:
    shapes = [
        (1, 1, 0, [TRIANGLE]),
        (1, 1, 0, [SQUARE]),
        (1, 2, 0, copy.deepcopy(PIECES)),
        (1, 2, 1, {"size": list(SIZE), "counts": runs_of(CROWD)}),
        (2, 3, 0, compressed(rectangle(4, 5, 20, 20))),
        (2, 3, 1, compressed(rectangle(2, 2, 6, 6))),
        (2, 2, 1, compressed(rectangle(25, 0, 32, 9))),
    ]
    return {
        "images": [
            {"id": 1, "file_name": "one.png", "height": SIZE[0], "width": SIZE[1]},
            {"id": 2, "file_name": "two.png", "height": SIZE[0], "width": SIZE[1]},
            {"id": 3, "file_name": "empty.png", "height": SIZE[0], "width": SIZE[1]},
        ],
        "categories": [
            {"id": 1, "name": "cow", "supercategory": "animal"},
            {"id": 2, "name": "person", "supercategory": "person"},
            {"id": 3, "name": "horse", "supercategory": "animal"},
            {"id": 4, "name": "toaster", "supercategory": "appliance"},
        ],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "iscrowd": crowd,
             "segmentation": shape, "area": 1, "bbox": [0, 0, 1, 1]}
            for i, (image, category, crowd, shape) in enumerate(shapes, start=1)
        ],
    }  # fmt: skip


def write(folder: Path, content: Any, name: str = "instances_val.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def write_photos(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", SIZE[::-1], "grey").save(folder / name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_photos(tmp_path, "one.png", "two.png", "empty.png")
    return write(tmp_path, instances())


def test_masks_are_those_of_pycocotools(path: Path, capsys) -> None:
    official = COCO(str(path))
    capsys.readouterr()  # it prints
    pictures = read_coco(path).pictures
    assert capsys.readouterr().out == ""
    assert [picture.name for picture in pictures] == [
        "instances_val/one.png", "instances_val/two.png", "instances_val/empty.png",
    ]  # fmt: skip
    for number, picture in enumerate(pictures, start=1):
        truth = picture.load_truth()
        annotations = official.imgToAnns[number]
        single = [a for a in annotations if not a["iscrowd"]]
        assert [t.label for t in truth.objects] == [
            official.cats[a["category_id"]]["name"] for a in single
        ]
        for target, annotation in zip(truth.objects, single, strict=True):
            np.testing.assert_array_equal(target.mask, official.annToMask(annotation))


def test_classes_join_their_objects_and_crowds_are_void(path: Path) -> None:
    first, second, third = (picture.load_truth() for picture in read_coco(path).pictures)
    classes = {target.label: target.mask for target in first.classes}
    assert set(classes) == {"cow", "person"}
    np.testing.assert_array_equal(classes["cow"], first.objects[0].mask | first.objects[1].mask)
    known = np.logical_or.reduce([target.mask for target in first.objects])
    # An annotated object in front of a crowd counts.
    np.testing.assert_array_equal(first.valid, ~(CROWD & ~known))
    assert (CROWD & known).any()
    assert {target.label for target in second.classes} == {"horse"}  # of people only a crowd
    assert not second.valid[0, 30]
    assert third.classes == third.objects == ()
    assert third.valid.all()


def test_labels_vocabulary_and_groups(path: Path) -> None:
    collection = read_coco(path)
    assert [picture.labels for picture in collection.pictures] == [
        {"cow", "person"}, {"horse", "person"}, set(),
    ]  # fmt: skip
    # Also what occurs in no picture: it can be asked for and is absent.
    assert collection.vocabulary == {"instances_val": ("cow", "horse", "person", "toaster")}
    assert collection.supercategories == {
        "cow": "animal", "person": "person", "horse": "animal", "toaster": "appliance",
    }  # fmt: skip


@pytest.mark.parametrize(
    "photos", [".", "images", "instances_val", "val", "../val", "../images", "--images"]
)
def test_photographs_are_found_near_the_file_or_where_told(tmp_path: Path, photos: str) -> None:
    path = write(tmp_path / "annotations", instances())
    folder = tmp_path / "far" if photos == "--images" else path.parent / photos
    write_photos(folder, "one.png")
    given = folder if photos == "--images" else None
    assert read_coco(path, given).pictures[0].image_path.samefile(folder / "one.png")


@pytest.mark.parametrize("given", [False, True])
def test_photographs_that_are_not_there(tmp_path: Path, given: bool) -> None:
    path = write(tmp_path / "annotations", instances())
    with pytest.raises(InputError) as caught:
        read_coco(path, tmp_path / "lost" if given else None)
    message = str(caught.value)
    assert "the photographs of" in message
    assert "no 'one.png' in" in message
    assert repr(str(tmp_path / "lost")) in message or not given
    assert message.endswith("give their folder with --images")


def panoptic() -> tuple[dict[str, Any], np.ndarray]:
    """A hand-made panoptic file; segment ids need more than one colour channel."""
    ids = np.zeros(SIZE, np.int64)
    ids[2:12, 2:14] = 5
    ids[14:22, 2:14] = 70_000
    ids[2:12, 16:30] = 300
    ids[14:22, 16:30] = 16_777_215
    content = {
        "images": [
            {"id": 7, "file_name": "one.jpg", "height": SIZE[0], "width": SIZE[1]},
            {"id": 8, "file_name": "not annotated.jpg", "height": 5, "width": 5},
        ],
        "categories": [
            {"id": 1, "name": "cow", "supercategory": "animal", "isthing": 1},
            {"id": 2, "name": "wall-other-merged", "supercategory": "wall", "isthing": 0},
            {"id": 3, "name": "hot-dog-stuff", "supercategory": "food", "isthing": 1},
        ],
        "annotations": [
            {
                "image_id": 7,
                "file_name": "one.png",
                "segments_info": [
                    {"id": 5, "category_id": 1, "iscrowd": 0},
                    {"id": 70_000, "category_id": 1, "iscrowd": 0},
                    {"id": 300, "category_id": 2, "iscrowd": 0},
                    {"id": 16_777_215, "category_id": 3, "iscrowd": 1},
                ],
            }
        ],
    }
    return content, ids


def write_png(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = [ids % 256, ids // 256 % 256, ids // 256**2]
    Image.fromarray(np.stack(channels, -1).astype(np.uint8)).save(path)


@pytest.mark.parametrize("given", [False, True])
def test_panoptic(tmp_path: Path, given: bool) -> None:
    content, ids = panoptic()
    path = write(tmp_path, content, "panoptic_val.json")
    write_photos(tmp_path / "val", "one.jpg")
    folder = tmp_path / ("masks" if given else "panoptic_val")
    write_png(folder / "one.png", ids)
    collection = read_coco(path, panoptic=folder if given else None)
    (picture,) = collection.pictures
    assert picture.files == (tmp_path / "val" / "one.jpg", folder / "one.png")
    assert picture.labels == {"cow", "wall", "hot-dog-stuff"}
    assert collection.vocabulary == {"panoptic_val": ("cow", "hot-dog-stuff")}
    truth = picture.load_truth()
    assert [target.label for target in truth.objects] == ["cow", "cow", "wall"]
    for target, number in zip(truth.objects, (5, 70_000, 300), strict=True):
        np.testing.assert_array_equal(target.mask, ids == number)
    (cow,) = truth.classes  # stuff is not asked for
    np.testing.assert_array_equal(cow.mask, (ids == 5) | (ids == 70_000))
    # Unlabelled pixels and the crowd are void.
    np.testing.assert_array_equal(truth.valid, np.isin(ids, [5, 70_000, 300]))


def test_panoptic_pngs_that_are_not_there_or_do_not_fit(tmp_path: Path) -> None:
    content, ids = panoptic()
    path = write(tmp_path, content, "panoptic_val.json")
    write_photos(tmp_path, "one.jpg")
    with pytest.raises(InputError, match=r"no 'one.png' in .*give their folder with --panoptic"):
        read_coco(path)
    write_png(tmp_path / "one.png", ids[:10])
    with pytest.raises(InputError, match=r"is 10 x 32 pixels, but the COCO file says 24 x 32"):
        read_coco(path).pictures[0].load_truth()
    (tmp_path / "one.png").write_text("no picture")
    with pytest.raises(InputError, match="cannot be read"):
        read_coco(path).pictures[0].load_truth()


def changed(**changes: Any) -> dict[str, Any]:
    return {**instances(), **changes}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{not json", "is not valid JSON"),
        ("[]", "Expected object, got array"),
        ("{}", "missing required field"),
        (changed(images=None), "images: Expected array, got null"),
        (changed(images=[]), "has no pictures"),
        (changed(images=[3]), "instances_val.json: image 1: Expected object, got int"),
        (
            changed(categories=[]),
            "instances_val.json: annotation 1: category_id: there is no category 1",
        ),
        (changed(annotations=[{"image_id": 1}]), "annotation 1: Object missing required field"),
        (changed(annotations=["[" * 100_000]), "annotation 1: Expected object, got str"),
        ('{"images": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        (changed(categories=[{"id": 1, "name": None}]), "category 1: name: Expected str, got null"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, says: str) -> None:
    path = write(tmp_path, content)
    write_photos(tmp_path, "one.png")
    with pytest.raises(InputError) as caught:
        read_coco(path)
    assert says in str(caught.value)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match="is not valid JSON"):
        read_coco(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="is not a regular file"):
            read_coco(path)


def test_a_byte_order_mark_and_backslashes_are_read(path: Path) -> None:
    content = instances()
    (path.parent / "cam1").mkdir()
    write_photos(path.parent / "cam1", "one.png")
    content["images"][0]["file_name"] = "cam1\\one.png"
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    first = read_coco(path).pictures[0]
    assert first.image_path == path.parent / "cam1" / "one.png"
    assert first.name == "instances_val/cam1/one.png"


def test_pictures_of_one_file_name_in_two_folders_are_two(path: Path) -> None:
    content = instances()
    for number, camera in enumerate(("cam1", "cam2")):
        write_photos(path.parent / camera, "0001.jpg")
        content["images"][number]["file_name"] = f"{camera}/0001.jpg"
    content["images"][2]["file_name"] = "cam1/0001.jpg"  # annotated twice, under two ids
    path.write_text(json.dumps(content))
    pictures = read_coco(path).pictures
    check_pictures(pictures, "")
    assert [picture.name for picture in pictures] == [
        "instances_val/cam1/0001.jpg (id 1)",
        "instances_val/cam2/0001.jpg",
        "instances_val/cam1/0001.jpg (id 3)",
    ]


BAD_ENTRIES = [
    ("annotations", {"segmentation": []}, "segmentation: Expected array of length >= 1"),
    ("annotations", {"segmentation": None}, "segmentation: Expected "),
    ("annotations", {"segmentation": [[1, 2, 3, 4]]}, "segmentation: [0]: Expected array of le"),
    ("annotations", {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "odd number of coordinates"),
    ("annotations", {"image_id": None}, "image_id: Expected int | str, got null"),
    ("annotations", {"category_id": 99}, "category_id: there is no category 99"),
    ("annotations", {"iscrowd": "no"}, "iscrowd: Expected bool | int, got str"),
    ("images", {"height": 1e9}, "height: Expected float <= 131072"),
    ("images", {"height": -3}, "height: Expected float >= 1"),
    ("images", {"height": 24.5}, "height: Expected float that's a multiple of 1"),
    ("images", {"file_name": 3}, "file_name: Expected str, got int"),
    ("images", {"file_name": "a\0b"}, "file_name: Expected str matching regex"),
    ("images", {"id": 1}, "id: 1 is that of an earlier image"),
    ("categories", {"name": None}, "name: Expected str, got null"),
    ("categories", {"name": 3}, "name: Expected str, got int"),
]


@pytest.mark.parametrize(("kind", "changes", "says"), BAD_ENTRIES, ids=str)
def test_a_wrong_entry_is_named_and_skipped(
    path: Path, kind: str, changes: dict[str, Any], says: str
) -> None:
    content = instances()
    content[kind][1] |= changes
    path.write_text(json.dumps(content))
    collection = read_coco(path)
    named = collection.skipped.named[0]
    what = {"annotations": "annotation", "images": "image", "categories": "category"}[kind]
    assert named.startswith(f"instances_val.json: {what} 2: ")
    assert says in named
    first = collection.pictures[0]
    assert "cow" in first.labels
    # Without the second annotation, or without all of the second category.
    gone = {"annotations": 1, "images": 0, "categories": 1}[kind]
    assert len(first.load_truth().objects) == 3 - gone
    # The annotations of the category that is gone, a crowd on the second picture among them.
    assert collection.skipped.count == (4 if kind == "categories" else 1)


def test_a_label_whose_shape_is_bad_is_still_known_to_be_there(path: Path) -> None:
    content = instances()
    content["annotations"][4]["segmentation"] = {"size": [1, 1], "counts": "1"}
    path.write_text(json.dumps(content))
    assert read_coco(path).pictures[1].labels == {"horse", "person"}


def test_a_picture_of_too_many_masks_is_refused(path: Path) -> None:
    content = instances()
    content["images"][0] |= {"height": 2**17, "width": 2**17}
    content["annotations"][0]["segmentation"] = [TRIANGLE]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="131072 x 131072 pixels is too large"):
        read_coco(path).pictures[0].load_truth()


def test_the_size_is_compared_before_masks_are_made(path: Path) -> None:
    content = instances()
    content["images"][2] |= {"height": 10_000, "width": 10_000}
    path.write_text(json.dumps(content))
    picture = read_coco(path).pictures[2]
    tracemalloc.start()
    with pytest.raises(InputError, match=r"24 x 32 pixels .* its masks are 10000 x 10000"):
        open_picture(picture)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_eval_measures_a_coco_file(run, loads, path: Path) -> None:
    from types import SimpleNamespace

    class Segmenter:
        def encode_image(self, image: np.ndarray) -> None:
            assert image.shape == (*SIZE, 3)

    class Pipe:
        segmenter = Segmenter()
        text_prompter = None

        def __call__(self, embedding: None, *, boxes: list[tuple[int, ...]]) -> Any:
            masks = [rectangle(*box) for box in boxes]
            return Found(masks=masks, iou_predictions=[1.0] * len(masks))

    class Found(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.masks)

    pipe = Pipe()
    loads(pipe)
    done = run("eval", "--data", path, "--task", "boxes", "--by-class", "--json", "out.json")
    assert done.exit_code == 0, done.output
    written = json.loads(Path("out.json").read_text())
    objects = [t for p in read_coco(path).pictures for t in large(p.load_truth().objects)]
    assert written["by_source"]["instances_val"]["objects"] == len(objects) == 4
    assert written["settings"]["split"] == ""
    assert list(written["by_class"]) == ["cow", "horse", "person"]
    done = run("eval", "--data", path, "--split", "val")
    assert done.exit_code == 2
    assert "--split is for folders with index.jsonl" in done.stderr
    (path.parent / "two.png").unlink()
    done = run("eval", "--data", path)
    assert done.exit_code == 2
    assert "two.png' does not exist; check the folders (--images, --panoptic)" in done.stderr
    assert done.stderr.count("\n") == 1
