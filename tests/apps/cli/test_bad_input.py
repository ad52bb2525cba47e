"""Odd and bad input through the whole pocket pipeline and the command line.

Odd images must be answered; bad input must give one line on stderr, exit code 2 and no files. That
odd modes are read as their plain twins is tested where images are read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    """A photograph of a cat at half size, (150, 225, 3)."""
    return np.asarray(Image.fromarray(data.chelsea()).resize((225, 150)))


@pytest.fixture
def segment(run, pocket, loads):
    """Run `promptseg segment ... --out out` with the pocket pipeline loaded once."""
    loads(pocket)

    def invoke(*arguments: object):
        return run("segment", *arguments, "--out", "out")

    return invoke


def record() -> dict[str, Any]:
    """What was written, less what differs between runs."""
    told = json.loads(Path("out/result.json").read_text())
    del told["image"]
    return told


def assert_refused(done, says: str) -> None:
    assert done.exit_code == 2, done.output
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
    assert not Path("out").exists()


def assert_answered(done) -> None:
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    names = json.loads(Path("out/result.json").read_text())["files"]
    on_disk = {path.name for path in Path("out").iterdir() if path.name[0] != "."}
    assert on_disk == {"result.json", names["overlay"], *names["masks"]}


def assert_same_as(segment, odd: Path, plain: Path) -> None:
    """Both give the same masks, and at least one."""
    assert_answered(segment(odd, "-t", "cat"))
    first = record()
    assert_answered(segment(plain, "-t", "cat", "--overwrite"))
    assert first == record()
    assert first["masks"]


def write(path: str, pixels: np.ndarray | Image.Image, **options: Any) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return Path(path)


def test_text_file_named_jpg(segment) -> None:
    Path("notes.jpg").write_text("dear diary\n")
    assert_refused(segment("notes.jpg", "-t", "cat"), "'notes.jpg' is not an image")


def test_truncated_jpeg(segment, cat) -> None:
    path = write("cut.jpg", cat)
    path.write_bytes(path.read_bytes()[:3000])
    assert_refused(segment(path, "-t", "cat"), "'cut.jpg' is damaged or truncated")


def test_one_pixel(segment) -> None:
    done = segment(write("dot.png", np.full((1, 1, 3), 90, np.uint8)), "-t", "cat")
    assert_answered(done)
    assert record()["image_size"] == [1, 1]


def test_one_pixel_by_click(segment) -> None:
    done = segment(write("dot.png", np.full((1, 1, 3), 90, np.uint8)), "--point", "0,0")
    assert_answered(done)


def test_one_pixel_high(segment, cat) -> None:
    assert_answered(segment(write("line.png", cat[:1]), "-t", "cat"))
    assert record()["image_size"] == [1, 225]


def test_exif_rotated_is_upright(segment, cat) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned left; shown after a quarter turn to the right
    turned = write("turned.png", np.ascontiguousarray(np.rot90(cat)), exif=exif)
    assert_same_as(segment, turned, write("plain.png", cat))


def test_10_000_pixels_wide(segment, cat) -> None:
    wide = Image.fromarray(cat).resize((10_000, 1_000))
    done = segment(write("wide.jpg", wide), "--box", "3000,100,7000,900")
    assert_answered(done)
    told = record()
    assert told["image_size"] == [1_000, 10_000]
    for name in told["files"]["masks"]:
        with Image.open(Path("out") / name) as mask:
            assert mask.size == (10_000, 1_000)


def test_10_000_characters(segment, cat) -> None:
    done = segment(write("cat.png", cat), "-t", "a very long story about " * 417)
    if done.exit_code == 0:
        assert_answered(done)
        assert max(len(line) for line in done.stdout.splitlines()) < 300
    else:
        assert_refused(done, "long")


@pytest.mark.parametrize("text", ["猫", "кошка", "🐈", "[red]", "a\tb", "../../x", "%s{}"])
def test_any_script_and_sign(segment, cat, text: str) -> None:
    assert_answered(segment(write("cat.png", cat), "-t", text))


def test_box_outside_the_image(segment, cat) -> None:
    done = segment(write("cat.png", cat), "--box", "1000,1000,1200,1100")
    assert_refused(done, "outside the image")


def test_point_outside_the_image(segment, cat) -> None:
    done = segment(write("cat.png", cat), "--point", "1000,20")
    assert_refused(done, "outside the image")


def test_box_partly_outside_is_answered(segment, cat) -> None:
    assert_answered(segment(write("cat.png", cat), "--box=-50,-50,120,500"))
    assert record()["masks"]


def test_unknown_preset(run, cat) -> None:
    done = run("segment", write("cat.png", cat), "-t", "cat", "--preset", "huge", "--out", "out")
    assert_refused(done, "huge")
    assert "pocket" in done.stderr
