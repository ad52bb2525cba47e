"""The results of a batch in the formats of others: the same as `segment --format` writes."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
from affine import Affine
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from promptseg import batch
from promptseg.apps.batch.rows import fields_of, schema
from promptseg.apps.cli.main import app
from promptseg.apps.exports.run import Exports
from promptseg.models.errors import InputError
from promptseg.pipeline import Result

NAMES = ["a.png", "b/c.png", "d.png", "e.png"]


def make_result(seed: int, size: tuple[int, int] = (20, 30), masks: int = 2) -> Result:
    rng = np.random.default_rng(seed)
    found = rng.random((masks, *size)) > 0.5
    scores = rng.random((4, masks)).astype(np.float32)
    labels = ["cat", "dog, big"][:masks] if masks <= 2 else ["cat"] * masks
    return Result.of(found, labels, *scores)


def write_batch(out: Path, rows: list[list[dict[str, Any]]]) -> None:
    """Write results as a batch leaves them, a file for each list of rows."""
    (out / "results").mkdir(parents=True)
    asked = {"labels": ["dog, big", "cat"]}
    (out / "run.json").write_text(json.dumps({"promptseg_batch": asked}))
    for i, part in enumerate(rows):
        pq.write_table(pa.Table.from_pylist(part, schema()), out / "results" / f"{i}.parquet")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path, list[Result]]:
    """A batch of four images and a broken one, its pictures, and what was found in them."""
    results = [make_result(0), make_result(1), make_result(2, masks=0), make_result(3, (25, 16))]
    pictures = tmp_path / "pictures"
    rows = []
    for name, result in zip(NAMES, results, strict=True):
        path = pictures / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(5).integers(0, 255, (*result.image_size, 3), np.uint8)
        Image.fromarray(noise).save(path)
        rows.append({"id": name, "uri": str(path), **fields_of(result)})
    broken = {"id": "x.png", "uri": "x.png", "error": "it is broken"}
    write_batch(tmp_path / "out", [rows[:2], [rows[2], broken, rows[3]]])
    return tmp_path / "out", pictures, results


def content_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder by name, but what tells where pictures lie."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


@pytest.mark.parametrize("format", ["yolo", "labelme", "voc", "png", "json", "cutout"])
def test_files_are_those_of_a_run(made: Any, format: str, tmp_path: Path) -> None:
    out, pictures, results = made
    done = batch.export(out, tmp_path / "to", format)
    assert (done.images, done.failed) == (4, 1)
    paths = [pictures / name for name in NAMES]
    with Exports(
        [format], tmp_path / "run", paths, labels=["dog, big", "cat"], root=pictures
    ) as run:
        for path, result in zip(paths, results, strict=True):
            run.add(path, np.asarray(Image.open(path)), result)
    ours, theirs = content_of(tmp_path / "to"), content_of(tmp_path / "run" / format)
    assert ours.keys() == theirs.keys()
    where = {"data.yaml"} if format == "yolo" else set()
    for name in ours.keys() - where:
        if format == "labelme":
            one, other = (json.loads(item) for item in (ours[name], theirs[name]))
            one.pop("imagePath")
            other.pop("imagePath")
            assert one == other
        else:
            assert ours[name] == theirs[name], name


@pytest.mark.parametrize("format", ["coco", "coco-polygons"])
def test_coco_is_that_of_a_run(made: Any, format: str, tmp_path: Path) -> None:
    out, pictures, results = made
    told: list[tuple[int, int]] = []
    batch.export(out, tmp_path / "to", format, progress=lambda *given: told.append(given))
    paths = [pictures / name for name in NAMES]
    with Exports(
        [format], tmp_path / "run", paths, labels=["dog, big", "cat"], root=pictures
    ) as run:
        for path, result in zip(paths, results, strict=True):
            run.add(path, np.zeros((1, 1, 3), np.uint8), result)
    ours = json.loads((tmp_path / "to" / "annotations.json").read_text())
    theirs = json.loads((tmp_path / "run" / format / "annotations.json").read_text())
    assert ours == theirs
    read = COCO(tmp_path / "to" / "annotations.json")
    first = read.loadAnns(read.getAnnIds(imgIds=[1]))
    np.testing.assert_array_equal(read.annToMask(first[0]).astype(bool), results[0].masks[0])
    assert told[-1] == (5, 5)
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["annotations.json"]


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """Twice as many images as before take no more memory."""

    def peak(number: int) -> int:
        out = tmp_path / f"out{number}"
        rows = [
            {"id": f"{i}.png", "uri": "", **fields_of(make_result(i % 7, (60, 60)))}
            for i in range(number)
        ]
        write_batch(out, [rows[i : i + 100] for i in range(0, number, 100)])
        del rows
        tracemalloc.start()
        batch.export(out, tmp_path / f"to{number}", "coco")
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(100)  # imports
    assert peak(1600) < 1.2 * peak(800)


def test_what_cannot_be_exported_is_told(made: Any, tmp_path: Path) -> None:
    out, pictures, _ = made
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    for to, format, options, message in (
        ("to", "none", {}, "there is no format 'none'"),
        ("full", "coco", {}, "not an empty folder"),
        ("to", "coco", {"simplify": 1.0}, "no polygons to simplify"),
    ):
        with pytest.raises(InputError, match=message):
            batch.export(out, tmp_path / to, format, **options)
    (pictures / "b" / "c.png").write_bytes((pictures / "e.png").read_bytes())
    with pytest.raises(InputError, match="has changed since"):
        batch.export(out, tmp_path / "to", "cutout")
    assert not (tmp_path / "to").exists()
    twins = [{"id": name, "uri": "x", **fields_of(make_result(0))} for name in ("a.png", "a.jpg")]
    write_batch(tmp_path / "twins", [twins])
    with pytest.raises(InputError, match=r"'a\.jpg' and one that differs"):
        batch.export(tmp_path / "twins", tmp_path / "to", "yolo")
    assert not list(tmp_path.glob(".promptseg-*"))


def test_ids_get_the_ending_of_their_files(tmp_path: Path) -> None:
    rows = [
        {"id": "12", "uri": "s3://b/x/12.jpeg?v=1", **fields_of(make_result(0))},
        {"id": "v1.5", "uri": "/x/y", **fields_of(make_result(1))},
    ]
    write_batch(tmp_path / "out", [rows])
    batch.export(tmp_path / "out", tmp_path / "to", "coco")
    document = json.loads((tmp_path / "to" / "annotations.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["12.jpeg", "v1.5"]


def write_raster(path: Path, size: tuple[int, int], *, crs: str | None = "EPSG:32633") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"width": size[1], "height": size[0], "count": 1, "dtype": "uint8"}
    place = Affine(0.3, 0, 500_000, 0, -0.3, 5_400_000)
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=place, **options) as target:
        target.write(np.ones((1, *size), np.uint8))


@pytest.mark.parametrize("format", ["geotiff", "geojson", "gpkg"])
def test_rasters_keep_their_place(format: str, tmp_path: Path) -> None:
    names, results = ["a.tif", "b/c.tif"], [make_result(0), make_result(1, masks=0)]
    pictures = tmp_path / "pictures"
    rows = []
    for name, result in zip(names, results, strict=True):
        write_raster(pictures / name, result.image_size)
        rows.append({"id": name, "uri": str(pictures / name), **fields_of(result)})
    write_batch(tmp_path / "out", [rows])
    assert batch.export(tmp_path / "out", tmp_path / "to", format).images == 2
    paths = [pictures / name for name in names]
    with Exports(
        [format], tmp_path / "run", paths, labels=["dog, big", "cat"], root=pictures
    ) as run:
        for path, result in zip(paths, results, strict=True):
            run.add(path, None, result)
    ours, theirs = content_of(tmp_path / "to"), content_of(tmp_path / "run" / format)
    assert ours.keys() == theirs.keys()
    for name in ours:
        if format == "gpkg":  # which holds the time of its writing
            one, other = (
                pyogrio.raw.read(folder / name)
                for folder in (tmp_path / "to", tmp_path / "run" / format)
            )
            assert one[0]["crs"] == other[0]["crs"] == "EPSG:32633"
            assert one[2].tolist() == other[2].tolist()
        else:
            assert ours[name] == theirs[name], name


def test_a_raster_elsewhere_is_fetched(tmp_path: Path) -> None:
    import fsspec

    result = make_result(0)
    write_raster(tmp_path / "a.tif", result.image_size)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/elsewhere/a.tif", (tmp_path / "a.tif").read_bytes())
    row = {"id": "a.tif", "uri": "memory://elsewhere/a.tif", **fields_of(result)}
    write_batch(tmp_path / "out", [[row]])
    batch.export(tmp_path / "out", tmp_path / "to", "geotiff")
    with rasterio.open(tmp_path / "to" / "a.tif") as written:
        assert (written.crs.to_epsg(), written.transform.c) == (32633, 500_000)


def test_what_has_no_place_has_no_geotiff(tmp_path: Path) -> None:
    result = make_result(0)
    write_raster(tmp_path / "nowhere.tif", result.image_size, crs=None)
    write_raster(tmp_path / "other.tif", (8, 9))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "photo.png")
    said = {
        "nowhere.tif": "no coordinate reference system",
        "other.tif": "has changed",
        "photo.png": "is not a TIFF",
    }
    for name, message in said.items():
        row = {"id": name, "uri": str(tmp_path / name), **fields_of(result)}
        write_batch(tmp_path / f"out-{name}", [[row]])
        with pytest.raises(InputError, match=rf"{name}'.*{message}"):
            batch.export(tmp_path / f"out-{name}", tmp_path / "to", "geotiff")
    assert not (tmp_path / "to").exists()


def test_the_command(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["batch", "export", "out", "--format", "voc"])
    assert done.exit_code == 0, done.output
    assert "4 images written to out-voc, 1 failed one left out" in done.stdout
    assert (tmp_path / "out-voc" / "SegmentationClass" / "b" / "c.png").is_file()
    again = CliRunner().invoke(app, ["batch", "export", "out", "--format", "voc"])
    assert again.exit_code == 2
    assert "not an empty folder" in again.stderr
