"""A pipeline that answers at once, so that the command line is tested without models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from promptseg.apps.cli import main as cli
from promptseg.apps.cli import segment as segment_command
from promptseg.models.errors import InputError
from promptseg.pipeline.prompters.reference.examples import EncodedReference
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.result import RejectedMask, Result
from promptseg.pipeline.scoring.ranking import RankingConfig, rank


@dataclass
class FakePipeline:
    """Finds the left half for "cat", the right half for "dog" (twice), and nothing else."""

    calls: list[dict[str, object]] = field(default_factory=list)

    def __call__(
        self,
        image: np.ndarray,
        *,
        text: Sequence[str] | None = None,
        negative_text: Sequence[str] | None = None,
        reference: Sequence[EncodedReference] | None = None,
        negative_reference: Sequence[EncodedReference] | None = None,
        points: Sequence[tuple[float, float]] | None = None,
        point_labels: Sequence[int] | None = None,
        boxes: Sequence[tuple[float, float, float, float]] | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
        no_overlap: bool | None = None,
    ) -> Result:
        self.calls.append(
            {
                "text": text,
                "negative_text": negative_text,
                "reference": reference,
                "negative_reference": negative_reference,
                "points": points,
                "point_labels": point_labels,
                "boxes": boxes,
                "top_k": top_k,
                "min_score": min_score,
                "no_overlap": no_overlap,
            }
        )
        height, width = image.shape[:2]
        left = np.zeros((height, width), bool)
        left[:, : width // 2] = True
        known = {"cat": [(left, 0.9)], "dog": [(~left, 0.8), (~left, 0.7)]}
        found, gated = [], []
        for phrase in text or ["box"]:
            if phrase == "crash":
                raise InputError("the phrase 'crash' cannot be used")
            if phrase in known:
                found += [(phrase, *item) for item in known[phrase]]
            elif phrase == "box":
                found.append(("box", left, 0.5))
            else:
                gated.append(RejectedMask(phrase, "presence 0.03 below 0.20", 0.03))
        proposals = Proposals.of(
            np.array([mask for _, mask, _ in found]).reshape(-1, height, width).astype(bool),
            [label for label, _, _ in found],
            [score for _, _, score in found],
            np.ones(len(found)),
            np.ones(len(found)),
            rejected=gated,
        )
        return rank(proposals, RankingConfig(top_k=top_k, min_score=min_score or 0.0))


@pytest.fixture
def fake_pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    """The pipeline that `promptseg segment` uses in this test."""
    pipeline = FakePipeline()
    monkeypatch.setattr(segment_command, "load_pipeline", lambda *given: pipeline)
    return pipeline


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small picture in an own folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder / "photo.png"


@pytest.fixture
def shown(tmp_path: Path):
    """A picture of a square in a colour on grey, and the square's mask: colour -> two paths."""

    def make(colour: str) -> tuple[Path, Path]:
        image, mask = Image.new("RGB", (96, 96), "grey"), Image.new("L", (96, 96))
        for picture, value in ((image, colour), (mask, 255)):
            picture.paste(value, (32, 32, 64, 64))
        paths = tmp_path / f"{colour}.png", tmp_path / f"{colour}-mask.png"
        for picture, path in zip((image, mask), paths, strict=True):
            picture.save(path)
        return paths

    return make


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command line in an empty folder and return click's result."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")

    def invoke(*arguments: object):
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])

    return invoke
