"""Odd and bad input through the whole pocket pipeline and the command line.

Odd images must give exactly what their plain twin gives; bad input must give one line on stderr,
exit code 2 and no files.
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
    on_disk = {path.name for path in Path("out").iterdir()}
    assert on_disk == {"result.json", names["overlay"], *names["masks"]}


def assert_same_as(segment, odd: Path, plain: Path) -> None:
    """Both give the same masks, and at least one."""
    assert_answered(segment(odd, "-t", "cat"))
    first = record()
    assert_answered(segment(plain, "-t", "cat"))
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


def test_grey_is_three_equal_channels(segment, cat) -> None:
    grey = Image.fromarray(cat).convert("L")
    assert_same_as(segment, write("grey.png", grey), write("plain.png", grey.convert("RGB")))


def test_opaque_rgba_is_rgb(segment, cat) -> None:
    rgba = np.dstack([cat, np.full(cat.shape[:2], 255, np.uint8)])
    assert_same_as(segment, write("rgba.png", rgba), write("plain.png", cat))


def test_16_bit_grey_is_8_bit_grey(segment, cat) -> None:
    grey = np.asarray(Image.fromarray(cat).convert("L"))
    deep = grey.astype(np.uint16) * 257
    assert_same_as(segment, write("deep.png", deep), write("plain.png", grey))


def test_exif_rotated_is_upright(segment, cat) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned left; shown after a quarter turn to the right
    turned = write("turned.png", np.ascontiguousarray(np.rot90(cat)), exif=exif)
    assert_same_as(segment, turned, write("plain.png", cat))


def test_animated_gif_is_its_first_frame(segment, cat) -> None:
    first = Image.fromarray(cat).quantize(255)
    frames = [Image.new("L", first.size, shade) for shade in (0, 255)]
    path = write("moving.gif", first, save_all=True, append_images=frames)
    assert_same_as(segment, path, write("plain.png", first.convert("RGB")))


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
