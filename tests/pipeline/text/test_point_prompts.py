"""Points from similarity maps, against a plain NumPy restatement of CLIP Surgery's rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from promptseg.models.embedding import ImageEmbedding, ImageFeatures
from promptseg.models.errors import InputError
from promptseg.models.grounding.answers import HeatMap
from promptseg.pipeline.prompters.text.point_prompts import (
    PointPrompts,
    SimilarityPointsConfig,
    sample_points,
)

MANY = SimilarityPointsConfig(max_points=1000)


def embedding(height: int, width: int) -> ImageEmbedding:
    features = ImageFeatures(torch.zeros(1, 1, 2, 2))
    return ImageEmbedding(features, original_size=(height, width), input_size=(height, width))


def halve(map_: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear halving: where a side is odd, pixel centres fall between two others."""
    for _ in range(2):  # rows, then columns
        size = len(map_) // 2
        places = (np.arange(size) + 0.5) * len(map_) / size - 0.5
        low = np.floor(places).astype(int)
        share = (places - low)[:, None]
        map_ = (map_[low] * (1 - share) + map_[np.minimum(low + 1, len(map_) - 1)] * share).T
    return map_


@pytest.mark.parametrize("shape", [(8, 8), (9, 13), (12, 6), (2, 2), (5, 3)])
@pytest.mark.parametrize("level", [0.8, 0.3])
def test_the_rule(shape: tuple[int, int], level: float) -> None:
    similarity = np.random.default_rng(3).normal(size=shape)
    small = halve(similarity)
    # One cell has no least and greatest value; of two or more, half at most are on the object.
    if small.size == 1:
        wanted = [(shape[1] / 2, shape[0] / 2, 1)]
    else:
        scaled = (small - small.min()) / (small.max() - small.min())
        order = np.argsort(scaled.ravel())
        count = min(int((scaled >= level).sum()), small.size // 2)
        step = np.array(shape) / small.shape
        wanted = []
        for label, chosen in ((1, order[::-1][:count]), (0, order[:count])):
            for cell in chosen:
                row, column = divmod(int(cell), small.shape[1])
                wanted.append(((column + 0.5) * step[1], (row + 0.5) * step[0], label))
    config = SimilarityPointsConfig(level=level, max_points=1000)
    points, labels = sample_points(similarity.astype(np.float32), config)
    np.testing.assert_allclose(points, np.array(wanted)[:, :2], atol=1e-5)
    assert labels.tolist() == [label for *_, label in wanted]


def test_a_worked_example() -> None:
    # Halved, the map is [[1, 0.9, 0], [0.2, 0.1, 0.5]].
    map_ = np.repeat(np.repeat(np.array([[1, 0.9, 0], [0.2, 0.1, 0.5]]), 2, axis=0), 2, axis=1)
    points, labels = sample_points(map_.astype(np.float32), SimilarityPointsConfig())
    assert points.tolist() == [[1, 1], [3, 1], [5, 1], [3, 3]]
    assert labels.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("most", [1, 3])
def test_the_number_of_points_is_bounded(most: int) -> None:
    similarity = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    all_points, all_labels = sample_points(similarity, SimilarityPointsConfig(0.5, 1000))
    points, labels = sample_points(similarity, SimilarityPointsConfig(0.5, most))
    assert labels.tolist() == [1] * most + [0] * most
    for label in (1, 0):
        assert np.array_equal(points[labels == label], all_points[all_labels == label][:most])


@pytest.mark.parametrize("shape", [(1, 1), (6, 4), (3, 7), (2, 2)])
def test_a_flat_map_gives_its_middle(shape: tuple[int, int]) -> None:
    points, labels = sample_points(np.full(shape, 0.4, np.float32), SimilarityPointsConfig())
    assert points.tolist() == [[shape[1] / 2, shape[0] / 2]]
    assert labels.tolist() == [1]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    level=st.floats(0.01, 1),
    most=st.integers(1, 30),
    shrink=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_points_of_any_map(
    rows: int, columns: int, level: float, most: int, shrink: int, seed: int
) -> None:
    map_ = np.random.default_rng(seed).random((rows, columns)).astype(np.float32)
    points, labels = sample_points(map_, SimilarityPointsConfig(level, most, shrink))
    assert 1 <= (labels == 1).sum() <= most
    assert (labels == 0).sum() in (0, (labels == 1).sum())
    assert len(np.unique(points, axis=0)) == len(points)
    assert ((points > 0) & (points < [columns, rows])).all()


def test_one_prompt_holds_all_points_in_pixels() -> None:
    map_ = np.zeros((4, 8), np.float32)
    map_[2:, :2] = 1.0
    found = HeatMap("cat", map_, presence=0.7)
    prompts = PointPrompts(SimilarityPointsConfig(max_points=1))(found, embedding(40, 160))
    assert prompts.labels == ("cat",)
    assert prompts.prompt_scores.tolist() == pytest.approx([0.7])
    # A halved cell is 40 pixels wide and 20 high; its middle lies between pixels 19 and 20.
    assert prompts.point_coords is not None
    assert prompts.point_coords.tolist() == [[[19.5, 29.5], [19.5, 9.5]]]
    assert prompts.point_labels is not None
    assert prompts.point_labels.tolist() == [[1, 0]]
    assert prompts.boxes is None
    assert prompts.mask_input is None


def test_the_peak_is_the_hottest_cell_of_the_whole_map() -> None:
    map_ = np.zeros((4, 8), np.float32)
    map_[1, 6] = 1.0
    found = HeatMap("cat", map_, presence=0.0)
    assert PointPrompts().peak(found, embedding(40, 160)) == (129.5, 14.5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 50)])
def test_points_stay_in_small_pictures(size: tuple[int, int]) -> None:
    map_ = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    found, seen = HeatMap("cat", map_, 0.5), embedding(*size)
    coords = PointPrompts(MANY)(found, seen).point_coords
    assert coords is not None
    for x, y in (*coords[0].tolist(), PointPrompts().peak(found, seen)):
        assert 0 <= x <= size[1] - 1
        assert 0 <= y <= size[0] - 1


@pytest.mark.parametrize(
    "setting", [{"level": 0}, {"level": 1.1}, {"max_points": 0}, {"shrink": 0}]
)
def test_settings_without_sense_are_refused(setting: dict) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        SimilarityPointsConfig(**setting)
