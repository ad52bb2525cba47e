"""HEIC is read with pillow-heif, and without it a line names what to install."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pillow_heif import from_pillow
from skimage import data

from promptseg.models.errors import InputError
from promptseg.pipeline import images
from promptseg.pipeline.images import load_image, load_mask


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A cat as a HEIC file."""
    path = tmp_path / "cat.heic"
    from_pillow(Image.fromarray(data.chelsea())).save(path, quality=95)
    return path


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing finds pillow-heif."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        images, "find_spec", lambda name: None if name == "pillow_heif" else find(name)
    )


def test_a_photograph_is_read_from_a_path_bytes_and_a_stream(photo) -> None:
    pixels = load_image(photo)
    assert pixels.shape == data.chelsea().shape
    assert np.abs(pixels.astype(int) - data.chelsea()).mean() < 5
    np.testing.assert_array_equal(load_image(photo.read_bytes()), pixels)
    np.testing.assert_array_equal(load_image(io.BytesIO(photo.read_bytes())), pixels)


def test_pillow_itself_which_the_process_shares_is_not_changed(photo) -> None:
    code = (
        "import sys; from PIL import Image; from promptseg.pipeline.images import load_image; "
        "load_image(sys.argv[1]); sys.exit('HEIF' in Image.OPEN)"
    )
    subprocess.run([sys.executable, "-c", code, str(photo)], check=True, timeout=120)


def test_the_frames_of_a_file(tmp_path) -> None:
    colours = [(200, 0, 0), (0, 200, 0)]
    file = from_pillow(Image.new("RGB", (64, 48), colours[0]))
    file.add_from_pillow(Image.new("RGB", (64, 48), colours[1]))
    file.save(tmp_path / "two.heic", quality=95)
    for i, colour in enumerate(colours):
        pixels = load_image(tmp_path / "two.heic", frame=i)
        np.testing.assert_allclose(pixels[20, 20], colour, atol=6)
    with pytest.raises(InputError, match="no frame 2: there are 2, from 0"):
        load_image(tmp_path / "two.heic", frame=2)


def test_a_mask_is_lossy(tmp_path) -> None:
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:50] = True
    from_pillow(Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB")).save(
        tmp_path / "mask.heic", quality=50
    )
    found = load_mask(tmp_path / "mask.heic")
    assert (found & mask).sum() / (found | mask).sum() > 0.95


def test_what_is_damaged_is_told(photo) -> None:
    content = photo.read_bytes()
    photo.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cat\.heic' is damaged or truncated"):
        load_image(photo)
    photo.write_bytes(content[:40])
    with pytest.raises(InputError, match=r"cat\.heic' is damaged or truncated"):
        load_image(photo)


def test_too_many_pixels_are_refused_before_they_are_decoded(photo, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match="pixels; scale it down first"):
        load_image(photo)


def test_without_the_package_a_line_names_it(photo, without) -> None:
    for source, name in ((photo, repr(str(photo))), (photo.read_bytes(), "the image")):
        with pytest.raises(InputError) as caught:
            load_image(source)
        assert str(caught.value) == (
            f"{name} is HEIC, which needs pillow-heif; run: pip install 'promptseg[heic]'"
        )
    photo.write_bytes(b"no picture at all")
    with pytest.raises(InputError, match="is not an image that can be read"):
        load_image(photo)
