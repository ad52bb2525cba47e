"""The shipped pocket weights still predict what they did when they were stored.

    python tests/pipeline/test_shipped_weights.py

stores their predictions anew in tests/pipeline/data. Run it after a change that is meant to change
them, such as new weights, and look at the masks before they are committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

import promptseg
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.result import Result

DATA = Path(__file__).parent / "data"
FIGURES = DATA / "predictions.json"
FIELDS = ("scores", "iou_predictions", "stability_scores", "prompt_scores")
# Photographs that come with scikit-image, and what is asked of each. Coordinates are in pixels.
QUERIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "cat": ("chelsea", {"text": "cat"}),
    "person": ("astronaut", {"text": "person"}),
    "cup": ("coffee", {"boxes": [(170, 15, 412, 310)]}),
}


def predict(pipeline: Pipeline, name: str) -> Result:
    """The best mask for a query: further ones may hang on a hair's breadth."""
    picture, query = QUERIES[name]
    result = pipeline(getattr(data, picture)(), top_k=1, **query)
    if len(result) != 1:
        reasons = [item.reason for item in result.rejected]
        raise ValueError(f"expected a mask for {name!r}, found none: {reasons}")
    return result


def renew() -> None:
    """Store the predictions of the weights as they are."""
    pipeline = promptseg.load("pocket", dtype="fp32")
    DATA.mkdir(exist_ok=True)
    figures = {}
    for name in QUERIES:
        result = predict(pipeline, name)
        Image.fromarray(result.masks[0]).save(DATA / f"{name}.png", optimize=True)
        figures[name] = {field: round(float(getattr(result, field)[0]), 4) for field in FIELDS}
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def pocket() -> Pipeline:
    return promptseg.load("pocket", dtype="fp32")


@pytest.mark.parametrize("name", QUERIES)
def test_a_stored_prediction_comes_again(pocket, name: str) -> None:
    with Image.open(DATA / f"{name}.png") as image:
        stored = np.array(image)
    assert stored.dtype == bool
    assert 0.02 < stored.mean() < 0.98
    result = predict(pocket, name)
    (mask,) = result.masks
    assert (mask & stored).sum() / (mask | stored).sum() > 0.98
    expected = json.loads(FIGURES.read_text(encoding="utf-8"))[name]
    found = {field: float(getattr(result, field)[0]) for field in FIELDS}
    assert found == pytest.approx(expected, abs=0.02)


def test_nothing_else_is_stored() -> None:
    assert {path.name for path in DATA.iterdir()} == {FIGURES.name, *(f"{n}.png" for n in QUERIES)}
    assert json.loads(FIGURES.read_text(encoding="utf-8")).keys() == QUERIES.keys()


if __name__ == "__main__":
    renew()
