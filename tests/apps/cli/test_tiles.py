"""`--tiles`: rasters read in windows, and what their formats need."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from promptseg.pipeline import raster
from promptseg.pipeline.raster import Raster
from promptseg.pipeline.unseen import UnseenTile

from .conftest import FakePipeline

SIZE = (60, 90)


class Tiling(FakePipeline):
    """Reads a raster whole, and tells of the tiles that it was to use."""

    asked: list[object]
    unseen: tuple[UnseenTile, ...] = ()

    def propose(self, image, query, *, tiles=None, progress=None):
        self.asked = [*getattr(self, "asked", []), tiles, isinstance(image, Raster)]
        if progress is not None:
            progress(1, 1)
        pixels = image.pixels() if isinstance(image, Raster) else image
        return replace(super().propose(pixels, query), unseen=self.unseen)


@pytest.fixture
def tiling(loads) -> Tiling:
    pipeline = Tiling()
    loads(pipeline)
    return pipeline


@pytest.fixture
def scene(run) -> Path:
    options = {"width": SIZE[1], "height": SIZE[0], "count": 3, "dtype": "uint8"}
    place = from_origin(500_000, 5_400_000, 2, 2)
    with rasterio.open("scene.tif", "w", crs="EPSG:32633", transform=place, **options) as target:
        target.write(np.full((3, *SIZE), 90, np.uint8))
    return Path("scene.tif")


def test_a_geotiff_becomes_geotiff_geojson_and_geopackage(tiling, scene, run) -> None:
    formats = ("--format", "geotiff", "--format", "geojson", "--format", "gpkg")
    done = run("segment", "scene.tif", "-t", "cat", "--tiles", "64x128", *formats, "--out", "out")
    assert done.exit_code == 0, done.output
    assert tiling.asked == [(64, 128), True]
    with rasterio.open("out/geotiff/scene.tif") as written, rasterio.open("scene.tif") as source:
        assert (written.crs, written.transform) == (source.crs, source.transform)
        expected = np.zeros(SIZE, np.uint16)
        expected[:, : SIZE[1] // 2] = 1
        np.testing.assert_array_equal(written.read(1), expected)
    features = json.loads(Path("out/geojson/scene.geojson").read_text())["features"]
    assert [item["properties"]["phrase"] for item in features] == ["cat"]
    assert Path("out/gpkg/scene.gpkg").is_file()


def test_a_raster_has_an_overlay_and_masks_as_any_image(tiling, scene, run) -> None:
    done = run("segment", "scene.tif", "-t", "cat", "--tiles", "auto", "--out", "out")
    assert done.exit_code == 0, done.output
    assert tiling.asked == ["auto", True]
    with Image.open("out/overlay.png") as overlay:
        assert overlay.size == SIZE[::-1]
    assert "unseen" not in json.loads(Path("out/result.json").read_text())


def test_tiles_that_failed_are_reported_and_tried_again(tiling, scene, run) -> None:
    tiling.unseen = tuple(UnseenTile((i, 0, i + 9, 9), "damaged") for i in range(3))
    words = ("segment", "scene.tif", "-t", "cat", "--tiles", "64", "--out", "out", "--resume")
    done = run(*words)
    assert done.exit_code == 1
    assert (
        "error: 'scene.tif': 3 tiles could not be looked at: 0,0,9,9, and 2 more (damaged)"
        in done.output
    )
    unseen = json.loads(Path("out/result.json").read_text())["unseen"]
    assert unseen[2] == {"box_xyxy": [2, 0, 11, 9], "reason": "damaged"}
    tiling.unseen = ()
    assert run(*words).exit_code == 0
    assert len(tiling.asked) == 4
    assert run(*words).exit_code == 0
    assert len(tiling.asked) == 4


def test_a_raster_too_large_to_draw_is_refused_before_it_is_segmented(
    tiling, scene, run, monkeypatch
) -> None:
    monkeypatch.setattr(raster, "MOST_IN_MEMORY", 1000)
    done = run("segment", "scene.tif", "-t", "cat", "--tiles", "64", "--out", "out")
    assert done.exit_code == 2
    assert "90 x 60 pixels, too many for an overlay and PNGs; give --format geotiff" in done.output
    done = run("segment", "scene.tif", "-t", "cat", "--tiles", "64", "--format", "cutout")
    assert done.exit_code == 2
    assert "too many for cutout" in done.output
    assert not hasattr(tiling, "asked")
    done = run("segment", "scene.tif", "-t", "cat", "--tiles", "64", "--format", "coco")
    assert done.exit_code == 0, done.output


def test_a_photograph_has_no_geojson(tiling, scene, run) -> None:
    Image.new("RGB", (9, 9)).save("photo.jpg")
    done = run("segment", "photo.jpg", "-t", "cat", "--format", "geojson", "--out", "out")
    assert done.exit_code == 2
    assert "photo.jpg' is not a TIFF, so it cannot say where its pixels lie" in done.output


@pytest.mark.parametrize("words", [("--format", "gpkg"), ("--tiles", "auto")])
def test_without_the_extra_its_command_is_told(scene, run, words, monkeypatch) -> None:
    found = importlib.util.find_spec
    missing = {"rasterio": None, "pyogrio": None}
    monkeypatch.setattr(raster, "find_spec", lambda name: missing.get(name, found(name)))
    done = run("segment", "scene.tif", "-t", "cat", *words)
    assert done.exit_code == 2
    assert "run: pip install 'promptseg[geo]'" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("small", "'small' is not auto, a side such as 1024, or HxW in pixels"),
        ("12", "from 64 to 4096 pixels, not 12 x 12"),
        ("64x9999", "from 64 to 4096 pixels, not 64 x 9999"),
        ("64,64", "'64,64' is not auto"),
    ],
)
@pytest.mark.parametrize("command", [("segment", "-t", "cat"), ("everything",)])
def test_other_tiles_are_refused(scene, run, command, value, says) -> None:
    done = run(*command, "scene.tif", "--tiles", value)
    assert done.exit_code == 2
    assert says in " ".join(done.output.split())


def test_pages_of_a_raster_are_not_told_of(tiling, scene, run) -> None:
    with rasterio.open("scene.tif", "r+") as target:
        target.build_overviews([2, 4])
    done = run("segment", "scene.tif", "-t", "cat", "--tiles", "64", "--out", "out")
    assert done.exit_code == 0
    assert "left out" not in done.output


def test_rasters_that_a_run_wrote_are_not_taken_for_images(tiling, scene, run) -> None:
    words = ("segment", ".", "-t", "cat", "--tiles", "64")
    assert run(*words, "--format", "geotiff", "--out", "masks").exit_code == 0
    assert Path("masks/geotiff/scene.tif").is_file()
    done = run(*words, "--format", "coco", "--out", "other")
    assert done.exit_code == 0
    assert "1 image: 1 with masks" in done.output
