"""Which phrase an example belongs to."""

from __future__ import annotations

import pytest
import torch

from promptseg.models.errors import InputError
from promptseg.models.features.dense import DenseFeatures
from promptseg.pipeline.prompters.reference.examples import EncodedReference, Shot
from promptseg.pipeline.query import pair

FEATURES = DenseFeatures(torch.zeros(2, 3, 4), (20, 30), (20, 30), (10.0, 10.0), "test")


def split(phrases: list[str], *labels: str) -> tuple[list[str], list[str]]:
    """Phrases that have an example, and the labels of the other examples."""
    shot = Shot(FEATURES, torch.ones(2, 3))
    pairs, others = pair(phrases, [EncodedReference(label, (shot,)) for label in labels])
    assert all(item.label == phrase for phrase, item in pairs.items())
    return list(pairs), [item.label for item in others]


def test_examples_go_with_the_phrase_of_their_label() -> None:
    assert split(["dog", "cat"], "cat") == (["cat"], [])
    assert split(["dog"], "reference") == (["dog"], [])
    assert split(["dog"], "mug") == ([], ["mug"])
    assert split(["reference"], "reference") == (["reference"], [])
    assert split(["dog"], "dog", "mug") == (["dog"], ["mug"])
    assert split([], "mug") == ([], ["mug"])


def test_unclear_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="with several phrases, label an example with the one"):
        split(["dog", "cat"], "reference")
    with pytest.raises(InputError, match="some examples of 'dog' have no label; label all of them"):
        split(["dog"], "dog", "reference")
