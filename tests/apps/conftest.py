"""What tests of all apps use: the command line, and a stand-in for loading a preset."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cachetools import LRUCache
from PIL import Image
from typer.testing import CliRunner

import promptseg
from promptseg.apps.cli.main import app
from promptseg.apps.cli.options import ModelOptions
from promptseg.models.embedding import ImageEmbedding

# CVAT's packages need Python 3.11.
collect_ignore = ["test_cvat.py"] if sys.version_info < (3, 11) else []


@pytest.fixture(scope="session")
def pipe() -> promptseg.Pipeline:
    """The preset pocket, which keeps the pictures that it has encoded, for the next tests."""
    made = promptseg.load("pocket")
    encode, kept = made.segmenter.encode_pixels, LRUCache(12)

    def encode_once(pixels: np.ndarray) -> ImageEmbedding:
        key = pixels.shape, pixels.tobytes()
        if key not in kept:
            kept[key] = encode(pixels)
        return kept[key]

    made.segmenter.encode_pixels = encode_once
    return made


@dataclass
class Loader:
    """Stands in for loading a preset, and keeps what was asked for.

    Attributes:
        pipeline: What is loaded.
        options: Options of each load.
    """

    pipeline: Any
    options: list[ModelOptions] = field(default_factory=list)

    def load(self, options: ModelOptions) -> Any:
        self.options.append(options)
        if isinstance(self.pipeline, Exception):
            raise self.pipeline
        return self.pipeline


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch):
    """Make every command load this pipeline, or fail with this error: pipeline -> Loader."""

    def use(pipeline: Any) -> Loader:
        loader = Loader(pipeline)
        monkeypatch.setattr(ModelOptions, "load", lambda options: loader.load(options))
        return loader

    return use


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small picture in an own folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder / "photo.png"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command line in an empty folder and return click's result."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")

    def invoke(*arguments: object):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke
