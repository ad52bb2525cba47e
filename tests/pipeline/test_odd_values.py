"""Odd values end in the documented errors, on one line, and odd processes are told what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from promptseg.models.errors import InputError, ModelNotFoundError
from promptseg.models.registry import create_model
from promptseg.pipeline.decoding.prompts import PromptSet
from promptseg.pipeline.decoding.segmenter import Segmenter
from promptseg.pipeline.images import load_image
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.presets.load import load

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)

FORKED = """
import os, sys
import numpy as np
import promptseg, torch

torch.set_num_threads(2)
pipe = promptseg.load("pocket")
image = np.zeros((40, 60, 3), np.uint8)
pipe(image, points=(5, 5))
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    pipe(image, points=(5, 5))
except promptseg.PromptsegError as error:
    assert "do not survive a fork" in str(error)
else:
    os._exit(1)
torch.set_num_threads(1)
os._exit(0 if len(pipe(image, points=(5, 5)).masks) else 2)
"""


@pytest.fixture
def pipe(obedient_segmenter, make_grounder) -> Pipeline:
    grounder = make_grounder({}).prompter(obedient_segmenter)
    return Pipeline(obedient_segmenter, text_prompter=grounder)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"points": [(10**400, 3)]}, "points must be an array of numbers|finite"),
        ({"points": [(1e39, 3)]}, "beyond float32's range"),
        ({"points": [(1, 2)], "point_labels": [[1], [1, 0]]}, "point_labels must be an array"),
        ({"points": torch.full((1, 2), torch.nan)}, "points must be finite"),
        ({"boxes": [(1, 2, 3)]}, "boxes must have shape"),
        ({"boxes": "abcd"}, "boxes must be an array of numbers"),
        ({"boxes": [(1 + 2j, 2, 3, 4)]}, "boxes must be an array of numbers"),
        ({"text": 3}, "text must be text"),
        ({"text": [b"dog"]}, "text must be text"),
        ({"text": {"dog": 1}, "top_k": "many"}, "top_k must be a whole number"),
        ({"text": "dog", "min_score": "0.5"}, "min_score must be between 0 and 1"),
        ({"text": "dog", "min_score": float("nan")}, "min_score must be between 0 and 1"),
        ({"text": "dog\ud800"}, "is not valid Unicode"),
        ({"reference": ["a.png"]}, "write Reference"),
        ({"reference": []}, "is an empty list"),
    ],
    ids=str,
)
def test_odd_queries(pipe, query: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        pipe(IMAGE, **query)
    assert "\n" not in str(caught.value)


def test_tensors_that_require_a_gradient_are_points(pipe) -> None:
    point = torch.tensor([[5.0, 6.0]], requires_grad=True)
    assert len(pipe(IMAGE, points=point).masks) > 0


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_subclasses_of_arrays_are_images() -> None:
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    expected = load_image(grey)
    np.testing.assert_array_equal(load_image(np.asmatrix(grey)), expected)
    np.testing.assert_array_equal(load_image(np.ma.masked_equal(grey, 3)), expected)


def test_ragged_labels_of_prompts() -> None:
    with pytest.raises(InputError, match="point_labels must be an array of numbers"):
        PromptSet(
            prompt_scores=np.ones(1, np.float32),
            labels=("a",),
            point_coords=np.zeros((1, 2, 2)),
            point_labels=[[1], [1, 0]],
        )


def test_an_embedding_without_its_image_cannot_be_asked_for_text(pipe) -> None:
    def look(embedding, phrases):
        return embedding.pixels()

    pipe.text_prompter.grounder = look
    embedding = replace(pipe.encode_image(IMAGE), image=None)
    with pytest.raises(InputError, match="an embedding that keeps its image"):
        pipe(embedding, "dog")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: load(["pocket"]), ModelNotFoundError, "no preset is called"),
        (lambda: load(None), ModelNotFoundError, "no preset is called"),
        (lambda: load("pocket", strategy=["graph"]), ModelNotFoundError, "no matching strategy"),
        (lambda: load("pocket", weights=3), InputError, "weights must be the path"),
        (lambda: load("pocket", device="toaster"), InputError, "cannot run on the device"),
        (lambda: load("pocket", device=3.5), InputError, "cannot run on the device"),
        (lambda: load("pocket", dtype="int8"), InputError, "no dtype 'int8'"),
        (lambda: create_model("sam_vit_t", device="toaster"), InputError, "cannot run on"),
        (lambda: create_model("sam_vit_t", device="cuda:77"), InputError, "cannot run on"),
        (lambda: create_model(["sam_vit_t"]), ModelNotFoundError, "no model is called"),
    ],
    ids=range(10),
)
def test_odd_names(call: Callable[[], object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_weights_in_half_precision_are_refused_with_the_remedy() -> None:
    model = create_model("sam_vit_t").half()
    with pytest.raises(InputError, match=r"weights are float16; .* dtype='float16'"):
        Segmenter(model)


def test_a_fork_after_loading_says_why_it_does_not_work() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        timeout=120,
        check=False,
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr
