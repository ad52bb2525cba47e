"""The pages of docs/ say what is so: their code runs, their commands parse, their links lead on."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import promptseg
from promptseg.apps.journal import Journal
from promptseg.models import create_model
from promptseg.pipeline import MaskCandidates, Pipeline, Result

from .test_documents import commands, python_blocks, read, understand

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
# Every text of the project, but not what lies in hidden folders, environments and outputs.
LEFT_OUT = {"outputs", "runs", "build", "dist", "promptseg-output"}
TEXTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in LEFT_OUT for part in path.relative_to(ROOT).parts)
)
# Pages whose code needs more than pocket, and the tests that run it.
RUN_ELSEWHERE = {
    "docs/app.md": "tests/web/test_endpoints.py",
    "docs/models.md": "tests/models/test_models_page.py",
    "docs/presets.md": "tests/pipeline/test_published.py",
}
RUN_HERE = [page for page in PAGES if python_blocks(read(ROOT, page)) and page not in RUN_ELSEWHERE]
LINK = re.compile(r"!?\[[^\]]*\]\((?!\w+:)([^)\s]+)\)")


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^ {4}.*$|^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def shell(text: str) -> str:
    """The text with continued lines joined, and with fenced blocks indented like the others."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return re.sub(
        r"^```\w*\n(.*?)^```",
        lambda found: re.sub("^", "    ", found[1], flags=re.MULTILINE),
        joined,
        flags=re.DOTALL | re.MULTILINE,
    )


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a text."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return promptseg.load("pocket")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROMPTSEG_WEIGHTS", raising=False)
    cat = Image.fromarray(data.chelsea())
    mask = np.zeros((cat.height, cat.width), np.uint8)
    mask[60:280, 20:380] = 255
    for name in ("photo", "mug"):
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
    real = promptseg.load  # loading pocket itself is what the README's test does
    monkeypatch.setattr(promptseg, "load", lambda name: pipe if name == "pocket" else real(name))
    names: dict[str, Any] = {"promptseg": promptseg, "pipe": pipe}
    for block in python_blocks(read(ROOT, page)):
        exec(compile(block, page, "exec"), names)
    assert isinstance(names["result"], Result)
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
    assert {"docs/python.md", "docs/references.md", "docs/thresholds.md"} <= set(RUN_HERE)
    for page, test in RUN_ELSEWHERE.items():
        assert python_blocks(read(ROOT, page))
        assert Path(page).name in read(ROOT, test)


def test_the_readmes_published_model_runs(desk: Path) -> None:
    """MobileSAM, with random weights, in place of the larger SAM."""
    (block,) = [b for b in python_blocks(read(ROOT, "README.md")) if "create_model" in b]
    torch.save(create_model("sam_vit_t").state_dict(), desk / "sam_vit_b_01ec64.pth")
    names: dict[str, Any] = {}
    exec(block.replace('"sam_vit_b"', '"sam_vit_t"'), names)
    assert isinstance(names["candidates"], MaskCandidates)
    assert names["candidates"].masks.shape == (1, 3, 300, 451)


@pytest.mark.parametrize("page", TEXTS)
def test_commands_are_understood(page: str) -> None:
    text = shell(read(ROOT, page))
    for arguments in commands(text, "promptseg"):
        understand(arguments)
    for script in re.findall(r"python ((?:benchmarks|training)/\S+\.py)", text):
        assert (ROOT / script).is_file(), script
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT, "Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_commands_are_found_in_all_ways_of_writing_them() -> None:
    text = "    promptseg a \\\n        --b c\n\n```sh\npromptseg d\n```\n\nx promptseg e\n"
    assert commands(shell(text), "promptseg") == [["a", "--b", "c"], ["d"]]
    counts = {page: len(commands(shell(read(ROOT, page)), "promptseg")) for page in PAGES}
    assert counts["docs/exports.md"] >= 6
    assert counts["docs/references.md"] >= 6


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_pictures_are_there(page: str) -> None:
    text = read(ROOT, page)
    assert "<!--" not in text
    for link in LINK.findall(prose(text)):
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), link


def test_files_that_are_named_are_there() -> None:
    for page in TEXTS:
        for name in re.findall(r"`((?:tests|docs|benchmarks|training)/[\w/.]+)`", read(ROOT, page)):
            assert (ROOT / name).exists(), f"{page}: {name}"


def test_the_index_has_every_page() -> None:
    index = read(ROOT, "docs/README.md")
    listed = re.findall(r"^\| \[[^\]]+\]\(([\w-]+\.md)\)", index, re.MULTILINE)
    assert sorted(listed) == [Path(page).name for page in PAGES if page != "docs/README.md"]


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "benchmarks" / "gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gallery"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_gallery_is_of_its_script(gallery: ModuleType) -> None:
    page = read(ROOT, "docs/gallery.md")
    assert page.startswith(gallery.INTRODUCTION)
    asked = [query.command for scene in gallery.SCENES for query in scene.queries]
    assert re.findall(r"^ {4}(promptseg .*)$", page, re.MULTILINE) == asked
    for scene in gallery.SCENES:
        assert f"## {scene.title}\n\n{gallery.paragraph(scene.words)}\n" in page


def test_the_gallerys_pictures_are_small_and_all_shown(gallery: ModuleType) -> None:
    shown = set(LINK.findall(read(ROOT, "docs/gallery.md"))) - {"thresholds.md"}
    files = list((ROOT / "docs" / gallery.PICTURES).iterdir())
    assert shown == {f"{gallery.PICTURES.as_posix()}/{path.name}" for path in files}
    for path in files:
        assert path.stat().st_size <= 80_000, path.name
        with Image.open(path) as picture:
            assert max(picture.size) <= 640, path.name


def test_the_gallery_is_what_the_product_answers(
    gallery: ModuleType, pipe: Pipeline, tmp_path: Path
) -> None:
    """Two of its sections, made again: words are the same, figures within 0.02."""
    scenes = [s for s in gallery.SCENES if s.title in ("What it must not be", "Nothing here")]
    studio = gallery.Studio()
    studio.pipe = pipe
    gallery.write(studio, scenes, tmp_path)
    page = read(ROOT, "docs/gallery.md")
    number = r"0\.\d\d|\d+%"
    for made in (tmp_path / "gallery.md").read_text(encoding="utf-8").split("\n## ")[1:]:
        heading = made.partition("\n")[0]
        kept = page.split(f"\n## {heading}\n")[1].split("\n## ")[0].strip()
        made = made.partition("\n")[2].strip()
        assert re.sub(number, "N", made) == re.sub(number, "N", kept)
        values = [
            [float(n.rstrip("%")) / (100 if n.endswith("%") else 1) for n in re.findall(number, s)]
            for s in (made, kept)
        ]
        np.testing.assert_allclose(*values, rtol=0, atol=0.02)
    assert len(list((tmp_path / gallery.PICTURES).iterdir())) == 3
