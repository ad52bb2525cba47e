"""Masks of georeferenced rasters, read back by rasterio, pyogrio and shapely."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from rasterio.features import rasterize
from rasterio.warp import transform

from promptseg.apps.exports import GEO_FORMATS
from promptseg.apps.exports.geo import outline
from promptseg.apps.exports.run import Exports, write_zip
from promptseg.models.errors import InputError
from promptseg.pipeline.compact_mask import CompactMask
from promptseg.pipeline.result import Result

SIZE = (120, 170)
# Turned, as drone pictures are, and in metres of UTM zone 33 north.
PLACE = Affine(0.3, 0.1, 500_000, 0.1, -0.3, 5_400_000)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    options = {"width": SIZE[1], "height": SIZE[0], "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=PLACE, **options) as target:
        target.write(np.ones((1, *SIZE), np.uint8))
    return path


def ring_and_specks() -> np.ndarray:
    """A ring, and specks that touch at their corners alone."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    far = np.hypot(y - 50, x - 60)
    mask = (far < 30) & (far > 12)
    mask[100, 100] = mask[101, 101] = mask[60, 60] = True
    return mask


def answer(*masks: np.ndarray) -> Result:
    scores = np.linspace(0.9, 0.5, len(masks))
    names = ["cat", "red car", "cat"][: len(masks)]
    stack = np.array(masks, bool).reshape(-1, *SIZE)
    return Result.of(stack, names, scores, scores, scores, scores)


def three() -> Result:
    second, third = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    second[90:110, 120:170] = True
    third[5:15, 3:9] = True
    return answer(ring_and_specks(), second, third)


def export(name: str, scene: Path, result: Result, **options) -> tuple[Path, list[str]]:
    folder = scene.parent / "out"
    with Exports([name], folder, [scene], labels=["red car", "cat"], **options) as exports:
        exports.check(scene)
        notes = exports.add(scene, None, result)
        assert exports.has(scene)
    (path,) = (folder / name).glob("scene.*")
    return path, notes


def test_a_geotiff_has_the_source_s_place_and_every_pixel(scene: Path) -> None:
    result = three()
    path, notes = export("geotiff", scene, result)
    assert notes == []
    with rasterio.open(path) as written, rasterio.open(scene) as source:
        assert (written.crs, written.transform) == (source.crs, source.transform)
        assert (written.shape, written.nodata) == (source.shape, 0)
        assert written.descriptions == ("mask", "class")
        tags = written.tags()
        numbers, classes = written.read()
    for i, mask in enumerate(result.masks, 1):
        np.testing.assert_array_equal(numbers == i, mask)
    assert {tags["CLASS_1"], tags["CLASS_2"]} == {"red car", "cat"}
    assert tags["SCORE_2"] == "0.7000"
    assert set(classes[numbers == 2]) == {1}
    assert set(classes[numbers == 1]) == set(classes[numbers == 3]) == {2}


def test_in_a_geotiff_the_better_mask_is_on_top(scene: Path) -> None:
    first, second = np.zeros((2, *SIZE), bool)
    first[10:30, 10:30] = second[20:50, 20:50] = True
    path, notes = export("geotiff", scene, answer(first, second))
    with rasterio.open(path) as written:
        numbers = written.read(1)
    np.testing.assert_array_equal(numbers == 1, first)
    np.testing.assert_array_equal(numbers == 2, second & ~first)
    assert notes == ["geotiff: 100 pixels of masks under a better one"]


def test_a_geotiff_larger_than_a_block_is_written_in_strips(tmp_path: Path) -> None:
    size = (1100, 700)
    scene = tmp_path / "scene.tif"
    with rasterio.open(
        scene, "w", crs="EPSG:3857", transform=PLACE, width=700, height=1100, count=1, dtype="uint8"
    ):
        pass
    mask = np.zeros(size, bool)
    mask[400:1090, 100:650] = True
    path, _ = export("geotiff", scene, Result.of(mask[None], ["cat"], [1], [1], [1], [1]))
    with rasterio.open(path) as written:
        np.testing.assert_array_equal(written.read(1) == 1, mask)


def test_a_geopackage_has_multipolygons_in_the_source_s_coordinates(scene: Path) -> None:
    result = three()
    path, _ = export("gpkg", scene, result)
    info, _, shapes, fields = pyogrio.raw.read(path)
    assert pyogrio.read_info(path)["crs"] == "EPSG:32633"
    columns = dict(zip(info["fields"].tolist(), fields, strict=True))
    assert columns["phrase"].tolist() == ["cat", "red car", "cat"]
    assert columns["source"].tolist() == ["scene.tif"] * 3
    assert columns["number"].tolist() == [1, 2, 3]
    assert columns["score"] == pytest.approx([0.9, 0.7, 0.5])
    assert columns["pixels"].tolist() == [int(mask.sum()) for mask in result.masks]
    for shape, mask in zip(shapes, result.masks, strict=True):
        polygons = shapely.from_wkb(shape)
        assert polygons.is_valid
        assert polygons.area == pytest.approx(mask.sum() * abs(PLACE.determinant))
        np.testing.assert_array_equal(rasterize([polygons], SIZE, transform=PLACE) > 0, mask)


def test_geojson_is_in_longitude_and_latitude(scene: Path) -> None:
    path, _ = export("geojson", scene, three())
    document = json.loads(path.read_text())
    assert document["type"] == "FeatureCollection"
    assert "crs" not in document
    feature = document["features"][1]
    assert feature["properties"]["phrase"] == "red car"
    ring = np.array(feature["geometry"]["coordinates"][0][0])
    corners = np.array([(120, 90), (170, 90), (170, 110), (120, 110)])
    x = PLACE.a * corners[:, 0] + PLACE.b * corners[:, 1] + PLACE.c
    y = PLACE.d * corners[:, 0] + PLACE.e * corners[:, 1] + PLACE.f
    expected = np.stack(transform("EPSG:32633", "OGC:CRS84", x, y)[:2], 1)
    away = np.abs(ring[:, None] - expected[None]).max(-1)
    assert (away.min(0) < 2e-7).all()
    assert (away.min(1) < 2e-7).all()


def test_outlines_of_strips_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = CompactMask.of(ring_and_specks())
    whole = outline(mask)
    monkeypatch.setattr("promptseg.apps.exports.geo._STRIP_PIXELS", 400)
    strips = outline(mask)
    assert strips.equals(whole)
    assert shapely.get_num_coordinates(strips) == shapely.get_num_coordinates(whole)


def test_outlines_are_simplified_within_their_tolerance(scene: Path) -> None:
    exact, simple = outline(CompactMask.of(ring_and_specks())), None
    path, _ = export("gpkg", scene, three(), simplify=2.0)
    simple = shapely.from_wkb(pyogrio.raw.read(path)[2][0])
    assert shapely.get_num_coordinates(simple) < shapely.get_num_coordinates(exact) / 2
    assert simple.is_valid


@pytest.mark.parametrize("name", GEO_FORMATS)
def test_nothing_found_is_an_answer(scene: Path, name: str) -> None:
    path, notes = export(name, scene, answer())
    assert notes == []
    if name == "geotiff":
        with rasterio.open(path) as written:
            assert not written.read().any()
    else:
        assert pyogrio.read_info(path)["features"] == 0


def test_empty_masks_are_left_out_of_vectors(scene: Path) -> None:
    path, notes = export("gpkg", scene, answer(ring_and_specks(), np.zeros(SIZE, bool)))
    assert pyogrio.read_info(path)["features"] == 1
    assert notes == ["gpkg: 1 empty mask left out"]


@pytest.mark.parametrize("name", GEO_FORMATS)
def test_images_without_a_place_are_refused(tmp_path: Path, name: str) -> None:
    exporter_folder = tmp_path / "out"
    (tmp_path / "a.jpg").write_bytes(b"x")
    with (
        Exports([name], exporter_folder, [tmp_path / "a.jpg"]) as exports,
        pytest.raises(InputError, match=r"a\.jpg' is not a TIFF"),
    ):
        exports.check(tmp_path / "a.jpg")
    options = {"width": 9, "height": 9, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "plain.tif", "w", driver="GTiff", **options):
        pass
    with (
        Exports([name], exporter_folder, [tmp_path / "plain.tif"]) as exports,
        pytest.raises(InputError, match="has no coordinate reference system"),
    ):
        exports.check(tmp_path / "plain.tif")


def test_the_zip_of_a_reduced_raster_has_its_place(scene: Path) -> None:
    half = SIZE[0] // 2, SIZE[1] // 2
    mask = np.zeros((1, *half), bool)
    mask[0, 10:20, 30:50] = True
    found = Result.of(mask, ["cat"], *np.full((4, 1), 0.5))
    folder = scene.parent / "zip"
    folder.mkdir()
    path = write_zip(folder, scene, np.zeros((*half, 3), np.uint8), found)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    with rasterio.open(folder / "scene" / "geotiff" / "scene.tif") as written:
        assert (written.height, written.width) == half
        corners = [written.transform * (x, y) for x, y in ((0, 0), half[::-1])]
    np.testing.assert_allclose(corners, [PLACE * (0, 0), PLACE * SIZE[::-1]])
    _, _, shapes, _ = pyogrio.raw.read(folder / "scene" / "gpkg" / "scene.gpkg")
    expected = [PLACE * (2 * x, 2 * y) for x, y in ((30, 10), (50, 10), (50, 20), (30, 20))]
    assert shapely.from_wkb(shapes[0]).equals_exact(
        shapely.MultiPolygon([shapely.Polygon(expected)]).normalize(), 1e-6, normalize=True
    )


def test_the_zip_of_a_photograph_has_no_place(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    found = Result.of(np.ones((1, 20, 30), bool), ["cat"], *np.full((4, 1), 0.5))
    path = write_zip(tmp_path, tmp_path / "photo.png", pixels, found)
    with zipfile.ZipFile(path) as archive:
        names = {Path(name).parts[1] for name in archive.namelist()}
    assert names.isdisjoint(GEO_FORMATS)
