"""A query's own least presence: what the preset's gate takes to be absent is decoded anyway."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import promptseg
from promptseg.models.errors import InputError
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.result import RejectedMask

EXAMPLES = Path(__file__).parents[2] / "apps" / "web" / "examples"
CAT, ASTRONAUT, ROCKET = (
    str(EXAMPLES / name) for name in ("cat.jpg", "astronaut.jpg", "rocket.jpg")
)


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return promptseg.load("pocket")


@pytest.fixture(scope="module")
def helmet() -> promptseg.Reference:
    return promptseg.Reference(ASTRONAUT, box=(280, 300, 480, 500), label="helmet")


def test_the_presence_that_the_reason_tells_is_enough_for_a_phrase(pipe) -> None:
    image = pipe.encode_image(CAT)
    gated = pipe(image, "dog")
    (rejected,) = gated.rejected
    assert len(gated) == 0
    assert rejected.reason == f"presence {rejected.presence:.2f} below 0.15"
    assert rejected.to_dict()["presence"] == rejected.presence
    tried = pipe(image, "dog", min_presence=float(rejected.enough))
    assert "dog" in tried.labels
    above = pipe(image, "dog", min_presence=rejected.presence + 0.01)
    assert len(above) == 0
    assert above.rejected[0].reason.endswith(f"below {rejected.presence + 0.01:.2f}")


def test_zero_lets_everything_pass_and_one_nothing(pipe) -> None:
    image = pipe.encode_image(CAT)
    words = ["cat", "gato", "traffic light"]
    assert set(pipe(image, words, min_presence=0).labels) == set(words)
    nothing = pipe(image, words, min_presence=1)
    assert len(nothing) == 0
    assert all("below 1.00" in item.reason for item in nothing.rejected)


def test_a_value_that_changes_nothing_gives_the_same_masks(pipe) -> None:
    image = pipe.encode_image(CAT)
    own, same = pipe(image, "cat"), pipe(image, "cat", min_presence=0.15)
    np.testing.assert_array_equal(own.masks, same.masks)
    np.testing.assert_array_equal(own.scores, same.scores)


def test_an_example_is_looked_for_anyway(pipe, helmet) -> None:
    image = pipe.encode_image(ROCKET)
    (rejected,) = pipe(image, reference=helmet).rejected
    assert rejected.reason == f"presence {rejected.presence:.2f} below 0.50"
    tried = pipe(image, reference=helmet, min_presence=float(rejected.enough))
    assert set(tried.labels) == {"helmet"}


@pytest.mark.parametrize("strategy", ["prototype", "bidirectional", "graph"])
def test_every_strategy_and_the_debiased_ones_take_it(strategy, helmet) -> None:
    pipe = promptseg.load("pocket", strategy=strategy, debias=True)
    found = pipe(ROCKET, reference=helmet, min_presence=1)
    assert len(found) == 0
    assert "below 1.00" in found.rejected[-1].reason


def test_a_phrase_with_an_example_is_looked_for_anyway(pipe, helmet) -> None:
    image = pipe.encode_image(CAT)
    gated = pipe(image, "helmet", reference=helmet)
    assert len(gated) == 0
    # The two reasons of one side alone tell no value, since it would not be enough for both.
    assert [item.enough for item in gated.rejected[:-1]] == [""] * (len(gated.rejected) - 1)
    tried = pipe(image, "helmet", reference=helmet, min_presence=float(gated.rejected[-1].enough))
    assert "helmet" in tried.labels


def test_what_is_not_wanted_keeps_the_gate(pipe) -> None:
    image = pipe.encode_image(CAT)
    assert "dog" in pipe(image, "dog", min_presence=0).labels
    # By its own gate the dog is not there, so no mask is dropped for its sake.
    kept = pipe(image, "cat", negative_text="dog", min_presence=0)
    np.testing.assert_array_equal(kept.masks, pipe(image, "cat", min_presence=0).masks)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (-0.1, "not -0.1"),
        (1.5, "not 1.5"),
        (float("nan"), "not nan"),
        (10**400, "must be between 0 and 1"),
        ("0.5", "must be a number between 0 and 1, not '0.5'"),
        (True, "must be a number"),
        (1j, "must be a number"),
        (np.complex64(0.5), "must be a number"),
    ],
)
def test_other_values_are_refused(value, told) -> None:
    with pytest.raises(InputError, match="min_presence") as caught:
        promptseg.Query("cat", min_presence=value)
    assert told in str(caught.value)


def test_a_query_keeps_it_with_other_examples() -> None:
    query = promptseg.Query("cat", min_presence=np.float32(0.5))
    assert query.with_references(()).min_presence == 0.5
    assert promptseg.Query("cat").min_presence is None


@pytest.mark.parametrize(
    ("presence", "told"),
    [(0.1499, "0.149"), (0.1, "0.1"), (0.0099, "0.009"), (0.0, "0"), (1e-9, "0"), (1.0, "1"),
     (None, "")],
)  # fmt: skip
def test_enough_is_the_presence_rounded_down(presence, told) -> None:
    rejected = RejectedMask("cat", "why", 0.0, presence=presence)
    assert rejected.enough == told
    assert presence is None or float(told) <= presence
