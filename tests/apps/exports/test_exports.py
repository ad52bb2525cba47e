"""Runs over folders: adding, replacing, going on after an interruption."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from promptseg.apps.exports import FORMATS, exporter_class
from promptseg.apps.exports.base import ClassNames, class_name
from promptseg.apps.exports.manifest import MANIFEST_FILE
from promptseg.apps.exports.run import Exports
from promptseg.models.errors import InputError
from promptseg.pipeline.files import write_text
from promptseg.pipeline.result import Result

from .results import SIZE, make_result

IMAGE = np.full((*SIZE, 3), 7, np.uint8)
RESULTS = {
    "a/x.jpg": make_result("cat", "dog"),
    "b/x.jpg": make_result("dog"),
    "c.jpg": Result.empty(SIZE),
    "d.jpg": make_result("cow", "cat", "cow"),
}


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(root: Path, out: Path, names: list[str], labels: tuple[str, ...] = ()) -> None:
    images = [root / name for name in names]
    with Exports(list(FORMATS), out, images, labels=labels, root=root) as exports:
        for name in names:
            exports.add(root / name, IMAGE, RESULTS[name])


def read_coco(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "annotations.json").read_text())


def test_all_formats_of_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(tmp_path, out, list(RESULTS))
    assert {path.name for path in out.iterdir()} == {*FORMATS, MANIFEST_FILE}
    files = contents(out)
    del files[MANIFEST_FILE]
    # Images of one stem in different folders do not meet.
    assert {"yolo/labels/a/x.txt", "yolo/labels/b/x.txt", "labelme/a/x.json"} <= set(files)
    assert {"voc/SegmentationClass/b/x.png", "cutout/a/x/mask_02_dog.png"} <= set(files)
    assert not [name for name in files if Path(name).name.startswith(".")]
    coco = read_coco(out / "coco")
    assert [item["file_name"] for item in coco["images"]] == list(RESULTS)
    assert [item["id"] for item in coco["images"]] == [1, 2, 3, 4]
    assert [item["id"] for item in coco["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert {item["id"]: item["name"] for item in coco["categories"]} == {
        1: "cat", 2: "dog", 3: "cow",
    }  # fmt: skip


def test_a_run_in_pieces_gives_the_same_files(tmp_path: Path) -> None:
    names = list(RESULTS)
    run(tmp_path, tmp_path / "whole", names)
    for piece in (names[:1], names[1:3], names[2:]):  # one image twice
        run(tmp_path, tmp_path / "pieces", piece)
    assert contents(tmp_path / "pieces") == contents(tmp_path / "whole")


def test_has_knows_images_of_earlier_runs(tmp_path: Path) -> None:
    run(tmp_path, tmp_path / "out", ["a/x.jpg", "c.jpg"])
    images = [tmp_path / name for name in RESULTS]
    exports = Exports(list(FORMATS), tmp_path / "out", images, root=tmp_path)
    assert [exports.has(image) for image in images] == [True, False, True, False]
    more = Exports(["json", "png"], tmp_path / "new", images, root=tmp_path)
    assert not any(more.has(image) for image in images)


def test_labels_keep_their_numbers(tmp_path: Path) -> None:
    run(tmp_path, tmp_path, ["d.jpg"], labels=("dog", "cat"))
    run(tmp_path, tmp_path, ["a/x.jpg"], labels=("bird",))
    expected = ["dog", "cat", "cow", "bird"]
    assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())["names"] == dict(
        enumerate(expected)
    )
    assert (tmp_path / "voc" / "labels.txt").read_text().split("\n") == [
        "background", *expected, "",
    ]  # fmt: skip
    categories = read_coco(tmp_path / "coco")["categories"]
    assert [(item["id"], item["name"]) for item in categories] == list(enumerate(expected, 1))
    lines = (tmp_path / "yolo" / "labels" / "a" / "x.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "0"]


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_image_added_again_is_replaced(tmp_path: Path, format_name: str) -> None:
    for folder, results in (
        ("twice", [make_result("cat", "dog", "cat"), make_result("dog")]),
        ("once", [make_result("dog")]),
    ):
        labels = ("cat", "dog")
        with exporter_class(format_name)(tmp_path / folder, labels, tmp_path) as exporter:
            for result in results:
                exporter.add("a.jpg", IMAGE, result)
    assert contents(tmp_path / "twice") == contents(tmp_path / "once")


def test_coco_numbers_stay_when_an_image_is_replaced(tmp_path: Path) -> None:
    run(tmp_path, tmp_path, list(RESULTS))
    with exporter_class("coco")(tmp_path / "coco") as exporter:
        exporter.add("a/x.jpg", IMAGE, make_result("cow", "cat", "dog"))
    coco = read_coco(tmp_path / "coco")
    ids = {item["file_name"]: item["id"] for item in coco["images"]}
    assert ids == {"a/x.jpg": 1, "b/x.jpg": 2, "c.jpg": 3, "d.jpg": 4}
    by_image: dict[int, list[int]] = {}
    for item in coco["annotations"]:
        by_image.setdefault(item["image_id"], []).append(item["id"])
    assert by_image == {1: [1, 2, 7], 2: [3], 4: [4, 5, 6]}


def test_coco_adds_to_a_file_of_others(tmp_path: Path) -> None:
    theirs = {
        "info": {"year": 2017},
        "licenses": [{"id": 1, "name": "CC"}],
        "images": [{"id": 139, "file_name": "z.jpg", "height": 4, "width": 4, "license": 1}],
        "annotations": [
            {"id": 9001, "image_id": 139, "category_id": 17, "bbox": [0, 0, 1, 1], "area": 1,
             "iscrowd": 0, "segmentation": [[0, 0, 1, 0, 1, 1]]},
        ],
        "categories": [{"id": 17, "name": "cat", "supercategory": "animal"}],
    }  # fmt: skip
    (tmp_path / "annotations.json").write_text(json.dumps(theirs))
    with exporter_class("coco")(tmp_path) as exporter:
        exporter.add("a.jpg", IMAGE, RESULTS["a/x.jpg"])
    coco = read_coco(tmp_path)
    assert (coco["info"], coco["licenses"]) == (theirs["info"], theirs["licenses"])
    assert coco["images"][0] == theirs["images"][0]
    assert coco["annotations"][0] == theirs["annotations"][0]
    assert coco["images"][1]["id"] == 140
    assert [(a["id"], a["category_id"]) for a in coco["annotations"][1:]] == [
        (9002, 17),
        (9003, 18),
    ]


class Killed(BaseException):
    """The process ends here, whatever it wanted to do."""


class CutOff:
    """An open file; the process is killed halfway through writing to it."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def __enter__(self) -> CutOff:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def write(self, content: bytes) -> None:
        self.stream.write(bytes(content)[: len(content) // 2])
        raise Killed


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_kill_in_a_write_leaves_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_name: str
) -> None:
    """Cut the n-th write off in the middle, for each n; then go on as --resume does."""
    whole = tmp_path / "whole"
    kind = exporter_class(format_name)
    with kind(whole, images=tmp_path) as exporter:
        for name, result in RESULTS.items():
            exporter.add(name, IMAGE, result)
    open_file = Path.open
    for n in range(100):
        out, writes = tmp_path / f"killed-{n}", count()

        def open_to_cut(
            path: Path, mode: str = "r", *given: Any, n: int = n, writes=writes, **named: Any
        ) -> Any:
            stream = open_file(path, mode, *given, **named)
            return CutOff(stream) if mode in ("wb", "xb") and next(writes) >= n else stream

        monkeypatch.setattr(Path, "open", open_to_cut)
        exporter = kind(out, images=tmp_path)
        ended = False
        try:
            for name, result in RESULTS.items():
                exporter.add(name, IMAGE, result)
            exporter.close()
        except Killed:
            ended = True
        monkeypatch.undo()
        if not ended:
            break
        final = contents(whole)
        for name, content in contents(out).items():
            if name.endswith((".json", ".yaml", "labels.txt")):
                (yaml.safe_load if name.endswith("yaml") else str)(content.decode())
            elif not any(part.startswith(".") for part in Path(name).parts):
                assert content == final[name], name
            if name.endswith(".json"):
                json.loads(content)
        again = kind(out, images=tmp_path)
        for name, result in RESULTS.items():
            if not again.has(name):
                again.add(name, IMAGE, result)
        again.close()
        assert contents(out) == final
    assert n >= 3, "the write was never cut off"


def test_coco_keeps_what_came_since_the_last_write(tmp_path: Path) -> None:
    one = make_result("cat")
    exporter = exporter_class("coco")(tmp_path)
    for i in range(50):
        exporter.add(f"{i}.jpg", IMAGE, one)
    written = len(read_coco(tmp_path)["images"])
    assert 40 <= written < 50
    pending = tmp_path / ".annotations.json.pending.jsonl"
    assert len(pending.read_text().splitlines()) == 50 - written
    # Killed here, in the middle of a line.
    with pending.open("a") as file:
        file.write('{"file_name": "50.j')
    again = exporter_class("coco")(tmp_path)
    assert again.has("49.jpg")
    assert not again.has("50.jpg")
    again.add("50.jpg", IMAGE, one)
    again.close()
    coco = read_coco(tmp_path)
    assert [item["file_name"] for item in coco["images"]] == [f"{i}.jpg" for i in range(51)]
    assert [item["id"] for item in coco["annotations"]] == list(range(1, 52))
    assert not pending.exists()


def test_a_long_run_writes_the_coco_file_seldom(tmp_path: Path, monkeypatch) -> None:
    sizes: list[int] = []

    def counted(path: Path, text: str) -> None:
        sizes.append(len(text))
        write_text(path, text)

    monkeypatch.setattr("promptseg.apps.exports.coco.write_text", counted)
    one = make_result("cat")
    with exporter_class("coco")(tmp_path) as exporter:
        for i in range(400):
            exporter.add(f"{i}.jpg", IMAGE, one)
    assert len(sizes) < 90
    assert sum(sizes) < 30 * sizes[-1]


def test_the_common_folder_gives_the_names(tmp_path: Path, monkeypatch) -> None:
    images = [tmp_path / "p" / "a" / "x.jpg", tmp_path / "p" / "b" / "x.jpg"]
    with Exports(["json", "coco"], tmp_path / "out", images) as exports:
        for image in images:
            assert exports.add(image, IMAGE, make_result("cat")) == []
    assert (tmp_path / "out" / "json" / "b" / "x.json").is_file()
    monkeypatch.chdir(tmp_path)
    with Exports(["json"], Path("one"), ["p/a/x.jpg"]) as exports:
        exports.add("p/a/x.jpg", IMAGE, make_result("cat"))
        assert exports.has(tmp_path / "p" / "a" / "x.jpg")
    assert (tmp_path / "one" / "json" / "x.json").is_file()


def test_notes_of_all_formats_come_together(tmp_path: Path) -> None:
    result = make_result("cat", "dog")
    joined = Result.of(
        masks=np.array([result.masks.any(axis=0), result.masks[0]]),
        labels=["pair", "cat"],
        scores=result.scores,
        iou_predictions=result.scores,
        stability_scores=result.scores,
        prompt_scores=result.scores,
    )
    with Exports(["voc", "yolo", "voc"], tmp_path, ["a.jpg"]) as exports:
        notes = exports.add("a.jpg", IMAGE, joined)
    assert notes == ["voc: 1 mask partly under a better one, 1 wholly"]


def test_images_that_would_share_files_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    for pair in (["p/a.jpg", "p/a.png"], ["p/A.jpg", "p/a.jpg"]):
        images = [tmp_path / name for name in pair]
        for name in FORMATS:
            if name.startswith("coco"):
                with Exports([name], out, images):
                    continue
            with pytest.raises(InputError, match=f"{name}: .* rename one of them"):
                Exports([name], out, images)
    assert not out.exists()
    Exports(["yolo"], out, [tmp_path / "a.jpg", tmp_path / "a.jpg"])


def test_an_image_outside_the_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the folder that holds all images"):
        Exports(["json"], tmp_path, [tmp_path / "a.jpg"], root=tmp_path / "p")


@pytest.mark.parametrize(
    ("format_name", "file", "content", "reason"),
    [
        ("coco", "annotations.json", "{", "not valid JSON"),
        ("coco", "annotations.json", "[]", "Expected object, got array"),
        ("coco", "annotations.json", '{"images": [{"id": 1}]}', "instances layout"),
        ("coco", "annotations.json", '{"images": [{"id": "x", "file_name": "a"}]}', ""),
        (
            "coco",
            "annotations.json",
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}]}',
            "two images are named 'a'",
        ),
        ("coco", "annotations.json", '{"annotations": [{"segments_info": []}]}', "panoptic"),
        ("yolo", "data.yaml", "names: [a", "data.yaml"),
        ("yolo", "data.yaml", "- a", "not a mapping"),
        ("yolo", "data.yaml", "names: {1: a}", "numbered from 0"),
        ("yolo", "data.yaml", "names: [a, a]", "each once"),
    ],
)
def test_files_that_cannot_be_added_to_are_refused_and_kept(
    tmp_path: Path, format_name: str, file: str, content: str, reason: str
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match="move it away or give another folder") as error:
        exporter_class(format_name)(tmp_path)
    assert reason in str(error.value)
    assert (tmp_path / file).read_text() == content


def test_yolo_keeps_the_settings_of_others(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("path: /data\ntrain: t\nval: v\nnames: [bird]\nnc: 1\n")
    with exporter_class("yolo")(tmp_path) as exporter:
        exporter.add("a.jpg", IMAGE, make_result("cat"))
    settings = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert settings["path"] == "/data"
    assert settings["names"] == {0: "bird", 1: "cat"}


@given(st.lists(st.text(max_size=8), max_size=5))
def test_any_label_is_a_name_on_one_line_of_yaml(labels: list[str]) -> None:
    names = ClassNames(labels)
    assert yaml.safe_load(yaml.safe_dump(names.names)) == names.names
    text = "".join(f"{name}\n" for name in names.names)
    assert text.encode().decode().splitlines() == names.names
    again = ClassNames(names.names)
    assert again.numbers_of(labels) == names.numbers_of(labels)


@pytest.mark.parametrize(
    ("label", "name"),
    [("", "object"), ("  red \n car\t", "red car"), ("a\udcffb", "a?b"), ("\x00\x7f", "object")],
)
def test_labels_become_names(label: str, name: str) -> None:
    assert class_name(label) == name


def test_a_name_that_is_not_utf_8_is_written(tmp_path: Path) -> None:
    name = "caf\udce9.jpg"
    with Exports(list(FORMATS), tmp_path / "out", [tmp_path / name]) as exports:
        exports.add(tmp_path / name, IMAGE, make_result("cat"))
        assert exports.has(tmp_path / name)
    (image,) = read_coco(tmp_path / "out" / "coco")["images"]
    assert image["file_name"] == "caf?.jpg"


def test_a_folder_of_pictures_is_replaced_whole(tmp_path: Path, monkeypatch) -> None:
    with exporter_class("png")(tmp_path) as exporter:
        exporter.add("earlier.jpg", IMAGE, make_result("cat", "dog"))
        exporter.add("earlier.jpg", IMAGE, make_result("cow"))
        assert [path.name for path in (tmp_path / "earlier").iterdir()] == ["mask_01_cow.png"]

        def fail(*_: object, **__: object) -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(Image.Image, "save", fail)
        with pytest.raises(OSError, match="no space"):
            exporter.add("earlier.jpg", IMAGE, make_result("cat"))
    assert [path.name for path in (tmp_path / "earlier").iterdir()] == ["mask_01_cow.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["earlier"]
