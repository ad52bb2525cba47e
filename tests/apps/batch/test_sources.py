"""Folders, patterns, lists and manifests become rows with unique ids."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from promptseg.apps.batch.filesystems import open_place, read_bytes
from promptseg.apps.batch.sources import read_source
from promptseg.models.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "photos"
    for name in ("a10.jpg", "a2.JPG", "b/c.png", "b/d/e.jpg", "b/.hidden/f.jpg", ".g.jpg"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (top / "notes.txt").write_text("no image")
    return top


def ids(table: pa.Table) -> list[str]:
    return table["id"].to_pylist()


def test_a_folder_is_searched_in_natural_order(folder: Path) -> None:
    table = read_source(folder)
    assert ids(table) == ["a2.JPG", "a10.jpg", "b/c.png", "b/d/e.jpg"]
    assert table["uri"].to_pylist()[2] == str(folder / "b" / "c.png")
    assert all(read_bytes(uri) == b"x" for uri in table["uri"].to_pylist())


def test_what_lies_in_the_output_is_no_source(folder: Path) -> None:
    assert ids(read_source(folder, str(folder / "b"))) == ["a2.JPG", "a10.jpg"]


def test_folders_by_uri_are_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By file://, by a scheme of fsspec, and relative to where one is."""
    expected = ids(read_source(folder))
    assert ids(read_source(f"file://{folder}")) == expected
    by_fsspec = read_source(f"local://{folder}")
    assert ids(by_fsspec) == expected
    assert by_fsspec["uri"].to_pylist()[0] == f"local://{folder}/a2.JPG"
    assert read_bytes(by_fsspec["uri"].to_pylist()[0]) == b"x"
    monkeypatch.chdir(folder.parent)
    assert read_source("photos").equals(read_source(folder))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a10.jpg"]),
        ("**/*.jpg", ["a10.jpg", "b/d/e.jpg"]),
        ("b/**/*", ["c.png", "d/e.jpg"]),
        ("a[0-9].*", ["a2.JPG"]),
        ("*/c.png", ["b/c.png"]),
    ],
)
def test_patterns(folder: Path, pattern: str, expected: list[str]) -> None:
    for top in (str(folder), f"local://{folder}"):
        assert ids(read_source(f"{top}/{pattern}")) == expected


def test_lists(folder: Path) -> None:
    given = [folder / "b" / "c.png", str(folder / "a2.JPG")]
    assert ids(read_source(given)) == ["b/c.png", "a2.JPG"]
    remote = ["s3://bucket/x/a.jpg", "s3://bucket/x/y/b.jpg"]
    assert ids(read_source(remote)) == ["a.jpg", "y/b.jpg"]
    assert read_source(remote)["uri"].to_pylist() == remote
    apart = ["s3://one/a.jpg", "gs://two/b.jpg"]
    assert ids(read_source(apart)) == apart
    assert ids(read_source(folder / "a2.JPG")) == ["a2.JPG"]


def test_a_manifest(folder: Path) -> None:
    columns = {
        "id": [7, 8],
        "uri": ["a2.JPG", "s3://bucket/b.jpg"],
        "points": [[[1.0, 2.0]], None],
        "other": [1, 2],
    }
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    table = read_source(folder / "rows.parquet")
    assert ids(table) == ["7", "8"]
    assert table["uri"].to_pylist() == [str(folder / "a2.JPG"), "s3://bucket/b.jpg"]
    assert table.column_names == ["id", "uri", "points"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"]}, "no column uri"),
        ({"name": ["a"]}, "no column id and none uri"),
        ({"id": ["a", "a"], "uri": ["x", "y"]}, "'a' is given more than once"),
        ({"id": ["a", None], "uri": ["x", "y"]}, "rows without id"),
        ({"id": pa.array([], pa.string()), "uri": pa.array([], pa.string())}, "no rows"),
    ],
)
def test_bad_manifests(tmp_path: Path, columns: dict[str, object], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=message):
        read_source(tmp_path / "rows.parquet")


def test_bad_sources(folder: Path) -> None:
    (folder / "broken.parquet").write_bytes(b"PAR1 no")
    for source, message in (
        (folder / "broken.parquet", "cannot be read"),
        (folder / "missing", "does not exist"),
        (folder / "b" / "*.tif", "no image matches"),
        (folder / "b" / ".hidden" / "none", "does not exist"),
        ("nonsense://x/y", "cannot be opened"),
        ("", "is empty"),
        ([], "is empty"),
        ([folder / "a2.JPG", folder / "a2.JPG"], "more than once"),
    ):
        with pytest.raises(InputError, match=message):
            read_source(source)
    (folder / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        read_source(folder / "nothing")


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "x.jpg"), f"local://{tmp_path}/x.jpg"):
        with pytest.raises(InputError, match=r"x\.jpg' does not exist"):
            read_bytes(uri)


def test_a_bucket_is_opened_by_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class FileSystem:
        @staticmethod
        def from_uri(uri: str) -> tuple[str, str]:
            opened.append(uri)
            return "the bucket", ""

    monkeypatch.setattr("pyarrow.fs.FileSystem", FileSystem)
    for name in ("a.jpg", "b/c.jpg"):
        place = open_place(f"s3://bucket-of-a-test/{name}?region=eu-west-1")
        assert place == ("the bucket", f"bucket-of-a-test/{name}")
    assert opened == ["s3://bucket-of-a-test/?region=eu-west-1"]  # once
