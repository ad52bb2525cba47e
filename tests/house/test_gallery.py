"""docs/gallery.md is what its script writes, and what the product answers today."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from promptseg.pipeline import Pipeline

from .documents import LINK, ROOT, read


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
    page = read("docs/gallery.md")
    assert page.startswith(gallery.INTRODUCTION)
    asked = [query.command for scene in gallery.SCENES for query in scene.queries]
    assert re.findall(r"^ {4}(promptseg .*)$", page, re.MULTILINE) == asked
    for scene in gallery.SCENES:
        assert f"## {scene.title}\n\n{gallery.paragraph(scene.words)}\n" in page


def test_the_gallerys_pictures_are_small_and_all_shown(gallery: ModuleType) -> None:
    shown = set(LINK.findall(read("docs/gallery.md"))) - {"thresholds.md"}
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
    page = read("docs/gallery.md")
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
