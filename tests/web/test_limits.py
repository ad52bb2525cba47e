"""The app's limits: the page's are those of its endpoints, and nothing is decoded to find out."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from promptseg.apps.web import actions, api
from promptseg.apps.web.actions import Draft, in_plain_text, plainly
from promptseg.apps.web.engine import Engine, read_painted
from promptseg.apps.web.folder import bound, own_folder, sweep, swept
from promptseg.apps.web.request import Click, Example, MarkHistory, Request, Setup, read_label
from promptseg.models.errors import InputError

# The file of the report: 178 million pixels in a few hundred kilobytes.
BOMB = (13370, 13370)


def header_only(path: Path, size: tuple[int, int]) -> Path:
    """A PNG that ends after its header, so that decoding it fails with other words."""
    header = struct.pack(">IIBBBBB", *size, 8, 6, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    path.write_bytes(data + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 1) + b"IDAT")
    return path


def engine(max_pixels: int = 10_000) -> Engine:
    return Engine(max_pixels, lambda preset, *, device: pytest.fail("a model was loaded"))


def ask(path: Path, **changes: Any) -> Request:
    return Request(Setup(), path, **changes)


MANY = MarkHistory(tuple(Click((1.0, 1.0), 1) for _ in range(101)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phrases": tuple(map(str, range(51)))}, "51 phrases are too many; give at most 50"),
        ({"phrases": ("it",), "negatives": tuple(map(str, range(51)))}, "51 negatives are too"),
        ({"phrases": ("x" * 201,)}, "a phrase has 201 characters; give at most 200"),
        ({"marks": MANY}, "101 points and boxes are too many; give at most 100"),
        ({"example": Example(Path("a.png"), marks=MANY)}, "101 points and boxes"),
        ({"example": Example(Path("a.png"), label="x" * 201)}, "the label has 201 characters"),
        ({"everything": True, "points_per_side": 65}, "points_per_side must be between 1 and 64"),
    ],
)
def test_a_query_is_refused_before_anything_is_read(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        engine().answer(ask(Path("gone.png"), **changes))


def test_the_page_takes_as_many_marks_as_the_endpoints() -> None:
    event = SimpleNamespace(_data={"point": [1, 1], "label": 1})
    with pytest.raises(InputError, match="100 marks"):
        actions.add_mark(MarkHistory(MANY.steps[:100]), event)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[1, 1]] * 50_000, "50000 points are too many; give at most 100"),
        ("[" * 1000, "points is not JSON"),
        ("[" * 5001, "points has 5001 characters"),
        ({"x": 1}, "points must be a list"),
    ],
)
def test_marks_are_counted_before_they_are_read(value: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        api.read_marks(value, None, None)


def test_a_box_with_swapped_corners_is_refused_in_plain_words() -> None:
    with pytest.raises(InputError, match="its corners in the wrong order; give x0 <= x1, y0 <= y1"):
        api.read_marks(None, None, [[30, 40, 10, 20]])


def test_texts_have_an_end() -> None:
    with pytest.raises(InputError, match="the text has 5001 characters"):
        actions.text_request(Setup(), "a.png", "x" * 5001, None)
    with pytest.raises(InputError, match="the label has 201 characters"):
        read_label("x" * 201)
    with pytest.raises(InputError, match="17 pictures are too many"):
        actions.reference_requests(
            Setup(), None, "a.png", Draft(), None, None, [f"{i}.png" for i in range(17)]
        )


def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path) -> None:
    bomb = header_only(tmp_path / "bomb.png", BOMB)
    large = header_only(tmp_path / "large.png", (9000, 9000))
    words = "'large.png' has 9000 x 9000 pixels, more than the 50 megapixels"
    for path, told in ((large, words), (bomb, "'bomb.png' has ")):
        for read in (engine().read, engine().read_mask):
            with pytest.raises(InputError, match=told) as caught:
                read(path)
            assert "damaged" not in str(caught.value)
            assert str(tmp_path) not in str(caught.value)
    painting = header_only(tmp_path / "painting.png", (3000, 3000)).read_bytes()
    with pytest.raises(InputError, match="'the painting' has 3000 x 3000 pixels"):
        read_painted(painting, (10, 10))


def test_all_files_of_an_endpoint_are_measured(tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    Image.new("L", (90, 90), 255).save(small)
    large = header_only(tmp_path / "large.png", (101, 100))
    answerer = api._Answerer(engine(), None)
    for request in (
        ask(large, phrases=("it",)),
        ask(small, example=Example(large, MarkHistory().add_click((1, 1), 1))),
        ask(small, example=Example(small, mask=large)),
    ):
        with pytest.raises(InputError, match=r"'large.png' has 101 x 100 pixels, more than"):
            answerer(request, 0, 0, "")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_a_reduced_picture_looks_like_the_whole(tmp_path: Path, mode: str, kind: str) -> None:
    rows, columns = np.mgrid[0:300, 0:400]
    grey = ((rows + columns) * 255 / 700).astype(np.uint8)
    image = Image.fromarray(grey)
    if mode in ("I;16", "F"):
        kind_of = np.uint16 if mode == "I;16" else np.float32
        image = Image.fromarray(grey.astype(kind_of) * kind_of(200))
    elif mode == "P":
        image = image.convert("RGB").quantize(64)
    elif mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(np.where(rows < 150, 255, 0).astype(np.uint8)))
    else:
        image = image.convert(mode)
    path = tmp_path / f"picture.{kind.lower()}"
    try:
        image.save(path, kind)
    except (OSError, KeyError):
        return  # that format has no such mode
    reduced = engine(3000).read(path)
    assert reduced.shape == (47, 63, 3)
    whole = Image.fromarray(engine(10**6).read(path)).resize((63, 47), Image.Resampling.LANCZOS)
    # One bit of grey is dithered; the others differ by how pixels are averaged.
    limit = 40 if mode == "1" else 4
    assert np.abs(reduced.astype(int) - np.asarray(whole)).mean() < limit


def test_a_reduced_picture_is_upright_and_a_mask_stays_sharp(tmp_path: Path) -> None:
    image = Image.new("RGB", (400, 300), "white")
    image.paste("black", (0, 0, 200, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    for name in ("turned.jpg", "turned.tif", "turned.png"):
        image.save(tmp_path / name, exif=exif)
        pixels = engine(3000).read(tmp_path / name)
        assert pixels.shape in ((63, 47, 3), (62, 47, 3)), name
        assert pixels[:25].max() < 50, name
        assert pixels[-25:].min() > 200, name
    image.save(tmp_path / "mask.jpg", quality=30)
    mask = engine(3000).read_mask(tmp_path / "mask.jpg")
    assert 0.45 < mask.mean() < 0.55


def test_several_large_pictures_at_once_need_the_memory_of_one(tmp_path: Path) -> None:
    Image.new("RGBA", (4000, 4000), (9, 9, 9, 200)).save(tmp_path / "a.png", compress_level=1)
    script = """
import re, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from promptseg.apps.web.engine import Engine

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

path, engine = Path(sys.argv[1]), Engine(100_000)
before = peak()
with ThreadPoolExecutor(4) as users:
    assert {pixels.shape for pixels in users.map(engine.read, [path] * 4)} == {(316, 316, 3)}
print(peak() - before)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    # 64 MB as RGBA, a few times over; four at once used to take 1.8 GB.
    assert int(done.stdout) / 1024 < 500


def test_messages_are_escaped_for_the_page_and_plain_for_programs() -> None:
    def fail() -> None:
        raise InputError("'<img src=x onerror=alert(1)>.png' is not an image & so on")

    with pytest.raises(gr.Error) as caught:
        plainly(fail)()
    assert caught.value.message == (
        "'&lt;img src=x onerror=alert(1)&gt;.png' is not an image &amp; so on"
    )
    with pytest.raises(gr.Error) as caught:
        in_plain_text(fail)()
    assert caught.value.message == "'<img src=x onerror=alert(1)>.png' is not an image & so on"


def test_old_files_are_swept_and_kept_ones_are_not() -> None:
    with own_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        for name in ("old/a.png", "old/b/c.png", "kept/d.png", "new/e.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        kept = frozenset([str(folder / "kept/d.png")])
        sweep(folder, kept, 3600)
        assert len(list(folder.rglob("*.png"))) == 4
        time.sleep(0.3)
        (folder / "new/e.png").touch()
        sweep(folder, kept, 0.2)
        left = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        assert left == {".lock", "kept", "kept/d.png", "new", "new/e.png"}
    assert not folder.exists()


def test_all_files_together_have_a_limit_and_the_oldest_go_first() -> None:
    with own_folder() as folder:
        for age, name in enumerate(("new", "old", "kept", "oldest")):
            path = folder / name / "a.png"
            path.parent.mkdir()
            path.write_bytes(bytes(1000))
            os.utime(path, (1000 - age, 1000 - age))
        kept = frozenset([str(folder / "kept/a.png")])
        left = lambda: {path.parent.name for path in folder.rglob("*.png")}  # noqa: E731
        bound(folder, kept, 4000)
        assert left() == {"new", "old", "kept", "oldest"}
        bound(folder, kept, 2999)
        assert left() == {"new", "kept"}
        bound(folder, kept, 0)
        assert left() == {"kept"}
        (folder / "new/b.png").write_bytes(bytes(1000))
        with swept(folder, kept, 0.01, 3600, 1500):
            until = time.monotonic() + 30
            while left() != {"kept"} and time.monotonic() < until:
                time.sleep(0.01)
        assert left() == {"kept"}
        assert (folder / ".lock").exists()


def test_what_a_killed_app_left_is_removed_and_a_running_ones_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "promptseg-app-left"
    (left / "upload").mkdir(parents=True)
    (left / ".lock").touch()
    foreign = tmp_path / "promptseg-app-foreign"  # not an app's: it has no lock
    foreign.mkdir()
    with own_folder() as one, own_folder() as other:
        assert not left.exists()
        assert foreign.exists()
        assert one.exists()
        assert other.exists()


def test_a_painting_of_the_stages_size_is_read() -> None:
    data = io.BytesIO()
    Image.new("RGBA", (1280, 1280), (230, 159, 0, 255)).save(data, "PNG")
    assert read_painted(data.getvalue(), (20, 30)).all()
