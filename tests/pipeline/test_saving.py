"""Writing a result: whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from promptseg.models.errors import InputError
from promptseg.pipeline import drawing
from promptseg.pipeline.files import staging_folder, write_text
from promptseg.pipeline.result import Result
from promptseg.pipeline.saving import slug, write_outputs


def one_mask_result() -> Result:
    mask = np.zeros((1, 6, 8), bool)
    mask[0, :3] = True
    one = np.ones(1, np.float32)
    return Result.of(
        masks=mask,
        labels=["cat"],
        scores=one,
        iou_predictions=one,
        stability_scores=one,
        prompt_scores=one,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("Red Car!", "red-car"),
        ("../../etc/passwd", "etc-passwd"),
        ("café", "cafe"),
        ("猫", "mask"),
        ("", "mask"),
        ("x" * 300, "x" * 40),
        ("con\0trol\n", "con-trol"),
    ],
)
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_a_failure_halfway_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def fail(image: np.ndarray, result: Result, *, factor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(drawing, "draw_overlay", fail)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine.txt").write_text("mine")
    for folder in (tmp_path / "new", kept):
        with pytest.raises(OSError, match="no space"):
            write_outputs(folder, np.zeros((6, 8, 3), np.uint8), one_mask_result(), {})
    assert not (tmp_path / "new").exists()
    assert [path.name for path in kept.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "earlier",
    [
        "not json",
        "[]",
        '{"files": null}',
        '{"files": {"masks": 3}}',
        '{"files": {"masks": ["../precious.png", "precious.png", 7, "mask_01_..png"]}}',
    ],
)
def test_an_odd_earlier_result_deletes_nothing(tmp_path: Path, earlier: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "precious.png").touch()
    (folder / "precious.png").touch()
    (folder / "result.json").write_text(earlier)
    image, result = np.zeros((6, 8, 3), np.uint8), one_mask_result()
    with pytest.raises(InputError, match="json' is not a file of an earlier result"):
        write_outputs(folder, image, result, {"files": {}})
    assert {path.name for path in folder.iterdir()} == {"precious.png", "result.json"}
    write_outputs(folder, image, result, {"files": {}}, overwrite=True)
    assert (tmp_path / "precious.png").exists()
    assert {path.name for path in folder.iterdir()} == {
        "precious.png",
        "result.json",
        "overlay.png",
        "mask_01_cat.png",
    }


def test_files_of_others_are_neither_replaced_nor_deleted(tmp_path: Path) -> None:
    image, result = np.zeros((6, 8, 3), np.uint8), one_mask_result()
    for name in ("overlay.png", "mask_01_cat.png", "result.json"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(InputError, match="overwrite=True"):
            write_outputs(folder, image, result, {"files": {"masks": ["mask_01_cat.png"]}})
        assert {path.name: path.read_text() for path in folder.iterdir()} == {name: "mine"}
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "overlay.png").symlink_to(tmp_path / "overlay.png" / "overlay.png")
    with pytest.raises(InputError):
        write_outputs(tmp_path / "link", image, result, {})
    # A pipe of that name is not waited for.
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "result.json")
    with pytest.raises(InputError):
        write_outputs(tmp_path / "pipe", image, result, {})
    # What an earlier result names is replaced, and what it no longer has is removed.
    record = {"files": {"masks": ["mask_01_cat.png"]}}
    write_outputs(tmp_path / "own", image, result, record)
    write_outputs(tmp_path / "own", image, Result.empty((6, 8)), {"files": {"masks": []}})
    assert {path.name for path in (tmp_path / "own").iterdir()} == {"overlay.png", "result.json"}


def test_a_record_with_nan_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_outputs(
            tmp_path / "out", np.zeros((6, 8, 3), np.uint8), one_mask_result(), {"a": float("nan")}
        )
    assert not (tmp_path / "out").exists()


def test_what_a_kill_left_is_swept_away(tmp_path: Path) -> None:
    """Also masks that were in their place already, where result.json was not yet."""
    image, found = np.zeros((6, 8, 3), np.uint8), Result.empty((6, 8))
    folder = tmp_path / "out"
    write_outputs(folder, image, found, {"files": {"masks": ["mask_01_cat.png"]}})
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with staging_folder(folder) as own:
        name = own.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-")
    staging = folder / name
    staging.mkdir()
    (folder / "result.json").rename(staging / "result.json")
    (folder / "mask_01_cat.png").touch()
    write_outputs(folder, image, found, {})
    assert {path.name for path in folder.iterdir()} == {"result.json", "overlay.png"}


def test_long_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".json")
    write_text(path, "1")
    assert path.read_text() == "1"
    assert list(tmp_path.iterdir()) == [path]
