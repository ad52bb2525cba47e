"""Folders on the command line: which images, formats, going on after an interruption."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from promptseg.apps import exports
from promptseg.apps.cli import segment as segment_command
from promptseg.apps.cli.folders import output_folders
from promptseg.apps.cli.pictures import find_pictures
from promptseg.apps.cli.run_summary import Entry, RunLog, describe_labels, summarise
from promptseg.apps.exports import FORMATS
from promptseg.apps.exports.lock import LOCK_FILE
from promptseg.apps.exports.manifest import MANIFEST_FILE
from promptseg.apps.image_names import natural_key
from promptseg.pipeline.result import Result

SCRIPT = Path(__file__).with_name("folder_run.py")
NAMES = ["1.png", "2.png", "10.png", "a/1.png", "b/1.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, some of one name, in three folders."""
    for i, name in enumerate(NAMES):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (12, 16 + 2 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "album"


def contents(folder: Path) -> dict[str, bytes]:
    """All files and folders below a folder, hidden ones too, but for the run's lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder"
        for path in folder.rglob("*")
        if path.name != LOCK_FILE
    }


def names_below(folder: Path, out: Path | None = None) -> list[str]:
    return find_pictures([str(folder)], out).names


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    yield
    os.chdir(before)


def read(path: Path) -> dict[str, object]:
    return json.loads(path.read_text())


def test_natural_order() -> None:
    names = ["b", "a10", "a2", "B1", "a02", "1", "", "²"]
    assert sorted(names, key=natural_key) == ["", "1", "a02", "a2", "a10", "b", "B1", "²"]


def test_images_below_a_folder(folder: Path) -> None:
    for name in ("x.JPG", "x.jpeg", "x.webp", "x.bmp", "x.TIF", "x.tiff", "x.gif"):
        (folder / name).touch()
    for name in (".hidden.png", "notes.txt", "png", "x.png.part", ".git/1.png", "empty.png/x"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    found = ["x.bmp", "x.gif", "x.jpeg", "x.JPG", "x.TIF", "x.tiff", "x.webp"]
    assert names_below(folder) == ["1.png", "2.png", "10.png", "a/1.png", "b/1.png", *found]


def test_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(folder / "1.png", tmp_path / "elsewhere/9.png")
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "d").symlink_to(tmp_path / "elsewhere")
    (folder / "a/back").symlink_to(folder)
    (folder / "self").symlink_to("self")
    assert names_below(folder) == [*NAMES, "c/9.png"]


def test_own_output_is_no_input(run, fake_pipeline, folder: Path) -> None:
    os.chdir(folder)
    for options in (
        (),  # promptseg-output
        ("--out", "masks"),
        ("--out", "sets", "--format", "cutout", "--format", "png"),
        ("--out", ".", "--format", "png"),
        ("--out", "."),
    ):
        assert run("segment", ".", "-t", "cat", *options).exit_code == 0
        assert names_below(Path()) == NAMES, options
    # But what is called like a format elsewhere is searched.
    Path("a/png").mkdir()
    shutil.copy("1.png", "a/png/7.png")
    assert names_below(Path()) == [*NAMES[:4], "a/png/7.png", NAMES[4]]


def test_names_of_several_folders(folder: Path) -> None:
    given = [str(folder / "a"), str(folder / "b"), str(folder / "2.png")]
    found = find_pictures(given, None)
    assert found.names == ["a/1.png", "b/1.png", "2.png"]
    assert found.root == folder
    assert found.several
    assert not find_pictures([str(folder / "1.png")], None).several
    assert find_pictures([str(folder / "a")], None).several  # of one image


def test_each_image_gets_a_folder() -> None:
    names = ["a/x.png", "a/x.jpg", "b/x.jpg", "a/x-2.png", "A/X.gif", "run.png", ".png"]
    folders = output_folders(names, Path("o"), ["run"])
    assert [path.as_posix() for path in folders] == [
        "o/a/x", "o/a/x-2", "o/b/x", "o/a/x-2-2", "o/A/X-3", "o/run-2", "o/.png",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [("segment", "-t", "cat"), ("everything",)])
def test_a_folder_without_images_is_bad_input(run, fake_pipeline, tmp_path, command) -> None:
    (tmp_path / "empty/below").mkdir(parents=True)
    done = run(*command, tmp_path / "empty", "--out", "out")
    assert done.exit_code == 2
    assert "holds no images" in done.stderr
    assert "images are files that end in jpg, jpeg," in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("out").exists()


def test_a_folder_s_files_and_summary(run, fake_pipeline, folder: Path) -> None:
    done = run("segment", folder, "-t", "cat", "-t", "dog", "--out", "out")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    for name in NAMES:
        told = read(Path("out") / Path(name).with_suffix("") / "result.json")
        assert told["image"] == str(folder / name)
    lines = done.stdout.splitlines()
    assert len(lines) == len(NAMES) + 1
    assert lines[2].startswith(f"{folder}/10.png: 2 masks (cat, dog), 0.")
    assert lines[-1] == "5 images: 5 with masks, 0 with nothing found, 0 failed"
    assert read(Path("out/summary.json")) == {
        "images": 5, "with_masks": 5, "nothing_found": 0, "failed": 0, "failures": [], "notes": [],
    }  # fmt: skip
    assert not Path("out/failures.txt").exists()


def test_bad_images_among_good_ones(run, fake_pipeline, folder: Path) -> None:
    (folder / "3.jpg").write_text("no picture")
    (folder / "a/2.tif").write_bytes((folder / "1.png").read_bytes()[:70])
    done = run("segment", folder, "-t", "cat", "--out", "out")
    assert done.exit_code == 1
    errors = done.stderr.splitlines()
    assert len(errors) == 3
    assert "'3.jpg'" in errors[0] or "3.jpg' is not an image" in errors[0]
    assert errors[2] == "error: 2 of 7 images failed; see 'out/failures.txt'"
    listed = Path("out/failures.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == [
        str(folder / "3.jpg"), str(folder / "a/2.tif"),
    ]  # fmt: skip
    summary = read(Path("out/summary.json"))
    assert (summary["with_masks"], summary["failed"]) == (5, 2)
    # Mended, the run goes on with them alone.
    for name in ("3.jpg", "a/2.tif"):
        shutil.copy(folder / "1.png", folder / name)
    fake_pipeline.queries.clear()
    done = run("segment", folder, "-t", "cat", "--out", "out", "--resume")
    assert done.exit_code == 0, done.output
    assert len(fake_pipeline.queries) == 2
    assert not Path("out/failures.txt").exists()
    assert read(Path("out/summary.json"))["with_masks"] == 7


def test_folders_that_cannot_be_listed_are_failures(
    run, fake_pipeline, folder: Path, monkeypatch
) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if isinstance(path, Path) and path == folder / "a":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    done = run("segment", folder, "-t", "cat", "--out", "out")
    assert done.exit_code == 1
    assert "Permission denied" in done.stderr
    assert read(Path("out/summary.json"))["failures"][0]["image"] == str(folder / "a")
    assert Path("out/b/1/result.json").exists()


def test_every_format_of_a_folder(run, fake_pipeline, folder: Path) -> None:
    arguments = [word for name in FORMATS for word in ("--format", name)]
    done = run("segment", folder, "-t", "zebra", "-t", "cat", "--out", "out", *arguments)
    assert done.exit_code == 0, done.output
    written = {path.name for path in Path("out").iterdir()}
    assert written == {*FORMATS, "run.jsonl", "summary.json", LOCK_FILE, MANIFEST_FILE}
    coco = COCO("out/coco/annotations.json")
    assert [item["file_name"] for item in coco.dataset["images"]] == NAMES
    # In the order of the phrases, found or not.
    assert [item["name"] for item in coco.dataset["categories"]] == ["zebra", "cat"]
    assert Path("out/yolo/labels/a/1.txt").read_text().startswith("1 ")


def test_formats_of_one_image_add_to_the_same_file(run, fake_pipeline, folder: Path) -> None:
    for name in NAMES[:2]:
        done = run("segment", folder / name, "-t", "cat", "--format", "coco", "--json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["files"] is None
    assert {path.name for path in Path("promptseg-output").iterdir()} == {"coco", LOCK_FILE}
    coco = COCO("promptseg-output/coco/annotations.json")
    assert [item["file_name"] for item in coco.dataset["images"]] == NAMES[:2]


def test_notes_are_told_once_a_kind(run, fake_pipeline, folder: Path, monkeypatch) -> None:
    class Noting(exports.exporter_class("json")):
        def add(self, name: str, image: np.ndarray, result: Result) -> list[str]:
            super().add(name, image, result)
            count = len(name)
            return [f"json: {count} masks left out"] * 2 + ["json: of one"] * (name == "2.png")

    monkeypatch.setattr("promptseg.apps.exports.run.exporter_class", lambda name: Noting)
    done = run("segment", folder, "-t", "cat", "--out", "out", "--format", "json")
    assert done.stdout.splitlines()[-3:-1] == [
        "1.png: json: 5 masks left out; similar in 4 more images",
        "2.png: json: of one",
    ]
    assert read(Path("out/summary.json"))["notes"] == done.stdout.splitlines()[-3:-1]
    done = run("segment", folder, "-t", "cat", "--out", "out", "--format", "json", "--json")
    assert len(done.stdout.splitlines()) == len(NAMES)
    assert "2.png: json: of one" in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--format", "pdf"], "--format: there is no 'pdf'; use one of coco, coco-polygons, yolo"),
        (["--resume", "--json"], "--resume: no files are written"),
        (["--format", "yolo"], "would be written to the same files"),
    ],
)
def test_options_that_make_no_sense(run, fake_pipeline, folder: Path, options, says) -> None:
    shutil.copy(folder / "1.png", folder / "1.gif")
    done = run("segment", folder, "-t", "cat", *options)
    assert done.exit_code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("promptseg-output").exists()


def process(mode: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), mode, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("options", [(), ("--format", "coco", "--format", "voc")])
def test_a_killed_run_goes_on(run, fake_pipeline, folder: Path, tmp_path, options) -> None:
    for name in NAMES[1:4]:
        (folder / name).unlink()
    (folder / "3.jpg").write_text("no picture")
    asked = ("segment", folder, "-t", "cat", "-t", "dog", "--out", "out", *options)
    killed = process("kill", *asked)
    _, errors = killed.communicate()
    assert killed.returncode == 0, errors
    whole = contents(Path("whole"))
    assert "out/summary.json" in whole
    moments = [path for path in Path().iterdir() if path.name != "whole"]
    assert len(moments) > 15
    left = [contents(moment) for moment in moments]
    # The last one ended, and the one before had only its lock left to empty.
    assert sum(files != whole for files in left) == len(moments) - 2
    assert [files for files in left if any(".promptseg" in name for name in files)]
    for moment in moments:
        with chdir(moment):
            assert run(*asked, "--resume").exit_code == 1  # 3.jpg
        assert contents(moment) == whole, moment


def test_a_run_goes_on_after_the_last_whole_image(run, fake_pipeline, folder: Path) -> None:
    asked = ("segment", folder, "-t", "cat", "--out", "out")
    assert run(*asked).exit_code == 0
    whole = contents(Path("out"))
    log = Path("out/run.jsonl")
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:4])[:-5])
    fake_pipeline.queries.clear()
    done = run(*asked, "--resume")
    assert done.exit_code == 0, done.output
    assert len(fake_pipeline.queries) == 3  # of five; the third's line was cut off
    assert contents(Path("out")) == whole
    # Nothing is left to do, nor are models loaded for it; deleted files are made again.
    fake_pipeline.queries.clear()
    assert run(*asked, "--resume").exit_code == 0
    assert fake_pipeline.queries == []
    Path("out/a/1/result.json").unlink()
    assert run(*asked, "--resume").exit_code == 0
    assert len(fake_pipeline.queries) == 1
    assert contents(Path("out")) == whole


def test_new_images_are_added(run, fake_pipeline, folder: Path) -> None:
    asked = ("segment", folder, "-t", "cat", "--out", "out", "--format", "coco")
    run(*asked)
    shutil.copy(folder / "1.png", folder / "1b.png")
    fake_pipeline.queries.clear()
    assert run(*asked, "--resume").exit_code == 0
    assert len(fake_pipeline.queries) == 1
    assert len(COCO("out/coco/annotations.json").imgs) == 6


def test_an_image_that_takes_anothers_folder_is_no_reason_to_skip_it(
    run, fake_pipeline, folder: Path
) -> None:
    asked = ("segment", folder, "-t", "cat", "--out", "out")
    run(*asked)
    shutil.copy(folder / "2.png", folder / "1.gif")  # now first, but "1" has an owner
    fake_pipeline.queries.clear()
    assert run(*asked, "--resume").exit_code == 0
    assert len(fake_pipeline.queries) == 1
    assert read(Path("out/1/result.json"))["image"] == str(folder / "1.png")
    images = {read(Path(f"out/{name}/result.json"))["image"] for name in ("1", "1-2")}
    assert images == {str(folder / "1.gif"), str(folder / "1.png")}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-t", "dog"], 'its text is ["cat"], not ["dog"] as in this run'),
        (["-t", "cat", "--top-k", "1"], "its top_k is null, not 1 as in this run"),
        (["-t", "cat", "--no-overlap"], "its no_overlap is false, not true"),
        (["-t", "cat", "--preset", "base"], 'its preset is "pocket", not "base"'),
        (["-t", "cat", "--format", "png"], 'its formats is [], not ["png"]'),
        (["-t", "cat", "--dtype", "bf16"], 'its dtype is "auto"'),
    ],
)
def test_another_run_is_refused(run, fake_pipeline, folder: Path, options, says) -> None:
    run("segment", folder, "-t", "cat", "--out", "out")
    before = contents(Path("out"))
    done = run("segment", folder, *options, "--out", "out", "--resume")
    assert done.exit_code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert contents(Path("out")) == before


def test_another_reference_is_refused(run, fake_pipeline, folder: Path, shown, monkeypatch) -> None:
    monkeypatch.setattr(segment_command, "encode_examples", lambda *given: ())
    image, mask = shown("red")
    asked = ("segment", folder, "--reference", image, "--reference-mask", mask, "--out", "out")
    run(*asked)
    assert run(*asked, "--resume").exit_code == 0
    Image.new("RGB", (96, 96), "blue").save(image)
    done = run(*asked, "--resume")
    assert done.exit_code == 2
    assert "its references is" in done.stderr


def test_without_resume_a_run_begins_anew(run, fake_pipeline, folder: Path, monkeypatch) -> None:
    run("segment", folder, "-t", "cat", "--out", "out")
    propose = type(fake_pipeline).propose

    def interrupted(self, image: np.ndarray, query: object, **options: object) -> object:
        if len(self.queries) == 7:
            raise KeyboardInterrupt
        return propose(self, image, query)

    monkeypatch.setattr(type(fake_pipeline), "propose", interrupted)
    assert run("segment", folder, "-t", "dog", "--out", "out").exit_code == 130
    monkeypatch.setattr(type(fake_pipeline), "propose", propose)
    done = run("segment", folder, "-t", "dog", "--out", "out", "--resume")
    assert done.exit_code == 0, done.output
    # The cats of the first run were not taken for dogs.
    run("segment", folder, "-t", "dog", "--out", "fresh")
    for path in Path("fresh").rglob("*.png"):
        assert path.read_bytes() == (Path("out") / path.relative_to("fresh")).read_bytes()
    assert len(list(Path("out").rglob("mask_*.png"))) == len(NAMES)


def test_ctrl_c_tells_how_to_go_on(run, fake_pipeline, folder: Path) -> None:
    asked = ("segment", folder, "-t", "cat", "--out", "out", "--format", "coco")
    stopped = process("slow", *asked)
    deadline = time.monotonic() + 60
    log = Path("out/run.jsonl")
    while not (log.exists() and len(log.read_bytes().splitlines()) >= 3):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stopped.send_signal(signal.SIGINT)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert re.fullmatch(
        r"error: stopped; [2-4] images done; the same command with --resume continues from there\n",
        errors,
    )
    assert not [name for name in contents(Path("out")) if ".partial" in name]
    done = run(*asked, "--resume")
    assert done.exit_code == 0
    assert done.stderr == ""
    assert len(COCO("out/coco/annotations.json").imgs) == len(NAMES)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("options", [(), ("--format", "json"), ("--format", "coco")])
def test_where_nothing_can_be_written_the_run_stops(
    run, fake_pipeline, folder: Path, monkeypatch, code: int, options
) -> None:
    replace = Path.replace
    left = [4]

    def refuse(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(code, os.strerror(code), str(self))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    done = run("segment", folder, "-t", "cat", "--out", "out", *options)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert os.strerror(code) in done.stderr
    assert "--resume continues from there" in done.stderr
    assert len(fake_pipeline.queries) < len(NAMES)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([], "nothing found"),
        (["cat"], "1 mask (cat)"),
        (["cat", "dog", "cat"], "3 masks (2 cat, dog)"),
        (["", ""], "2 masks"),
    ],
)
def test_the_line_of_an_image(labels: list[str], says: str) -> None:
    assert describe_labels(labels) == says


def test_everything_takes_folders(run, loads, folder: Path) -> None:
    class Pipeline:
        def everything(self, image: np.ndarray, **options: object) -> Result:
            assert options["progress"] is None
            return Result.empty((image.shape[0], image.shape[1]))

    loads(Pipeline())
    done = run("everything", folder, "--out", "out", "--format", "json")
    assert done.exit_code == 0, done.output
    assert "5 images: 0 with masks, 5 with nothing found, 0 failed" in done.stdout
    assert Path("out/json/b/1.json").exists()
    done = run("segment", folder, "-t", "cat", "--out", "out", "--format", "json", "--resume")
    assert done.exit_code == 2


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    names = ["a\udcff.png", "a\udcfe.png"]
    log = RunLog(tmp_path, {"t": ("x",)}, resume=False)
    log.add(Entry(names[0], "a", masks=2))
    log.add(Entry(names[1], "a", error="broken"))
    log.finish([(name, "a") for name in names])
    assert (tmp_path / "failures.txt").read_text() == "a?.png\tbroken\n"
    again = RunLog(tmp_path, {"t": ("x",)}, resume=True)
    assert again.is_done(names[0], "a")
    assert not again.is_done(names[0], "b")
    assert not again.is_done(names[1], "a")
    assert summarise(list(again.entries.values())).with_masks == 1


@pytest.mark.parametrize("options", [(), ("--format", "json")])
def test_an_out_that_cannot_be_made_stops_the_run(
    run, fake_pipeline, folder: Path, options
) -> None:
    done = run("segment", folder, "-t", "cat", "--out", folder / "1.png/out", *options)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cannot be made (Not a directory); give another" in done.stderr
    assert fake_pipeline.queries == []


def test_an_image_whose_files_cannot_be_written_does_not_stop_the_others(
    run, fake_pipeline, folder: Path
) -> None:
    Path("out/2").mkdir(parents=True)
    Path("out/2/mask_01_cat.png").touch()  # that a mask gets this name is known afterwards
    done = run("segment", folder, "-t", "cat", "--out", "out")
    assert done.exit_code == 1
    assert "'out/2/mask_01_cat.png' is in the way: promptseg did not write it" in done.stderr
    assert read(Path("out/summary.json"))["with_masks"] == 4
    assert contents(Path("out/2")) == {"mask_01_cat.png": b""}
