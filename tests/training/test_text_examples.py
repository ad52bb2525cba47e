"""What the text head learns from a picture made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from features import View
from text_examples import STRIDE, TextExamples, heat_targets, sample_regions, text_grid
from torch import Tensor
from vocabulary import Vocabulary

from promptseg.apps.evaluation.index_folder import VOID, Region, Sample


class Numbered:
    """A stand-in for MiniLM: every word has an axis of its own."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def encode(self, words: tuple[str, ...]) -> Tensor:
        self.words += [word for word in words if word not in self.words]
        return torch.eye(384)[[self.words.index(word) for word in words]]

    def read(self, text: Tensor) -> list[str]:
        """The word that each vector is nearest to."""
        return [self.words[i] for i in text.argmax(1)]


def sample_of(source: str, *regions: tuple[str, tuple[int, ...], bool]) -> Sample:
    made = tuple(Region(label, ids, instances, None) for label, ids, instances in regions)
    return Sample(Path("a.png"), Path("a_ids.png"), source, "train", made)


# Two dogs, each an instance; a man and his hat, which is held out; grass as a whole.
SAMPLE = sample_of(
    "mine",
    ("dog", (1, 2), True),
    ("man", (3,), True),
    ("hat", (4,), True),
    ("grass", (5, 6), False),
)
OTHERS = (sample_of("mine", ("sofa", (1,), True), ("dog", (2,), True)), sample_of("mine"))


@pytest.fixture
def view() -> View:
    """Of 40 x 56 pixels: 3 x 4 cells of the text head, in a grid padded to 64 x 64."""
    ids = np.zeros((40, 56), np.uint8)
    ids[0:16, 0:24] = 1  # cell (0, 0) and half of (0, 1)
    ids[0:4, 32:36] = 2  # a 16th of (0, 2)
    ids[16:32, 0:16] = 3  # (1, 0)
    ids[16:32, 16:32] = 4  # (1, 1)
    ids[32:40, 0:16] = 5  # half of (2, 0); the other half is padding
    ids[16:32, 32:40] = 6  # half of (1, 2)
    ids[0:16, 48:56] = VOID  # (0, 3), as far as it is not padding
    return View((), ids, input_size=(40, 56), grid_size=(16, 16))


@pytest.fixture
def minilm() -> Numbered:
    return Numbered()


@pytest.fixture
def examples(minilm) -> TextExamples:
    samples = [SAMPLE, *OTHERS]
    return TextExamples(Vocabulary.of(samples), minilm, 0.01, samples)


def test_the_grid_covers_the_picture_without_its_padding(view) -> None:
    assert text_grid(view) == (3, 4)
    assert text_grid(replace(view, input_size=(32, 49))) == (2, 4)
    assert STRIDE == 16


def test_targets_are_shares_of_cells_in_the_order_of_the_concepts(examples, view) -> None:
    example = examples(SAMPLE, view, None)
    assert example.concepts == ("dog", "person", "grass", "sofa")
    expected = np.zeros((3, 3, 4))
    expected[0, 0, :3] = 1, 0.5, 1 / 16
    expected[1, 1, 0] = 1
    expected[2, 2, 0] = expected[2, 1, 2] = 0.5
    np.testing.assert_allclose(example.targets, expected, atol=1e-6)
    # Void does not count, nor does a cell that is padding for the most part.
    counted = np.ones((3, 4))
    counted[0, 3] = 0
    counted[2] = 0
    counted[:, 3] = 0
    np.testing.assert_array_equal(example.cell_weight, counted)
    assert example.phrase_weight.tolist() == [1.0]


def test_a_picture_of_nothing_lacks_everything(examples, view) -> None:
    example = examples(OTHERS[1], view, None)
    assert example.concepts == ("dog", "grass", "person", "sofa")
    assert example.targets.shape == (0, 3, 4)
    assert example.phrase_weight.tolist() == [1, 1, 1, 1]


def test_without_chance_the_usual_words_stand_for_the_concepts(examples, minilm, view) -> None:
    example = examples(SAMPLE, view, None)
    assert minilm.read(example.text) == ["dog", "person", "grass", "sofa"]
    assert torch.equal(example.text, minilm.encode(("dog", "person", "grass", "sofa")))


def test_by_chance_other_words_do_with_some_noise(examples, minilm, view) -> None:
    rng = np.random.default_rng(0)
    found = [examples(SAMPLE, view, rng).text for _ in range(60)]
    for text in found:
        torch.testing.assert_close(text.norm(dim=1), torch.ones(4))
    words = list(zip(*map(minilm.read, found), strict=True))
    assert set(words[3]) == {"sofa", "couch"}
    assert set(words[2]) == {"grass", "lawn", "meadow"}
    # Half of the draws are the usual word, and some of the others are as well.
    assert 35 <= words[3].count("sofa") <= 55
    noise = found[0][0] - minilm.encode((words[0][0],))[0]
    assert 0.005 < noise[1:].std() < 0.015


def test_words_are_kept_with_the_pictures_that_teach_them(examples, minilm) -> None:
    known = examples.known_words()
    words = minilm.read(known["known.embeddings"].float())
    pictures = dict(zip(words, known["known.pictures"].tolist(), strict=True))
    assert len(pictures) == len(words)
    assert pictures["dog"] == pictures["puppy"] == 2
    assert pictures["sofa"] == pictures["couch"] == pictures["person"] == pictures["man"] == 1
    assert "hat" not in pictures
    assert known["known.embeddings"].dtype == torch.float16
    assert known["known.pictures"].dtype == torch.int32


def test_words_that_no_picture_teaches_are_not_known(minilm) -> None:
    samples = [sample_of("voc", ("dog", (1,), True))]
    examples = TextExamples(Vocabulary.of(samples), minilm, 0.0, samples)
    known = minilm.read(examples.known_words()["known.embeddings"].float())
    assert {"dog", "puppy", "animal"} <= set(known)
    assert not {"cat", "kitten", "vehicle"} & set(known)
    assert "cat" in examples.embeddings


def draws(examples, view: View, **settings) -> dict[bool, list[tuple[list[int], Tensor]]]:
    """What many draws give, apart for all that a phrase names and for one object each."""
    example = examples(SAMPLE, view, None)
    options = {"limit": 9, "min_area": 0.0} | settings
    found: dict[bool, list[tuple[list[int], Tensor]]] = {True: [], False: []}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        drawn = heat_targets(SAMPLE, view, example, rng=rng, **options)
        if drawn is not None:
            found[drawn[2]].append(drawn[:2])
    return found


def test_heat_is_prompted_with_for_all_that_a_phrase_names_or_for_one_object(
    examples, view
) -> None:
    found = draws(examples, view)
    assert min(len(v) for v in found.values()) > 5
    dog, person, grass = range(3)
    for numbers, targets in found[True]:
        assert sorted(numbers) == [dog, person, grass]
        wanted = {dog: (1, 2), person: (3,), grass: (5, 6)}
        for number, target in zip(numbers, targets, strict=True):
            assert torch.equal(target, view.target(wanted[number]))
    for numbers, targets in found[False]:
        assert sorted(numbers) == [dog, dog, person, grass]
        wanted = {dog: [(1,), (2,)], person: [(3,)], grass: [(5, 6)]}
        for number, target in zip(numbers, targets, strict=True):
            assert any(torch.equal(target, view.target(ids)) for ids in wanted[number])
    # In any order.
    assert len({tuple(numbers) for numbers, _ in found[True]}) > 2


def test_small_targets_are_left_out_and_there_are_no_more_than_asked_for(examples, view) -> None:
    # The second dog covers 1 cell of the decoder's grid of about 130 that count.
    found = draws(examples, view, min_area=0.02)
    assert all(sorted(numbers) == [0, 1, 2] for numbers, _ in found[False])
    found = draws(examples, view, limit=2)
    assert all(len(numbers) == len(targets) == 2 for v in found.values() for numbers, targets in v)
    assert draws(examples, view, min_area=0.9) == {True: [], False: []}


def test_regions_of_one_concept_are_joined() -> None:
    sample = sample_of("mine", ("man", (3,), True), ("dog", (1,), True), ("woman", (2, 3), True))
    assert sample_regions(sample, ("person",)) == [("person", (2, 3))]
    assert sample_regions(sample, ()) == []
