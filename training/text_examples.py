"""What the text head learns from one picture: present phrases with their regions, absent ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from features import View
from torch import Tensor
from torch.nn import functional as F
from vocabulary import Vocabulary, concept_of, phrases_of

from promptseg.apps.evaluation.index_folder import Sample
from promptseg.models.pocket.minilm import MiniLM

STRIDE = 16  # side of a cell of the text head, in pixels of the model input


@dataclass(frozen=True, eq=False)
class TextExample:
    """P phrases for a picture; the first N are present in it.

    Attributes:
        concepts: The concept of each phrase.
        text: The embedding of one word for each concept, (P, 384).
        targets: Share of each cell that each present phrase covers, (N, h, w) in [0, 1].
        cell_weight: 1 for cells that count, else 0, (h, w).
        phrase_weight: Weight of each absent phrase, (P - N,).
    """

    concepts: tuple[str, ...]
    text: Tensor
    targets: Tensor
    cell_weight: Tensor
    phrase_weight: Tensor


def text_grid(view: View) -> tuple[int, int]:
    """Number of rows and columns of the text head's cells, without those that are all padding."""
    return -(-view.input_size[0] // STRIDE), -(-view.input_size[1] // STRIDE)


def _to_cells(fine: Tensor, view: View) -> Tensor:
    rows, columns = text_grid(view)
    return F.avg_pool2d(fine[None], STRIDE // 4)[0, :rows, :columns]


class TextExamples:
    """Makes text examples from pictures.

    Args:
        vocabulary: Tells which concepts are present, absent or unknown in a picture.
        minilm: Embeds the words.
        noise: Standard deviation of the noise on each entry of an embedding.
        samples: The training pictures, to count how many show each concept.
    """

    def __init__(
        self, vocabulary: Vocabulary, minilm: MiniLM, noise: float, samples: Sequence[Sample]
    ) -> None:
        self.vocabulary = vocabulary
        self.noise = noise
        self.embeddings = {
            concept: minilm.encode(phrases_of(concept)).clone() for concept in vocabulary.concepts()
        }
        self.pictures = Counter(c for s in samples for c in vocabulary.present(s))

    def __call__(self, sample: Sample, view: View, rng: np.random.Generator | None) -> TextExample:
        """Phrases for a picture: a random word of each concept, or the first if ``rng`` is None."""
        present = self.vocabulary.present(sample)
        absent = self.vocabulary.absent(sample)
        concepts = (*present, *absent)
        fine = [view.target(ids) for ids in present.values()]
        cells = [_to_cells(target, view) for target in fine]
        rows, columns = text_grid(view)
        return TextExample(
            concepts,
            self._embed(concepts, rng),
            torch.stack(cells) if cells else torch.zeros(0, rows, columns),
            (_to_cells(view.weight(), view) > 0.5).float(),
            torch.tensor(list(absent.values())),
        )

    def known_words(self) -> dict[str, Tensor]:
        """Tensors to save: the embeddings of all taught words, and how many pictures teach each."""
        taught = {c: words for c, words in self.embeddings.items() if self.pictures[c]}
        counts = [self.pictures[c] for c, words in taught.items() for _ in words]
        return {
            "known.embeddings": torch.cat(list(taught.values())).half(),
            "known.pictures": torch.tensor(counts, dtype=torch.int32),
        }

    def _embed(self, concepts: Sequence[str], rng: np.random.Generator | None) -> Tensor:
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


def heat_targets(
    sample: Sample,
    view: View,
    example: TextExample,
    limit: int,
    min_area: float,
    rng: np.random.Generator,
) -> tuple[list[int], Tensor, bool] | None:
    """Choose the phrases whose heat to prompt with, and the masks that should result.

    Args:
        sample: The picture.
        view: The picture's view.
        example: The picture's phrases.
        limit: Maximum number of prompts.
        min_area: Size of the smallest target, as a share of the cells that count.
        rng: Source of randomness.

    Returns:
        Indices of the phrases, targets (B, 4 h, 4 w), and whether each target is everything that
        its phrase names rather than one object; None if there is nothing to prompt for.
    """
    whole = bool(rng.random() < 0.5)
    number = {concept: i for i, concept in enumerate(example.concepts)}
    present = example.concepts[: len(example.targets)]
    weight = view.weight()
    floor = min_area * float(weight.sum())
    if whole:
        groups = list(sample_regions(sample, present))
    else:
        groups = [
            (concept_of(label), ids)
            for label, ids in sample.objects()
            if concept_of(label) in present
        ]
    found: list[tuple[int, Tensor]] = []
    for i in rng.permutation(len(groups)).tolist():
        concept, ids = groups[i]
        target = view.target(ids)
        if float((target * weight).sum()) >= floor and len(found) < limit:
            found.append((number[concept], target))
    if not found:
        return None
    return [n for n, _ in found], torch.stack([target for _, target in found]), whole


def sample_regions(sample: Sample, concepts: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    """The given concepts that are in a picture, each with the ids of all its regions."""
    ids: dict[str, set[int]] = {}
    for region in sample.regions:
        concept = concept_of(region.label)
        if concept in concepts:
            ids.setdefault(concept, set()).update(region.ids)
    return [(concept, tuple(sorted(values))) for concept, values in ids.items()]
