"""Positional debias: features that hold what and where, and the where taken away."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from promptseg.models.embedding import ImageEmbedding
from promptseg.models.errors import InputError
from promptseg.models.features.dense import DenseFeatures
from promptseg.pipeline.prompters.reference.bidirectional import BidirectionalConfig
from promptseg.pipeline.prompters.reference.debias import (
    DebiasedStrategy,
    PositionalBasis,
    find_positional_basis,
)
from promptseg.pipeline.prompters.reference.examples import EncodedReference, Shot
from promptseg.pipeline.prompters.reference.graph import GraphConfig
from promptseg.pipeline.prompters.reference.prototype import PrototypeConfig
from promptseg.pipeline.prompters.reference.strategies import StrategyConfigs, create_strategy

from .scenes import (
    CAT,
    DOG,
    FIRST,
    SECOND,
    KnowingSegmenter,
    cells,
    numbered,
    search,
    unit,
)

GRID = (12, 12)
CHANNELS = 10
# The where: four waves over the picture, in channels of their own that are mixed with the rest.
ROWS, COLUMNS = np.indices(GRID) / 12 * 2 * np.pi
WAVES = np.stack([np.sin(ROWS), np.cos(ROWS), np.sin(COLUMNS), np.cos(COLUMNS)], axis=-1)
MIX = np.linalg.qr(np.random.default_rng(0).standard_normal((CHANNELS, CHANNELS)))[0]
COMMON = 1.0  # of every cell, in a channel that tells nothing


def mixed(what: np.ndarray, strength: float = 3.0) -> np.ndarray:
    """Tokens (12, 12, 10) of cells that show vectors (12, 12, 4), and where they are."""
    shares = [what, strength * WAVES, np.full((*GRID, 1), COMMON), np.zeros((*GRID, 1))]
    return np.concatenate(shares, axis=-1) @ MIX.T


def features(tokens: np.ndarray, model_id: str = "test") -> DenseFeatures:
    return DenseFeatures(
        torch.tensor(tokens, dtype=torch.float32), (96, 96), (96, 96), (8.0, 8.0), model_id
    )


@dataclass
class Where:
    """An extractor of tokens that it is given, for a black image."""

    tokens: np.ndarray
    model_id: str = "test"
    seen: list[np.ndarray] = field(default_factory=list)

    def extract(self, image: np.ndarray) -> DenseFeatures:
        self.seen.append(image)
        return features(self.tokens, self.model_id)

    def extract_encoded(self, embedding: ImageEmbedding) -> DenseFeatures:
        return self.extract(embedding.pixels())


BLACK = mixed(np.zeros((*GRID, 4)))


def test_the_basis_equals_numpy() -> None:
    tokens = BLACK + 0.01 * np.random.default_rng(1).standard_normal(BLACK.shape)
    extractor = Where(tokens)
    flat = unit(tokens).reshape(-1, CHANNELS)
    covariance = np.cov(flat, rowvar=False)
    values, vectors = np.linalg.eigh(covariance)
    largest = vectors[:, np.argsort(-values)[:4]]
    basis = find_positional_basis(extractor, components=4)
    assert basis.directions.shape == (CHANNELS, 4)
    assert basis.model_id == "test"
    directions = basis.directions.numpy()
    np.testing.assert_allclose(directions.T @ directions, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(directions @ directions.T, largest @ largest.T, atol=1e-4)
    (black,) = extractor.seen
    assert black.dtype == np.uint8
    assert not black.any()
    removed = basis.remove(features(tokens)).tokens.numpy()
    expected = unit(unit(tokens) - unit(tokens) @ largest @ largest.T)
    np.testing.assert_allclose(removed, expected, atol=1e-3)
    # By default the share published for 1024 channels.
    assert find_positional_basis(extractor).directions.shape[1] == round(10 * 500 / 1024)


def test_what_is_left_tells_what_and_not_where() -> None:
    basis = find_positional_basis(Where(BLACK), components=4)
    what = np.tile(CAT, (*GRID, 1))
    what[:, 6:] = DOG
    before = features(mixed(what))
    after = basis.remove(before)
    assert after.grid_size == before.grid_size
    assert after.cell_size == before.cell_size
    cosines = {}
    for name, found in (("before", before), ("after", after)):
        tokens = unit(found.tokens.numpy())
        cosines[name] = tokens[0, 0] @ tokens[6, 5], tokens[0, 0] @ tokens[0, 11]
    same, other = cosines["before"]
    assert same < other  # the place outweighs
    same, other = cosines["after"]
    assert same == pytest.approx(1, abs=1e-3)
    assert other < 0.8


def test_features_without_places_stay_as_they_are() -> None:
    # As those of a convolutional network on a black image, with rounding errors.
    alike = np.tile(np.arange(1.0, 11), (*GRID, 1))
    basis = find_positional_basis(Where(alike))
    assert basis.directions.shape == (CHANNELS, 0)
    tokens = np.random.default_rng(0).standard_normal((*GRID, CHANNELS))
    np.testing.assert_allclose(basis.remove(features(tokens)).tokens, unit(tokens), atol=1e-6)


def test_a_cell_of_nothing_but_its_place_becomes_nothing() -> None:
    basis = PositionalBasis(torch.eye(3)[:, :2], "test")
    tokens = np.array([[[3.0, 4.0, 0.0], [1.0, 1.0, 2.0]]])
    left = basis.remove(features(tokens)).tokens
    torch.testing.assert_close(left, torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]))


def test_senseless_numbers_and_other_models_are_refused() -> None:
    for components in (-1, CHANNELS):
        with pytest.raises(InputError, match="components must be from 0 to 9"):
            find_positional_basis(Where(BLACK), components=components)
    basis = find_positional_basis(Where(BLACK, "other"), components=2)
    with pytest.raises(ValueError, match="basis is of 'other', the features are of 'test'"):
        basis.remove(features(BLACK))


CONFIGS = StrategyConfigs(
    prototype=PrototypeConfig(level=0.1, level_fall=0.0, presence_level=0.6, presence_gain=20),
    bidirectional=BidirectionalConfig(presence_level=0.6, presence_gain=20),
    graph=GraphConfig(presence_level=0.6, presence_gain=20, equal_channels=False),
)


@pytest.mark.parametrize("name", ["bidirectional", "graph"])
def test_every_strategy_finds_by_what_instead_of_where(obedient_segmenter, name: str) -> None:
    def draw(box, what, other) -> np.ndarray:
        grid = np.tile(np.float64([0, 0, 1, 0]), (*GRID, 1))
        for vector, (x0, y0, x1, y1) in ((what, box), (DOG, other)):
            grid[y0:y1, x0:x1] = vector
        return mixed(grid, strength=4)

    # On the example the cat is where the dog is on the target.
    shown = Shot(features(draw(FIRST, CAT, SECOND)), torch.tensor(cells(FIRST)).float())
    reference = EncodedReference("cat", (shown,))
    target = draw(SECOND, CAT, FIRST)
    segmenter = KnowingSegmenter(obedient_segmenter, numbered([(DOG, FIRST), (CAT, SECOND)]))
    basis = find_positional_basis(Where(BLACK), components=4)
    plain = create_strategy(name, replace_presence(CONFIGS, name))
    biased, _ = search(plain, reference, target, segmenter)
    assert not np.array_equal(biased, [cells(SECOND) > 0])
    debiased = DebiasedStrategy(create_strategy(name, CONFIGS), basis)
    masks, matches = search(debiased, reference, target, segmenter)
    np.testing.assert_array_equal(masks, [cells(SECOND) > 0])
    assert matches.presence > 0.9
    # What was given is left alone.
    assert torch.equal(reference.shots[0].features.tokens, shown.features.tokens)


def replace_presence(configs: StrategyConfigs, name: str) -> StrategyConfigs:
    """With the gate open."""
    return replace(configs, **{name: replace(getattr(configs, name), min_presence=0.0)})
