"""TIFFs read in windows, beside what rasterio reads of the whole file."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from promptseg.models.errors import InputError
from promptseg.pipeline import raster
from promptseg.pipeline.images import load_image
from promptseg.pipeline.raster import Raster, is_raster

RUN = Path(__file__).with_name("raster_run.py")
BOX = (40, 30, 120, 90)


@pytest.fixture
def write(tmp_path: Path):
    """Write bands (B, H, W) as a tiled TIFF."""

    def make(bands: np.ndarray, **options) -> Path:
        colours = options.pop("colours", None)
        path = tmp_path / "scene.tif"
        profile = {
            "driver": "GTiff", "count": len(bands), "height": bands.shape[1],
            "width": bands.shape[2], "dtype": bands.dtype, "tiled": True, "blockxsize": 64,
            "blockysize": 64, **options,
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as target:
            target.write(bands)
            if colours:
                target.colorinterp = colours
        return path

    return make


def noise(count: int, top: int = 256, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, top, (count, 150, 200)).astype(dtype)


def window(bands: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = BOX
    return np.moveaxis(bands[:, y0:y1, x0:x1], 0, 2)


def test_a_window_of_8_bits_is_as_the_file_has_it(write) -> None:
    bands = noise(3)
    opened = Raster(write(bands))
    pixels, valid = opened.read(BOX)
    assert opened.size == (150, 200)
    assert valid is None
    np.testing.assert_array_equal(pixels, window(bands))
    np.testing.assert_array_equal(opened.pixels(), load_image(opened.path))


def test_colours_are_taken_by_their_names_and_on_demand(write) -> None:
    bands = noise(4)
    order = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    path = write(bands, colours=order)
    np.testing.assert_array_equal(Raster(path).read(BOX)[0], window(bands[[2, 1, 0]]))
    np.testing.assert_array_equal(
        Raster(path, bands=(4, 1, 2)).read(BOX)[0], window(bands[[3, 0, 1]])
    )
    grey = Raster(path, bands=[3]).read(BOX)[0]
    np.testing.assert_array_equal(grey, window(bands[[2, 2, 2]]))
    for wrong in ((1, 2), (0, 1, 2), (1, 2, 5)):
        with pytest.raises(InputError, match="bands must be one or three numbers from 1 to 4"):
            Raster(path, bands=wrong)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    picture = Image.fromarray(noise(1)[0] % 4).convert("P")
    picture.putpalette([9, 8, 7, 60, 50, 40, 255, 0, 0, 1, 2, 3])
    picture.save(tmp_path / "p.tif")
    expected = np.asarray(picture.convert("RGB"))[30:90, 40:120]
    np.testing.assert_array_equal(Raster(tmp_path / "p.tif").read(BOX)[0], expected)


def test_all_windows_are_stretched_alike(write) -> None:
    bands = noise(3, 3000, "uint16")
    bands[:, :75] //= 10  # the upper half is dark
    opened = Raster(write(bands))
    whole = opened.pixels()
    low, high = np.percentile(bands, (2, 98), axis=(1, 2))
    share = (bands - low[:, None, None]) / (high - low)[:, None, None]
    expected = np.moveaxis(np.clip(share, 0, 1) * 255, 0, 2)
    assert np.abs(whole - expected).max() <= 0.51
    x0, y0, x1, y1 = BOX
    np.testing.assert_array_equal(opened.read(BOX)[0], whole[y0:y1, x0:x1])
    assert whole[:60].mean() < 40 < whole[80:].mean()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_pixels_without_data_are_black_and_do_not_count(write, dtype: str) -> None:
    bands = noise(3, 200, dtype) + np.ones((), dtype)
    bands[:, 40:60, 50:70] = 0
    if dtype == "float32":
        bands[1, 35, 45] = np.nan
    pixels, valid = Raster(write(bands, nodata=0)).read(BOX)
    expected = np.ones((60, 80), bool)
    expected[10:30, 10:30] = False
    if dtype == "float32":
        expected[5, 5] = False
    np.testing.assert_array_equal(valid, expected)
    assert not pixels[~expected].any()
    assert pixels[expected].any(-1).mean() > 0.9


def test_an_alpha_band_says_where_there_is_data(write) -> None:
    bands = noise(4)
    bands[3] = 255
    bands[3, :, 100:] = 0
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    _, valid = Raster(write(bands, colours=colours)).read(BOX)
    np.testing.assert_array_equal(valid, np.broadcast_to(np.arange(40, 120) < 100, (60, 80)))


def test_the_overview_is_the_mean_of_what_it_stands_for(write) -> None:
    bands = noise(3)
    small, valid = Raster(write(bands)).overview(50)
    assert small.shape == (38, 50, 3)
    assert valid is None
    assert small.mean() == pytest.approx(bands.mean(), abs=1)
    assert small.std() < bands.std() / 2


def test_nothing_but_no_data_is_black(write) -> None:
    pixels, valid = Raster(write(np.zeros((1, 150, 200), "int16"), nodata=0)).read(BOX)
    assert not pixels.any()
    assert not valid.any()


def test_what_is_no_raster_is_refused(tmp_path: Path, write) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Raster(tmp_path / "missing.tif")
    (tmp_path / "text.tif").write_text("no picture")
    with pytest.raises(InputError, match="not a TIFF that can be read"):
        Raster(tmp_path / "text.tif")
    Image.new("RGB", (9, 9)).save(tmp_path / "jpeg.tif", "JPEG")
    with pytest.raises(InputError, match="not a TIFF that can be read"):
        Raster(tmp_path / "jpeg.tif")
    with pytest.raises(InputError, match="complex"):
        Raster(write(noise(1).astype("complex64")))


def test_more_pixels_than_a_mask_holds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    options = {"width": 70000, "height": 70000, "count": 1, "dtype": "uint8", "sparse_ok": True}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, bigtiff="yes", **options):
        pass
    with pytest.raises(InputError, match=r"70000 x 70000 pixels; at most 4\.3 billion"):
        Raster(path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_damaged_block_is_an_error_of_its_window(write, dtype: str) -> None:
    path = write(noise(3, dtype=dtype), compress="deflate", interleave="pixel")
    content = bytearray(path.read_bytes())
    with rasterio.open(path) as source:
        first = int(source.get_tag_item("BLOCK_OFFSET_0_1", "TIFF", bidx=1))
    content[first : first + 200] = bytes(200)
    path.write_bytes(bytes(content))
    damaged = Raster(path)
    with pytest.raises(InputError, match=r"scene\.tif' cannot be read at 0,64 to 64,128"):
        damaged.read((0, 64, 64, 128))
    assert damaged.read((0, 0, 64, 64))[0].any()
    assert damaged.read((64, 64, 200, 128))[0].any()
    small, valid = Raster(path).overview(50)
    assert small.any()
    assert valid is not None
    assert 0 < valid.mean() < 1


def test_without_rasterio_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, write) -> None:
    path = write(noise(3))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        raster, "find_spec", lambda name: None if name == "rasterio" else found(name)
    )
    with pytest.raises(InputError, match=r"need rasterio; run: pip install 'promptseg\[geo\]'"):
        Raster(path)


def test_paths_of_tiffs_are_known_by_their_endings() -> None:
    assert is_raster("a/b.TIF")
    assert is_raster(Path("scene.tiff"))
    assert not is_raster("photo.jpg")
    assert not is_raster(np.zeros((3, 3)))


def test_memory_grows_by_less_than_the_raster(tmp_path: Path) -> None:
    side = 6000
    path = tmp_path / "large.tif"
    options = {"width": side, "height": side, "count": 3, "dtype": "uint8", "compress": "deflate"}
    with rasterio.open(
        path, "w", driver="GTiff", tiled=True, blockxsize=512, blockysize=512, **options
    ) as target:
        for top in range(0, side, 1000):
            target.write(np.full((3, 1000, side), 128, np.uint8), window=Window(0, top, side, 1000))
        for x in range(200, side, 900):  # across seams
            target.write(
                np.full((1, 400, 300), 255, np.uint8), [1], window=Window(x, 300, 300, 400)
            )
            target.write(np.zeros((2, 400, 300), np.uint8), [2, 3], window=Window(x, 300, 300, 400))
    done = subprocess.run(
        [sys.executable, str(RUN), str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    masks, area, before, after = map(int, done.stdout.split())
    assert (masks, area) == (7, 7 * 300 * 400)
    assert after - before < 1.5 * side * side  # half of the raster's own bytes
