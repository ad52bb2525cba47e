"""The words' embeddings, and what is kept of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from phrases import Phrases
from pictures import Entry
from torch import Tensor
from vocabulary import Vocabulary

from promptseg.apps.evaluation.index_folder import Region, Sample


class Numbered:
    """A stand-in for MiniLM: every word has an axis of its own."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def encode(self, words: list[str]) -> Tensor:
        self.words += [word for word in words if word not in self.words]
        return torch.eye(384)[[self.words.index(word) for word in words]]

    def read(self, text: Tensor) -> list[str]:
        """The word that each vector is nearest to."""
        return [self.words[i] for i in text.argmax(1)]


def entry_of(*labels: str, words: tuple[str, ...] = ()) -> Entry:
    regions = tuple(Region(label, (i,), True, None) for i, label in enumerate(labels, start=1))
    path = Path("a.png")
    sample = Sample(path, path, "mine", "train", regions)
    return Entry(sample, tuple(() for _ in labels), tuple((word, ()) for word in words))


def make(noise: float, *entries: Entry) -> tuple[Phrases, Numbered]:
    minilm = Numbered()
    return Phrases(Vocabulary.of(entries), minilm, noise, entries), minilm


def test_without_chance_a_concept_goes_by_its_usual_word() -> None:
    phrases, minilm = make(0.0, entry_of("couch", "man"))
    assert minilm.read(phrases.embed(["person", "sofa"], None)) == ["person", "sofa"]


def test_with_chance_by_any_of_its_words_and_with_noise() -> None:
    phrases, minilm = make(0.01, entry_of("couch"))
    rng = np.random.default_rng(0)
    found = [phrases.embed(["sofa"], rng) for _ in range(60)]
    read = [minilm.read(text)[0] for text in found]
    assert set(read) == {"sofa", "couch", "settee"}
    assert read.count("sofa") > 30
    assert all(0.9 < float(text.norm()) < 1.1 for text in found)
    assert len({float(text[0, -1]) for text in found}) > 50


def test_what_is_kept_are_the_words_of_pictures_with_their_number() -> None:
    entries = (entry_of("dog", "dog"), entry_of("dog", "hat"), entry_of(words=("gnome",)))
    phrases, minilm = make(0.0, *entries)
    kept = phrases.known_words()
    words = minilm.read(kept["known.embeddings"].float())
    counts = dict(zip(words, kept["known.pictures"].tolist(), strict=True))
    assert counts["dog"] == counts["puppy"] == counts["animal"] == 2
    assert counts["gnome"] == 1
    assert "hat" not in counts  # held out
