"""Where files go: nothing that is not ours is replaced or deleted, and nothing of ours is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from promptseg.apps.cli import runner
from promptseg.apps.cli.output_plan import OutputPlan
from promptseg.apps.exports.lock import LOCK_FILE, FolderLock
from promptseg.apps.exports.manifest import MANIFEST_FILE, Files, Manifest
from promptseg.models.errors import InputError

SCRIPT = Path(__file__).with_name("folder_run.py")


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (LOCK_FILE, MANIFEST_FILE)
    }


def assert_refused(done, *says: str) -> None:
    """One line, bad input."""
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for text in says:
        assert text in done.stderr


@pytest.mark.parametrize("name", ["overlay.png", "mask_01_cat.png", "mask_07_toy.png"])
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_an_input_is_never_an_output(run, fake_pipeline, name: str, overwrite) -> None:
    picture(Path("eat") / name)
    before = contents(Path("eat"))
    done = run("segment", f"eat/{name}", "-t", "cat", "--out", "eat", *overwrite)
    assert_refused(done, f"'eat/{name}' is an input", "give another --out")
    assert contents(Path("eat")) == before
    assert fake_pipeline.queries == []


def test_an_input_is_known_through_links(run, fake_pipeline) -> None:
    picture(Path("eat/overlay.png"))
    Path("link.png").symlink_to("eat/overlay.png")
    os.link("eat/overlay.png", "hard.png")
    Path("door").symlink_to("eat")
    for given in ("link.png", "hard.png", "door/overlay.png"):
        done = run("segment", given, "-t", "cat", "--out", "eat", "--overwrite")
        assert_refused(done, "is an input")
    # An output that is a link to the input.
    picture(Path("a.png"))
    Path("out").mkdir()
    Path("out/result.json").symlink_to("../a.png")
    assert_refused(run("segment", "a.png", "-t", "cat", "--out", "out", "--overwrite"), "input")


def test_what_is_shown_is_an_input_too(run, fake_pipeline, shown) -> None:
    image, mask = shown("red")
    Path("eat").mkdir()
    shutil.copy(mask, "eat/mask_01_red.png")
    asked = ("segment", image, "--reference", image, "--reference-mask", "eat/mask_01_red.png")
    assert_refused(run(*asked, "--out", "eat", "--overwrite"), "'eat/mask_01_red.png' is an input")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out/overlay.png", ()),
        ("out/result.json", ()),
        ("out/json/a.json", ("--format", "json")),
        ("out/labelme/a.json", ("--format", "labelme")),
        ("out/yolo/labels/a.txt", ("--format", "yolo")),
        ("out/voc/SegmentationObject/a.png", ("--format", "voc")),
    ],
)
def test_files_of_others_are_in_the_way(run, fake_pipeline, name: str, options) -> None:
    picture(Path("a.png"))
    Path(name).parent.mkdir(parents=True)
    Path(name).write_text("mine")
    asked = ("segment", "a.png", "-t", "cat", "--out", "out", *options)
    assert_refused(run(*asked), f"{name!r} is in the way", "--overwrite")
    assert contents(Path("out")) == {str(Path(name).relative_to("out")): b"mine"}
    assert fake_pipeline.queries == []
    assert run(*asked, "--overwrite").exit_code == 0
    assert Path(name).read_bytes() != b"mine"
    assert run(*asked).exit_code == 0  # now it is ours


def test_files_that_somebody_changed_are_kept(run, fake_pipeline) -> None:
    picture(Path("a.png"))
    asked = ("segment", "a.png", "-t", "cat", "--out", "out", "--format", "labelme")
    assert run(*asked).exit_code == 0
    Path("out/labelme/a.json").write_text("corrected by hand")
    assert_refused(run(*asked), "'out/labelme/a.json' was changed since promptseg wrote it")
    assert Path("out/labelme/a.json").read_text() == "corrected by hand"


@pytest.mark.parametrize("name", ["cutout", "png"])
def test_a_folder_of_pictures_keeps_what_is_not_ours(run, fake_pipeline, name: str) -> None:
    picture(Path("cat.png"))
    asked = ("segment", "cat.png", "--out", "out", "--format", name)
    Path(f"out/{name}/cat").mkdir(parents=True)
    Path(f"out/{name}/cat/mine.txt").write_text("mine")
    assert run(*asked, "-t", "cat", "-t", "dog").exit_code == 0
    assert run(*asked, "-t", "dog").exit_code == 0  # one mask fewer
    left = {path.name for path in Path(f"out/{name}/cat").iterdir()}
    assert left == {"mine.txt", "mask_01_dog.png"}


@pytest.mark.parametrize("name", ["labelme", "yolo", "voc", "json", "png", "cutout"])
def test_another_photograph_of_the_same_stem(run, fake_pipeline, name: str) -> None:
    picture(Path("d1/cat.jpg"))
    picture(Path("d2/cat.webp"), 1)
    assert run("segment", "d1/cat.jpg", "-t", "cat", "--format", name, "--out", "dd").exit_code == 0
    before = contents(Path("dd"))
    done = run("segment", "d2/cat.webp", "-t", "cat", "--format", name, "--out", "dd")
    assert done.exit_code == 2
    assert "is the answer for another image" in done.stderr
    assert "d1/cat.jpg" in done.stderr
    assert contents(Path("dd")) == before


def test_in_folders_of_their_own_they_are_kept_apart(run, fake_pipeline) -> None:
    for i, name in enumerate(("d1/cat.jpg", "d2/cat.webp")):
        picture(Path(name), i)
        assert run("segment", name, "-t", "cat").exit_code == 0
        assert run("segment", name, "-t", "dog").exit_code == 0  # a new answer for the same
    told = {
        path.parent.name: json.loads(path.read_text())["image"]
        for path in Path("promptseg-output").glob("*/result.json")
    }
    assert told == {"cat": "d1/cat.jpg", "cat-2": "d2/cat.webp"}
    # A run over both finds each its own.
    assert run("segment", "d1", "d2", "-t", "cat", "--out", "masks").exit_code == 0
    assert run("segment", "d1", "d2", "-t", "cat", "--out", "masks").exit_code == 0
    assert len(list(Path("masks").rglob("result.json"))) == 2
    # In a folder that was named there is one place.
    assert run("segment", "d1/cat.jpg", "-t", "cat", "--out", "one").exit_code == 0
    assert_refused(run("segment", "d2/cat.webp", "-t", "cat", "--out", "one"), "another image")


def test_an_image_of_a_run_may_be_done_again_alone(run, fake_pipeline) -> None:
    picture(Path("album/a.png"))
    assert run("segment", "album", "-t", "cat", "--out", "masks").exit_code == 0
    assert run("segment", "album/a.png", "-t", "dog", "--out", "masks/a").exit_code == 0
    assert run("segment", "album", "-t", "cat", "--out", "masks").exit_code == 0
    names = {path.name for path in Path("masks/a").iterdir() if path.name[0] != "."}
    assert names == {"result.json", "overlay.png", "mask_01_cat.png"}


def test_outputs_that_collide_are_refused(run, fake_pipeline) -> None:
    picture(Path("album/cat.jpg"))
    picture(Path("album/cat/overlay.png.jpg"))
    done = run("segment", "album", "-t", "cat", "--out", "out")
    assert_refused(done, "'out/cat/overlay.png'", "rename one of the images")
    assert not Path("out").exists()
    with pytest.raises(InputError, match="two outputs would be"):
        OutputPlan(files=[(Path("o/a"), "1"), (Path("o/A"), "2")]).check(Files())


@pytest.mark.parametrize("kind", ["fifo", "other"])
def test_a_run_log_of_others_is_in_the_way(run, fake_pipeline, kind: str) -> None:
    picture(Path("album/a.png"))
    Path("out").mkdir()
    if kind == "fifo":
        os.mkfifo("out/run.jsonl")
    else:
        Path("out/run.jsonl").write_text("my morning run\n")
    for resume in ([], ["--resume"]):
        done = run("segment", "album", "-t", "cat", "--out", "out", *resume)
        assert_refused(done, "out/run.jsonl")
    assert not (Path("out") / "a").exists()


def test_pipes_in_a_searched_folder_are_not_waited_for(run, fake_pipeline) -> None:
    picture(Path("album/b/a.png"))
    os.mkfifo("album/b/run.jsonl")
    os.mkfifo("album/b/result.json")
    assert run("segment", "album", "-t", "cat", "--out", "out").exit_code == 0
    for name in ("out/.promptseg-files.jsonl", "out/coco/annotations.json", "out/yolo/data.yaml",
                 "out/voc/labels.txt", "out/.promptseg.lock"):  # fmt: skip
        shutil.rmtree("out")
        Path(name).parent.mkdir(parents=True)
        os.mkfifo(name)
        formats = ("--format", "coco", "--format", "yolo", "--format", "voc")
        done = run("segment", "album", "-t", "cat", "--out", "out", *formats)
        assert_refused(done, name, "not a regular file")


@pytest.mark.parametrize(
    "line", ['{"image": 3}', '{"image": NaN}', "[" * 100_000, '{"image": "a", "extra": 1}', "3"]
)
def test_a_broken_run_log_is_refused_by_its_line(run, fake_pipeline, line: str) -> None:
    picture(Path("album/a.png"))
    asked = ("segment", "album", "-t", "cat", "--out", "out")
    run(*asked)
    with Path("out/run.jsonl").open("a") as file:
        file.write(line + "\n")
    assert_refused(run(*asked, "--resume"), "line 3 is broken")


def test_lines_of_a_manifest_that_cannot_be_read_are_nobodys_files(run, fake_pipeline) -> None:
    picture(Path("a.png"))
    asked = ("segment", "a.png", "-t", "cat", "--out", "out")
    run(*asked)
    path = Path("out/.promptseg-files.jsonl")
    whole = path.read_text()
    for bad in ("3\n", '{"path": 3}\n', "[" * 99_999 + "\n", '{"path": "../x", "image": ""', "\0"):
        path.write_text(whole + bad)
        assert run(*asked).exit_code == 0, bad
        assert path.read_text() == whole
    path.write_text("not mine")
    assert_refused(run(*asked), "is in the way")


def test_a_manifest_never_lets_a_file_elsewhere_go(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    row = json.dumps({"path": "../precious", "image": "", "sha256": empty})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST_FILE).write_text(f'{{"promptseg_files": 1}}\n{row}\n')
    Manifest(tmp_path / "out").remove(tmp_path / "precious")
    assert (tmp_path / "precious").exists()


def process(mode: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), mode, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and len(path.read_bytes().splitlines()) >= lines):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_process_at_a_time_writes_into_a_folder(run, fake_pipeline, monkeypatch) -> None:
    for i in range(6):
        picture(Path(f"a/{i}.png"), i)
        picture(Path(f"b/{i}b.png"), i)
    first = process("slow", "segment", "a", "-t", "cat", "--format", "coco", "--out", "d")
    wait_for(Path("d/run.jsonl"), 2)
    second = ("segment", "b", "-t", "dog", "--format", "coco", "--format", "yolo", "--out", "d")
    told = f"another promptseg is writing to 'd' (process {first.pid}); wait for it, or give"
    assert_refused(run(*second), told)
    # A single image waits, as it does not take long.
    monkeypatch.setattr(runner, "_PATIENCE", 0.2)
    done = run("segment", "b/0b.png", "-t", "dog", "--format", "coco", "--out", "d")
    assert done.exit_code == 2
    assert "; waiting" in done.stderr.splitlines()[0]
    # The lock of a process that was killed is in nobody's way.
    first.kill()
    first.communicate()
    asked = ("segment", "a", "-t", "cat", "--format", "coco", "--format", "yolo", "--out", "d")
    assert run(*asked).exit_code == 0
    # One after the other, all of both is there.
    assert run(*second).exit_code == 0
    assert len(COCO("d/coco/annotations.json").imgs) == 12
    assert {line.split()[0] for path in Path("d/yolo/labels").iterdir()
            for line in path.read_text().splitlines()} == {"0", "1"}  # fmt: skip
    names = Path("d/yolo/data.yaml").read_text()
    assert "0: cat" in names
    assert "1: dog" in names


def test_a_lock_leaves_no_folder_behind(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "new" / "er"):
        with pytest.raises(InputError, match=f"process {os.getpid()}"):
            FolderLock(tmp_path / "new" / "er")
        assert (tmp_path / "new" / "er" / LOCK_FILE).exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("options", [(), ("--format", "coco")])
def test_an_output_folder_that_goes_during_the_run_is_told(
    run, fake_pipeline, monkeypatch, options
):
    for i in range(3):
        picture(Path(f"album/{i}.png"), i)
    propose = type(fake_pipeline).propose

    def remove(self, image, query, **options):
        if len(self.queries) == 2:
            shutil.rmtree("out")
        return propose(self, image, query)

    monkeypatch.setattr(type(fake_pipeline), "propose", remove)
    done = run("segment", "album", "-t", "cat", "--out", "out", *options)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "'out' was removed or emptied while it was written to" in done.stderr


def test_results_that_go_during_the_run_are_failures(run, fake_pipeline, monkeypatch) -> None:
    for i in range(3):
        picture(Path(f"album/{i}.png"), i)
    propose = type(fake_pipeline).propose

    def remove(self, image, query, **options):
        if len(self.queries) == 2:
            shutil.rmtree("out/0")
        return propose(self, image, query)

    monkeypatch.setattr(type(fake_pipeline), "propose", remove)
    asked = ("segment", "album", "-t", "cat", "--out", "out")
    done = run(*asked)
    assert done.exit_code == 1
    assert "'album/0.png': its files were removed while the run went on" in done.stderr
    assert json.loads(Path("out/summary.json").read_text())["failed"] == 1
    monkeypatch.setattr(type(fake_pipeline), "propose", propose)
    assert run(*asked, "--resume").exit_code == 0
    assert Path("out/0/result.json").exists()


def test_sigterm_ends_a_run_as_ctrl_c_does(run, fake_pipeline) -> None:
    for i in range(6):
        picture(Path(f"album/{i}.png"), i)
    asked = ("segment", "album", "-t", "cat", "--out", "out", "--format", "coco")
    stopped = process("slow", *asked)
    wait_for(Path("out/run.jsonl"), 3)
    stopped.send_signal(signal.SIGTERM)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == 143
    assert errors.startswith("error: stopped; ")
    assert errors.endswith("the same command with --resume continues from there\n")
    assert not list(Path("out").rglob("*.partial"))
    assert run(*asked, "--resume").exit_code == 0
    assert len(COCO("out/coco/annotations.json").imgs) == 6


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
sys.path.insert(0, sys.argv.pop(1))
from conftest import FakePipeline
from promptseg.apps.cli.main import main
from promptseg.apps.cli.options import ModelOptions
ModelOptions.load = lambda options: FakePipeline()
main()
"""


@pytest.mark.parametrize("options", [(), ("--format", "cutout", "--format", "coco")])
@pytest.mark.parametrize("limit", [90, 700, 2000])
def test_where_files_cannot_grow_nothing_is_half_written(
    run, fake_pipeline, limit, options
) -> None:
    for i in range(4):
        path = Path(f"album/{i}.png")
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    asked = ("segment", "album", "-t", "cat", "--out", "out", *options)
    command = [sys.executable, "-c", LIMITED, str(limit), str(SCRIPT.parent), *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "File too large" in done.stderr
    assert not list(Path("out").rglob("*.partial"))
    for path in Path("out").rglob("*.png"):
        Image.open(path).load()
    for path in Path("out").rglob("*.json"):
        json.loads(path.read_text())
    assert run(*asked, "--resume").exit_code == 0
    assert run(*asked[:5], "whole", *options).exit_code == 0
    left, whole = contents(Path("out")), contents(Path("whole"))
    for files in (left, whole):
        files.pop("run.jsonl")
        for name in [name for name in files if name.endswith("result.json")]:
            files[name] = files[name].replace(b"out/", b"whole/")
    assert left == whole


@pytest.mark.parametrize("out", ["/proc/promptseg", "x" * 300, "a.png/out"])
def test_an_out_that_cannot_be_made_is_told_on_one_line(run, fake_pipeline, out: str) -> None:
    picture(Path("a.png"))
    done = run("segment", "a.png", "-t", "cat", "--out", out)
    assert_refused(done, "--out: ", "cannot be made", "give another")
    assert fake_pipeline.queries == []


def test_labels_lie_where_readers_of_yolo_look(run, fake_pipeline) -> None:
    for name in ("set/images/a.jpg", "set/images/train/b.jpg", "set/val/images/a.jpg", "set/c.jpg"):
        picture(Path(name))
    done = run("segment", "set", "-t", "cat", "--format", "yolo", "--out", "o")
    assert done.exit_code == 0, done.output
    for image in Path("set").rglob("*.jpg"):
        # The photographs in their place; the usual rule then names the labels.
        copied = str(Path("/o/yolo") / image.relative_to("set"))
        before, found, after = copied.rpartition("/images/")
        labels = f"{before}/labels/{after}" if found else copied.replace("yolo/", "yolo/labels/")
        assert Path(f"o/yolo{labels.removeprefix('/o/yolo')}").with_suffix(".txt").is_file(), image
    picture(Path("two/a.jpg"))
    picture(Path("two/images/a.jpg"))
    assert_refused(run("segment", "two", "-t", "cat", "--format", "yolo"), "the same files")


def test_further_pages_and_frames_are_told(run, fake_pipeline) -> None:
    pages = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(3)]
    Path("album").mkdir()
    pages[0].save("album/a.tiff", save_all=True, append_images=pages[1:])
    pages[0].save("album/b.gif", save_all=True, append_images=pages[1:2])
    pages[0].save("album/c.png")
    done = run("segment", "album", "-t", "cat", "--out", "out")
    assert done.exit_code == 0, done.output
    assert "a.tiff: 2 further pages are left out; --frames segments all" in done.stdout
    assert "b.gif: 1 further frame is left out; --frames segments all" in done.stdout
    assert "c.png: " not in done.stdout.replace("album/c.png: ", "")
    done = run("segment", "album/a.tiff", "-t", "cat", "--json")
    assert "2 further pages are left out" in done.stderr
    shutil.rmtree("out")
    Path("album/a.tiff").unlink()
    Path("album/b.gif").unlink()
    done = run("segment", "album", "-t", "cat", "--out", "out")
    assert "1 image: 1 with masks, 0 with nothing found, 0 failed" in done.stdout


def test_an_empty_path_is_not_the_current_folder(run, fake_pipeline) -> None:
    picture(Path("a.png"))
    for given in ("", " "):
        assert_refused(run("segment", given, "-t", "cat"), "path is empty")
