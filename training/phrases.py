"""The words that the text head is taught, as embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from pictures import Entry
from torch import Tensor
from torch.nn import functional as F
from vocabulary import Vocabulary, concept_of, labels_of, phrases_of, with_general

from promptseg.models.pocket.minilm import MiniLM


class Phrases:
    """Embeds concepts by their words.

    Args:
        vocabulary: All concepts.
        minilm: Embeds the words.
        noise: Standard deviation of the noise on each entry of an embedding.
        entries: The training pictures, of which each word's are counted.
    """

    def __init__(
        self, vocabulary: Vocabulary, minilm: MiniLM, noise: float, entries: Sequence[Entry]
    ) -> None:
        self.noise = noise
        words = {concept: phrases_of(concept) for concept in vocabulary.concepts()}
        flat = minilm.encode([phrase for found in words.values() for phrase in found]).clone()
        parts = torch.split(flat, [len(found) for found in words.values()])
        self.embeddings = dict(zip(words, parts, strict=True))
        self.pictures: Counter[str] = Counter()
        for entry in entries:
            named = vocabulary.named.get(entry.sample.source, frozenset())
            found = {c for label in labels_of(entry) for c in with_general(concept_of(label))}
            self.pictures.update(found & named)

    def embed(self, concepts: Sequence[str], rng: np.random.Generator | None) -> Tensor:
        """Embeddings (P, 384): with a generator of any word of a concept, else of the first."""
        if rng is None:
            return torch.stack([self.embeddings[concept][0] for concept in concepts])
        picked = []
        for concept in concepts:
            words = self.embeddings[concept]
            usual = rng.random() < 0.5
            picked.append(words[0 if usual else int(rng.integers(len(words)))])
        text = torch.stack(picked)
        text = text + self.noise * torch.from_numpy(rng.normal(size=text.shape)).float()
        return F.normalize(text, dim=1)

    def names(self) -> list[str]:
        """The words of :meth:`known_words`, in their order."""
        return [word for c in self.embeddings if self.pictures[c] for word in phrases_of(c)]

    def known_words(self) -> dict[str, Tensor]:
        """All words with their embeddings and how many pictures teach each, to be kept."""
        taught = {c: words for c, words in self.embeddings.items() if self.pictures[c]}
        counts = [self.pictures[c] for c, words in taught.items() for _ in words]
        return {
            "known.embeddings": torch.cat(list(taught.values())).half(),
            "known.pictures": torch.tensor(counts, dtype=torch.int32),
        }
