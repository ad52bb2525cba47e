"""Each format, read back by its own field's reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from promptseg.apps.evaluation.coco_dataset import read_coco
from promptseg.apps.exports import FORMATS, exporter_class
from promptseg.apps.exports.voc import palette
from promptseg.models.errors import InputError
from promptseg.pipeline.drawing import import_supervision
from promptseg.pipeline.result import Result

from .results import SIZE, hard_masks, make_result, result_of

sv = import_supervision()
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
NAMES = ["猫", "red, car", 'cat/dog: "x" #1', "naïve 🐱", "object", "no", "12", "~", "cat"]
LABELS = [NAMES[i % len(NAMES)] for i in range(len(hard_masks()))]


def hard_result() -> Result:
    return result_of(list(hard_masks().values()), LABELS)


def write(format_name: str, folder: Path, *results: tuple[str, Result]) -> list[str]:
    with exporter_class(format_name)(folder, images=folder / "images") as exporter:
        return [note for name, result in results for note in exporter.add(name, IMAGE, result)]


def save_images(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGE).save(folder / name)
    return str(folder)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))


@pytest.fixture
def loaded_coco(capsys: pytest.CaptureFixture[str]):
    """Load a COCO file with pycocotools, which prints."""

    def load(path: Path) -> COCO:
        coco = COCO(str(path))
        capsys.readouterr()
        return coco

    return load


@pytest.mark.parametrize("format_name", ["coco", "coco-polygons"])
def test_coco_by_pycocotools(tmp_path: Path, loaded_coco, format_name: str) -> None:
    result = hard_result()
    assert write(format_name, tmp_path, ("a.png", result), ("b.png", Result.empty(SIZE))) == []
    coco = loaded_coco(tmp_path / "annotations.json")
    first, second = coco.loadImgs(coco.getImgIds())
    assert (first["file_name"], first["height"], first["width"]) == ("a.png", *SIZE)
    assert coco.getAnnIds(imgIds=second["id"]) == []
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=first["id"]))
    for i, item in enumerate(annotations):
        mask = coco.annToMask(item).astype(bool)
        np.testing.assert_array_equal(mask, result.masks[i])
        (category,) = coco.loadCats(item["category_id"])
        assert category["name"] == LABELS[i]
        assert item["area"] == mask.sum()
        x, y, width, height = item["bbox"]
        assert [x, y, x + width, y + height] == result.boxes_xyxy[i].tolist()
        assert item["score"] == float(result.scores[i])
        assert item["iscrowd"] == 0
        assert isinstance(item["segmentation"], list if "polygons" in format_name else dict)
    assert len(annotations) == len(result)


def test_coco_as_detections_of_pycocotools(tmp_path: Path, loaded_coco, capsys) -> None:
    result = make_result("cat", "dog")
    write("coco", tmp_path, ("a.png", result))
    coco = loaded_coco(tmp_path / "annotations.json")
    found = coco.loadRes(coco.loadAnns(coco.getAnnIds()))
    capsys.readouterr()
    items = found.loadAnns(found.getAnnIds())
    for item, mask in zip(items, result.masks, strict=True):
        np.testing.assert_array_equal(found.annToMask(item).astype(bool), mask)
    assert [item["score"] for item in items] == result.scores.tolist()


@pytest.mark.parametrize(("format_name", "least"), [("coco", 1.0), ("coco-polygons", 0.8)])
def test_coco_by_supervision(tmp_path: Path, format_name: str, least: float) -> None:
    result = make_result("cat", "red car")
    folder = save_images(tmp_path / "images", "sub/a.png")
    write(format_name, tmp_path, ("sub/a.png", result))
    read = sv.DetectionDataset.from_coco(folder, str(tmp_path / "annotations.json"))
    assert read.classes == ["cat", "red car"]
    ((_, _, found),) = list(read)
    assert found.class_id.tolist() == [0, 1]
    # It counts the rim of polygons in, so that these small discs grow by a pixel.
    assert min(map(iou, found.mask, result.masks)) >= least


def test_coco_by_our_own_reader(tmp_path: Path) -> None:
    result = make_result("cat", "dog")
    save_images(tmp_path / "images", "a.png")
    write("coco", tmp_path, ("a.png", result))
    (picture,) = read_coco(tmp_path / "annotations.json").pictures
    objects = picture.load_truth().objects
    assert [item.label for item in objects] == ["cat", "dog"]
    np.testing.assert_array_equal([item.mask for item in objects], result.masks)


def read_yolo(folder: Path, images: str) -> tuple[list[str], dict[str, Any]]:
    data = sv.DetectionDataset.from_yolo(
        images, str(folder / "labels"), str(folder / "data.yaml"), force_masks=True
    )
    return data.classes, {Path(path).name: found for path, _, found in data}


def test_yolo_by_supervision(tmp_path: Path) -> None:
    result = hard_result()
    notes = write("yolo", tmp_path, ("é ü.png", result), ("b.png", Result.empty(SIZE)))
    images = save_images(tmp_path / "images", "é ü.png", "b.png")
    classes, found = read_yolo(tmp_path, images)
    assert (tmp_path / "labels" / "b.txt").read_text() == ""
    assert len(found["b.png"]) == 0
    read = found["é ü.png"]
    assert [classes[i] for i in read.class_id] == LABELS
    for name, mask, got in zip(hard_masks(), result.masks, read.mask, strict=True):
        # Parts apart are what the format cannot hold.
        assert iou(got, mask) >= (0.99 if name in {"rings", "two parts"} else 1.0), name
    more = int((read.mask & ~result.masks).sum())
    fewer = int((result.masks & ~read.mask).sum())
    assert notes == [
        f"yolo: 4 masks in several parts, joined by lines (adds up to {more} pixels) "
        f"or left out (loses up to {fewer})"
    ]


def test_yolo_numbers_lie_in_the_image(tmp_path: Path) -> None:
    write("yolo", tmp_path, ("a.png", hard_result()))
    for line in (tmp_path / "labels" / "a.txt").read_text().splitlines():
        number, *values = line.split(" ")
        assert int(number) < len(NAMES)
        assert len(values) >= 8
        assert len(values) % 2 == 0
        assert all(0 <= float(value) < 1 for value in values)


def test_yolo_of_a_large_image_loses_nothing_to_rounding(tmp_path: Path) -> None:
    mask = np.zeros((3, 9001), bool)
    mask[1, ::2] = mask[2] = True
    with exporter_class("yolo")(tmp_path) as exporter:
        exporter.add("a.png", np.zeros((3, 9001, 3), np.uint8), result_of([mask], ["x"]))
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (9001, 3)).save(folder / "a.png")
    _, found = read_yolo(tmp_path, str(folder))
    np.testing.assert_array_equal(found["a.png"].mask[0], mask)


def read_labelme(path: Path) -> tuple[dict[str, Any], list[tuple[str, np.ndarray]]]:
    """Check what labelme 5 and 6 ask of a file, and draw its shapes as labelme does."""
    document = json.loads(path.read_text(encoding="utf-8"))
    assert set(document) == {
        "version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth",
    }  # fmt: skip
    assert isinstance(document["version"], str)
    assert document["imageData"] is None
    size = document["imageHeight"], document["imageWidth"]
    with Image.open(path.parent / document["imagePath"]) as photograph:
        assert photograph.size == size[::-1]
    objects: dict[object, tuple[str, np.ndarray]] = {}
    for i, shape in enumerate(document["shapes"]):
        assert set(shape) == {
            "label", "points", "group_id", "description", "shape_type", "flags", "mask",
        }  # fmt: skip
        assert isinstance(shape["label"], str)
        assert isinstance(shape["description"], str)
        assert shape["group_id"] is None or isinstance(shape["group_id"], int)
        assert (shape["shape_type"], shape["flags"], shape["mask"]) == ("polygon", {}, None)
        assert len(shape["points"]) > 2
        assert all(len(p) == 2 and all(type(v) is float for v in p) for p in shape["points"])
        canvas = Image.new("L", size[::-1])
        points = [tuple(point) for point in shape["points"]]
        ImageDraw.Draw(canvas).polygon(xy=points, outline=1, fill=1)
        key = (shape["label"], shape["group_id"] if shape["group_id"] is not None else f"#{i}")
        _, before = objects.get(key, ("", np.zeros(size, bool)))
        objects[key] = shape["label"], before | np.asarray(canvas).astype(bool)
    return document, list(objects.values())


def test_labelme_by_its_rules(tmp_path: Path) -> None:
    result = hard_result()
    folder = tmp_path / "images"
    save_images(folder, "sub/ü.png", "b.png")
    images = ("sub/ü.png", result), ("b.png", Result.empty(SIZE))
    assert write("labelme", tmp_path / "out", *[]) == []
    with exporter_class("labelme")(tmp_path / "out", images=folder) as exporter:
        assert [exporter.add(name, IMAGE, item) for name, item in images] == [[], []]
    document, objects = read_labelme(tmp_path / "out" / "sub" / "ü.json")
    assert document["imagePath"] == "../../images/sub/ü.png"
    assert [label for label, _ in objects] == LABELS
    np.testing.assert_array_equal([mask for _, mask in objects], result.masks)
    assert document["shapes"][0]["description"] == "score 0.9000"
    assert read_labelme(tmp_path / "out" / "b.json")[1] == []


def test_labelme_by_supervision(tmp_path: Path) -> None:
    result = hard_result()
    write("labelme", tmp_path, ("a.png", result))
    images = save_images(tmp_path / "images", "a.png")
    data = sv.DetectionDataset.from_labelme(images, str(tmp_path))
    ((_, _, found),) = list(data)
    assert [data.classes[i] for i in found.class_id] == LABELS
    np.testing.assert_array_equal(found.mask, result.masks)


def test_labelme_of_an_image_that_is_no_file(tmp_path: Path) -> None:
    with exporter_class("labelme")(tmp_path) as exporter:
        exporter.add("sub/a.png", IMAGE, Result.empty(SIZE))
    assert json.loads((tmp_path / "sub" / "a.json").read_text())["imagePath"] == "a.png"


def read_voc(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    read = []
    for kind in ("SegmentationClass", "SegmentationObject"):
        with Image.open(folder / kind / name) as image:
            read.append(np.asarray(image))
    return read[0], read[1]


def test_voc_by_pillow(tmp_path: Path) -> None:
    result = make_result("猫", "red, car", "猫")
    assert write("voc", tmp_path, ("a.jpg", result), ("b.jpg", Result.empty(SIZE))) == []
    names = (tmp_path / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert names == ["background", "猫", "red, car"]
    classes, objects = read_voc(tmp_path, "a.png")
    assert set(np.unique(objects)) == {0, 1, 2, 3}
    for i, mask in enumerate(result.masks):
        np.testing.assert_array_equal(objects == i + 1, mask)
        assert set(classes[mask]) == {names.index(result.labels[i])}
    assert not classes[~result.masks.any(axis=0)].any()
    assert not np.any(read_voc(tmp_path, "b.png"))
    with Image.open(tmp_path / "SegmentationClass" / "a.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[3:6] == [128, 0, 0]


def test_voc_palette() -> None:
    # Of the development kit: aeroplane, bicycle, bird, ..., tvmonitor and void.
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0),
             15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}  # fmt: skip
    assert {i: tuple(palette()[i].tolist()) for i in known} == known


def test_voc_puts_the_better_mask_on_top_and_says_so(tmp_path: Path) -> None:
    lower = np.zeros(SIZE, bool)
    lower[5:20, 5:20] = True
    upper, hidden = lower.copy(), lower.copy()
    upper[:, :12] = False
    hidden[:, :15] = False
    result = result_of([upper, lower, hidden], ["a", "b", "c"])
    notes = write("voc", tmp_path, ("a.jpg", result))
    assert notes == ["voc: 2 masks partly under a better one, 1 wholly"]
    _, objects = read_voc(tmp_path, "a.png")
    np.testing.assert_array_equal(objects == 1, upper)
    np.testing.assert_array_equal(objects == 2, lower & ~upper)


def test_voc_background_is_a_word_like_others(tmp_path: Path) -> None:
    write("voc", tmp_path, ("a.jpg", make_result("background")))
    write("voc", tmp_path, ("b.jpg", make_result("cat", "background")))
    assert (tmp_path / "labels.txt").read_text() == "background\nbackground\ncat\n"
    assert set(np.unique(read_voc(tmp_path, "b.png")[0])) == {0, 1, 2}


def test_voc_with_more_objects_than_a_byte_counts(tmp_path: Path) -> None:
    masks = np.zeros((300, *SIZE), bool)
    for i in range(300):
        masks[i, i // 50, i % 50] = True
    notes = write("voc", tmp_path, ("a.jpg", result_of(list(masks), ["x"] * 300)))
    assert notes == ["voc: more than 254 objects, in 16 bits without colours"]
    classes, objects = read_voc(tmp_path, "a.png")
    np.testing.assert_array_equal([objects == i + 1 for i in range(300)], masks)
    np.testing.assert_array_equal(classes, masks.any(axis=0))


@pytest.mark.parametrize("format_name", ["cutout", "png"])
def test_pictures_by_pillow(tmp_path: Path, format_name: str) -> None:
    result = hard_result()
    images = ("sub/a.jpg", result), ("b.jpg", Result.empty(SIZE))
    assert write(format_name, tmp_path, *images) == []
    files = sorted((tmp_path / "sub" / "a").iterdir())
    assert files[1].name == "mask_02_red-car.png"
    for path, mask in zip(files, result.masks, strict=True):
        with Image.open(path) as image:
            pixels = np.asarray(image)
        if format_name == "png":
            np.testing.assert_array_equal(pixels, mask * np.uint8(255))
            continue
        np.testing.assert_array_equal(pixels[..., 3], mask * np.uint8(255))
        np.testing.assert_array_equal(pixels[..., :3], IMAGE * mask[..., None])
    assert list((tmp_path / "b").iterdir()) == []


def test_json_keeps_everything(tmp_path: Path) -> None:
    result = hard_result()
    assert write("json", tmp_path, ("sub/ü.jpg", result)) == []
    record = json.loads((tmp_path / "sub" / "ü.json").read_text())
    assert record == {"image": "sub/ü.jpg", **result.to_dict()}
    for i, item in enumerate(record["masks"]):
        mask = coco_mask.decode(item["segmentation"]).astype(bool)
        np.testing.assert_array_equal(mask, result.masks[i])


@pytest.mark.parametrize(
    ("format_name", "notes"),
    [
        ("coco", []),
        ("coco-polygons", ["coco-polygons: 1 empty mask written as run lengths"]),
        ("yolo", ["yolo: 1 empty mask left out"]),
        ("labelme", ["labelme: 1 empty mask left out"]),
        ("voc", []),
        ("cutout", []),
        ("png", []),
        ("json", []),
    ],
)
def test_a_mask_without_a_pixel(
    tmp_path: Path, loaded_coco, format_name: str, notes: list[str]
) -> None:
    result = result_of([np.zeros(SIZE, bool), hard_masks()["ring"]], ["a", "b"])
    assert write(format_name, tmp_path, ("a.png", result)) == notes
    if format_name.startswith("coco"):
        coco = loaded_coco(tmp_path / "annotations.json")
        found = [coco.annToMask(item).astype(bool) for item in coco.loadAnns(coco.getAnnIds())]
        np.testing.assert_array_equal(found, result.masks)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("size", [(1, 7), (7, 1), (1, 1)])
def test_images_of_one_row_or_column(
    tmp_path: Path, format_name: str, size: tuple[int, int]
) -> None:
    result = result_of([np.ones(size, bool)], ["x"])
    with exporter_class(format_name)(tmp_path) as exporter:
        notes = exporter.add("a.png", np.zeros((*size, 3), np.uint8), result)
        assert exporter.has("a.png")
    assert notes == []


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "", "a/../../b.png"])
def test_a_name_outside_the_folder_is_refused(tmp_path: Path, format_name: str, name: str) -> None:
    with (
        exporter_class(format_name)(tmp_path / "out") as exporter,
        pytest.raises(InputError, match="below a folder"),
    ):
        exporter.add(name, IMAGE, make_result("cat"))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="no format 'gif'; use one of coco, "):
        exporter_class("gif")


def test_names_of_formats() -> None:
    assert all(exporter_class(name).name == name for name in FORMATS)
