"""A pipeline that answers at once, so that the command line is tested without models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptseg.models.errors import InputError
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.presets.load import load
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.query import Query
from promptseg.pipeline.result import RejectedMask, Result
from promptseg.pipeline.scoring.ranking import RankingConfig, rank


@dataclass
class FakePipeline:
    """Finds the left half for "cat", the right half for "dog" (twice), and nothing else."""

    queries: list[Query] = field(default_factory=list)
    rankings: list[tuple[int | None, float | None, bool | None]] = field(default_factory=list)

    def propose(
        self, image: np.ndarray, query: Query, *, tiles: object = None, progress: object = None
    ) -> Proposals:
        self.queries.append(query)
        height, width = image.shape[:2]
        left = np.zeros((height, width), bool)
        left[:, : width // 2] = True
        known = {"cat": [(left, 0.9)], "dog": [(~left, 0.8), (~left, 0.7)]}
        found, gated = [], []
        for phrase in query.text or ["box"]:
            if phrase == "crash":
                raise InputError("the phrase 'crash' cannot be used")
            if phrase in known:
                found += [(phrase, *item) for item in known[phrase]]
            elif phrase == "box":
                found.append(("box", left, 0.5))
            else:
                gated.append(RejectedMask(phrase, "presence 0.03 below 0.20", 0.03, presence=0.03))
        return Proposals.of(
            np.array([mask for _, mask, _ in found]).reshape(-1, height, width).astype(bool),
            [label for label, _, _ in found],
            [score for _, _, score in found],
            np.ones(len(found)),
            np.ones(len(found)),
            rejected=gated,
        )

    def rank(
        self,
        proposals: Proposals,
        *,
        top_k: int | None,
        min_score: float | None,
        no_overlap: bool | None,
    ) -> Result:
        self.rankings.append((top_k, min_score, no_overlap))
        return rank(proposals, RankingConfig(top_k=top_k, min_score=min_score or 0.0))


@pytest.fixture
def fake_pipeline(loads) -> FakePipeline:
    """The pipeline that the commands use in this test."""
    pipeline = FakePipeline()
    loads(pipeline)
    return pipeline


@pytest.fixture(scope="session")
def pocket() -> Pipeline:
    """The pocket preset, loaded once."""
    return load("pocket")


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
