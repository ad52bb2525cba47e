"""A worker, called as Ray Data calls it: every row comes back, a broken image with its error."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import torch
from PIL import Image
from skimage import data

from promptseg.apps.batch.rows import fields_of, result_of, schema
from promptseg.apps.batch.sources import read_source
from promptseg.apps.batch.work import Work
from promptseg.apps.batch.worker import Worker, decode
from promptseg.models.errors import InputError
from promptseg.pipeline import Pipeline, Query, Reference, Result, load_image

from .conftest import BROKEN, GOOD, SIZE

LOAD = "promptseg.pipeline.presets.load.load"


@pytest.fixture
def worker(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Asks for a cat."""
    monkeypatch.setattr(LOAD, lambda **_: pipe)
    return Worker(Work(Query("cat")))


def test_every_row_comes_back_and_broken_ones_have_errors(
    worker: Worker, pipe: Pipeline, pictures: Path
) -> None:
    table = read_source(pictures)
    found = worker(table)
    assert found.schema.equals(schema())
    assert found["id"].to_pylist() == table["id"].to_pylist()
    rows = found.to_pylist()
    assert sum(row["error"] is not None for row in rows) == BROKEN == len(rows) // 10
    for row in rows:
        assert (row["error"] is None) == ("broken" not in row["id"])
        if row["error"] is not None:
            assert row["uri"] in row["error"]
            assert row["masks"] is None
            continue
        assert (row["height"], row["width"]) == SIZE
        result = pipe(row["uri"], "cat")
        assert {key: row[key] for key in fields_of(result)} == fields_of(result)
        assert json.dumps(result_of(row).to_dict()) == json.dumps(result.to_dict())
    assert sum(bool(row["masks"]) for row in rows) > GOOD / 2


def test_a_row_says_what_to_look_for_in_its_image(
    worker: Worker, pipe: Pipeline, pictures: Path
) -> None:
    uri = str(pictures / "05.png")
    image = load_image(uri)
    own = [
        {},
        {"text": "cat"},
        {"text": ["dog"], "negative_text": ["cat"]},
        {"points": [[40.0, 12.0]]},
        {"points": [[40.0, 12.0], [2.0, 2.0]], "point_labels": [1, 0]},
        {"boxes": [[10.0, 2.0, 80.0, 20.0]], "text": None},
        {"min_presence": 0.0, "text": "zebra"},
        {"points": [[400.0, 12.0]]},
    ]
    rows = [{"id": str(i), "uri": uri, **item} for i, item in enumerate(own)]
    kinds = {
        "text": pa.list_(pa.string()),
        "negative_text": pa.list_(pa.string()),
        "points": pa.list_(pa.list_(pa.float64())),
        "point_labels": pa.list_(pa.int64()),
        "boxes": pa.list_(pa.list_(pa.float64())),
        "min_presence": pa.float64(),
    }
    for row in rows:
        if isinstance(row.get("text"), str):
            row["text"] = [row["text"]]
    table = pa.Table.from_pylist(
        rows, pa.schema([("id", pa.string()), ("uri", pa.string()), *kinds.items()])
    )
    found = worker(table).to_pylist()
    expected: list[Result] = [
        pipe(image, "cat"),
        pipe(image, "cat"),
        pipe(image, "dog", negative_text="cat"),
        pipe(image, "cat", points=[[40, 12]]),
        pipe(image, "cat", points=[[40, 12], [2, 2]], point_labels=[1, 0]),
        pipe(image, "cat", boxes=[[10, 2, 80, 20]]),
        pipe(image, "zebra", min_presence=0),
    ]
    for row, result in zip(found, expected, strict=False):
        assert {key: row[key] for key in fields_of(result)} == fields_of(result)
    assert "outside" in found[-1]["error"]


def test_examples_are_encoded_once_and_everything_pickles(
    pipe: Pipeline, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = load_image(str(pictures / "05.png"))
    mask = np.zeros(SIZE, np.uint8)
    mask[4:20, 20:70] = 1
    work = Work(Query(reference=Reference(image, mask, label="cat")), {"top_k": 1})
    monkeypatch.setattr(LOAD, lambda **_: pipe)
    worker = Worker(pickle.loads(pickle.dumps(work)))
    encoded = []
    real = pipe.reference_prompter.extractor.extract
    monkeypatch.setattr(
        pipe.reference_prompter.extractor, "extract", lambda x: encoded.append(1) or real(x)
    )
    table = read_source(pictures).slice(0, 4)
    found = worker(table).to_pylist()
    assert encoded == []
    for row in found:
        result = pipe(row["uri"], reference=Reference(image, mask, label="cat"), top_k=1)
        assert row["masks"] == fields_of(result)["masks"]


def test_images_are_decoded_in_parts_of_bounded_size(
    pipe: Pipeline, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOAD, lambda **_: pipe)
    pixels = SIZE[0] * SIZE[1]
    worker = Worker(Work(Query("cat"), max_pixels=2 * pixels))
    rows = [{"uri": str(pictures / f"{i:02d}.png")} for i in range(1, 6)]
    done = [dict(row) for row in rows]
    assert [list(part) for part in worker._parts(rows, done)] == [[0, 1], [2, 3], [4]]
    assert not any("error" in row for row in done)


def test_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (300, 200)).save(path)
    monkeypatch.setattr("promptseg.apps.batch.worker.load_image", None)
    with pytest.raises(InputError, match=r"'x' has 0 million pixels, more than max_pixels"):
        decode(path.read_bytes(), "x", 59_999)
    with pytest.raises(InputError, match="max_pixels must be 1"):
        Work(Query("cat"), max_pixels=0)


class OnGpu:
    """A segmenter that says it is on a GPU, and cannot encode black images."""

    device = torch.device("cuda")

    def __init__(self) -> None:
        self.together: list[int] = []

    def encode_pixels(self, image: np.ndarray) -> int:
        if not image.any():
            raise RuntimeError("out of memory")
        return int(image.max())

    def encode_images(self, images: Iterable[np.ndarray], *, batch_size: int) -> Iterator[int]:
        given = list(images)
        self.together.append(len(given))
        assert batch_size == len(given)
        return (self.encode_pixels(image) for image in given)


def test_on_a_gpu_images_are_encoded_together(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOAD, lambda **_: pipe)
    worker = Worker(Work(Query("cat")))
    segmenter = OnGpu()
    worker.pipeline = SimpleNamespace(segmenter=segmenter)
    rows: list[dict[str, object]] = [{"uri": str(i)} for i in range(4)]
    images = {i: np.full((2, 2, 3), i + 1, np.uint8) for i in range(4)}
    assert list(worker._encode(images, rows)) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert segmenter.together == [4]
    images[1][:] = 0
    assert list(worker._encode(images, rows)) == [(0, 1), (2, 3), (3, 4)]
    assert [row.get("error") for row in rows] == [None, "RuntimeError: out of memory", None, None]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A cat in a picture of three tiles, and a GeoTIFF of the same."""
    cat = Image.fromarray(data.chelsea()).resize((120, 80))
    scene = Image.new("RGB", (240, 96), (110, 110, 110))
    scene.paste(cat, (60, 10))
    folder = tmp_path / "large"
    folder.mkdir()
    scene.save(folder / "scene.png")
    options = {"width": 240, "height": 96, "count": 3, "dtype": "uint8", "photometric": "rgb"}
    with rasterio.open(folder / "scene.tif", "w", driver="GTiff", crs="EPSG:32633", **options) as t:
        t.write(np.moveaxis(np.asarray(scene), 2, 0))
    return folder


def test_in_tiles_a_row_is_what_a_pipeline_finds_in_tiles(
    pipe: Pipeline, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOAD, lambda **_: pipe)
    # A TIFF in tiles is not held in memory, so that the limit does not count.
    worker = Worker(Work(Query("cat"), max_pixels=20_000, tiles=(96, 96)))
    rows = {row["id"]: row for row in worker(read_source(large)).to_pylist()}
    assert "more than max_pixels" in rows["scene.png"]["error"]
    tiled = pipe(large / "scene.tif", "cat", tiles=(96, 96))
    assert len(tiled)
    row = rows["scene.tif"]
    assert row["error"] is None
    assert {key: row[key] for key in fields_of(tiled)} == fields_of(tiled)
    whole = Worker(Work(Query("cat"), tiles=(96, 96)))(read_source(large)).to_pylist()
    assert [row["error"] for row in whole] == [None, None]
    assert whole[0]["masks"] == whole[1]["masks"] == row["masks"]


def test_every_tile_is_kept_in_the_cache(
    large: Path, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"preset": "pocket", "cache": str(tmp_path / "cache")}
    work = Work(Query("cat"), models=models, tiles=(96, 96))
    table = read_source([large / "scene.tif"])
    first = Worker(work)(table).to_pylist()
    assert first[0]["masks"]
    again = Worker(work)

    def encode(*_: object) -> None:
        raise AssertionError("it is encoded again")

    monkeypatch.setattr(again.pipeline.segmenter.model, "encode_image", encode)
    assert again(table).to_pylist() == first


def test_tiles_that_cannot_be_read_are_an_error(
    pipe: Pipeline, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOAD, lambda **_: pipe)
    options = {"width": 240, "height": 96, "count": 1, "dtype": "uint8", "tiled": True}
    blocks = {"blockxsize": 96, "blockysize": 96, "compress": "deflate"}
    path = large / "damaged.tif"
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", **options, **blocks) as target:
        noise = np.random.default_rng(0).integers(0, 255, (1, 96, 240), np.uint8)
        target.write(noise)
    path.write_bytes(path.read_bytes()[:-5000])
    worker = Worker(Work(Query("cat"), tiles=(96, 96)))
    (row,) = worker(read_source([path])).to_pylist()
    assert "could not be looked at" in row["error"]
    assert row["masks"] is None


def test_tiles_are_checked_before_anything_runs() -> None:
    with pytest.raises(InputError, match="tiles must be"):
        Work(Query("cat"), tiles="many")
