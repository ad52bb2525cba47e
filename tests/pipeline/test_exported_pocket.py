"""The preset pocket with its masks from an exported folder: the same answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

import promptseg
from promptseg.apps.cli.main import app
from promptseg.models.exported.export import export_sam
from promptseg.pipeline.presets.masks import load_sam


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pocket")
    export_sam(load_sam("sam_pocket"), place)
    return place


@pytest.mark.parametrize("runtime", [None, "openvino"])
def test_phrases_clicks_and_boxes(folder: Path, runtime: str | None) -> None:
    cat = data.chelsea()
    ours = promptseg.load("pocket")
    theirs = promptseg.load("pocket", exported=folder, runtime=runtime)
    for query in (
        {"text": ["cat", "dog"]},
        {"points": [(220, 150)]},
        {"boxes": [(60, 20, 380, 280), (100, 50, 200, 150)]},
        {"reference": promptseg.Reference(cat, box=(60, 20, 380, 280))},
    ):
        expected, found = ours(cat, **query), theirs(cat, **query)
        assert len(expected) > 0
        assert found.labels == expected.labels
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        for a, b in zip(found.masks, expected.masks, strict=True):
            assert (a & b).sum() / (a | b).sum() >= 0.999


def test_the_python_of_the_page_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[2] / "docs" / "export.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exported").symlink_to(folder)
    Image.fromarray(data.chelsea()).save("photo.jpg")
    names: dict[str, Any] = {}
    exec(compile(block, str(page), "exec"), names)
    assert names["candidates"].masks.shape == (1, 3, 300, 451)
    assert names["result"].labels == ["cat"]


def test_the_command_line_answers_alike(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(data.chelsea()).save(tmp_path / "cat.png")
    command = ["segment", str(tmp_path / "cat.png"), "-t", "cat", "--json"]
    expected, found = (
        json.loads(CliRunner().invoke(app, [*command, *more]).stdout)["masks"]
        for more in ([], ["--exported", str(folder), "--runtime", "openvino"])
    )
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        assert a["label"] == b["label"]
        assert a["score"] == pytest.approx(b["score"], abs=1e-3)
        assert a["area"] == pytest.approx(b["area"], rel=1e-3)


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(promptseg.InputError, match="exported must be the path of a folder"):
        promptseg.load("pocket", exported=3)
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        content = path.read_bytes()
        if path.name == "manifest.json":
            content = content.replace(b"sam_pocket", b"sam_vit_t")
        (other / path.name).write_bytes(content)
    with pytest.raises(promptseg.InputError, match=r"holds sam_vit_t, .* `promptseg export sam_"):
        promptseg.load("pocket", exported=other)
