"""What the texts say is so: their code runs, their commands parse, their links lead on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from skimage import data

import promptseg
from promptseg.apps.cli.main import app
from promptseg.apps.journal import Journal
from promptseg.models import create_model
from promptseg.pipeline import Pipeline, Result

from .documents import LINK, ROOT, anchors, commands, pages, prose, python_blocks, read

PAGES = pages()
# Pages whose code needs more than pocket, and the tests that run it.
RUN_ELSEWHERE = {
    "docs/app.md": "tests/web/test_endpoints.py",
    "docs/fiftyone.md": "tests/apps/test_fiftyone.py",
    "docs/export.md": "tests/pipeline/test_exported_pocket.py",
    "docs/models.md": "tests/models/test_models_page.py",
    "docs/presets.md": "tests/pipeline/test_published.py",
    "docs/scale.md": "tests/apps/batch/test_cluster.py",
}
RUN_HERE = [page for page in PAGES if python_blocks(page) and page not in RUN_ELSEWHERE]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROMPTSEG_WEIGHTS", raising=False)
    cat = Image.fromarray(data.chelsea())
    mask = np.zeros((cat.height, cat.width), np.uint8)
    mask[60:280, 20:380] = 255
    for name in ("photo", "mug", "street"):
        cat.save(f"{name}.jpg")
    Image.fromarray(mask).save("mug.png")
    Image.fromarray(data.astronaut()).save("b.jpg")
    photos = tmp_path / "photos"
    photos.mkdir()
    cat.save(photos / "good.jpg")
    (photos / "broken.jpg").write_text("no picture")
    first = [{"kind": "present", "presence": 0.9}, {"kind": "random", "presence": 0.2}]
    second = [{"kind": "present", "presence": 0.4}, {"kind": "sibling", "presence": 0.3}]
    journal = Journal(tmp_path / "text.json.rows.jsonl", "header", {"task": "text"}, "")
    journal.write([{"name": "a.jpg", "rows": first}, {"name": "b.jpg", "rows": second}])
    return tmp_path


@pytest.mark.parametrize("page", RUN_HERE)
def test_the_python_of_a_page_runs(
    page: str, pipe: Pipeline, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = promptseg.load

    def load(name: str, **options: Any) -> Pipeline:
        return pipe if name == "pocket" and not options else real(name, **options)

    monkeypatch.setattr(promptseg, "load", load)
    names: dict[str, Any] = {"promptseg": promptseg, "pipe": pipe}
    for block in python_blocks(page):
        if "sam_vit_b_01ec64.pth" in block:  # MobileSAM, with random weights, stands in for it
            torch.save(create_model("sam_vit_t").state_dict(), desk / "sam_vit_b_01ec64.pth")
            block = block.replace('"sam_vit_b"', '"sam_vit_t"')
        exec(compile(block, page, "exec"), names)
    assert isinstance(names["result"], Result)
    if page == "README.md":
        assert names["candidates"].masks.shape == (1, 3, 300, 451)
    if page == "docs/python.md":
        assert names["same"] is True
        assert names["counts"] == {"good.jpg": 1}
        assert names["cats"].labels == ["cat"]
        assert [found.labels for found in names["results"]] == [["cat"]]
        assert set(names["result"].labels) == {"light", "dark"}
    if page == "docs/thresholds.md":
        assert names["best"] == 0.4
        assert names["result"].labels == ["cat"]


def test_pages_that_are_run_elsewhere_are() -> None:
    assert {"README.md", "docs/python.md", "docs/references.md"} <= set(RUN_HERE)
    for page, test in RUN_ELSEWHERE.items():
        assert python_blocks(page)
        assert Path(page).name in read(test)


def test_commands_are_found_in_all_ways_of_writing_them() -> None:
    text = "    promptseg a \\\n        --b c\n\n```sh\npromptseg d\n```\n\nx promptseg e\n"
    assert commands(text) == [["a", "--b", "c"], ["d"]]


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_understood(page: str) -> None:
    text = read(page)
    for arguments in commands(text):
        command, rest = typer.main.get_command(app), list(arguments)
        while hasattr(command, "commands"):
            default = getattr(command, "default", None)
            named = default is None or rest[0] in command.commands
            command = command.commands[rest.pop(0) if named else default]
        command.make_context("promptseg", rest)  # an unknown option raises
    for script in re.findall(r"python ((?:benchmarks|training)/\S+\.py)", text):
        assert (ROOT / script).is_file(), script
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_are_there(page: str) -> None:
    text = read(page)
    assert "<!--" not in text
    for link in LINK.findall(prose(text)):
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), link
    for name in re.findall(r"`((?:tests|docs|benchmarks|training)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name


def test_the_index_has_every_page() -> None:
    listed = re.findall(r"^\| \[[^\]]+\]\(([\w-]+\.md)\)", read("docs/README.md"), re.MULTILINE)
    docs = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}
    assert set(listed) == docs - {"README.md"}


def test_every_command_and_folder_is_told_of() -> None:
    readme, contributing, changelog = map(read, ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))
    for name in typer.main.get_command(app).commands:
        assert f"promptseg {name}" in readme, name
        assert f"`promptseg {name}" in changelog, name
    code = {path.relative_to(ROOT).parts[0] for path in ROOT.glob("[a-z]*/*.py")}
    for folder in {*code, "src/promptseg", "docs"}:
        assert f"`{folder}/" in contributing, folder
