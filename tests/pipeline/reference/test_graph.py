"""The graph strategy: its formulas against plain NumPy, and its answers on hand-made grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptseg.models.errors import InputError
from promptseg.pipeline.prompters.reference.graph import (
    GraphConfig,
    GraphStrategy,
    agree,
    align,
    choose_cells,
    choose_masks,
    components_of,
    graph_tokens,
    grow,
)

from .scenes import (
    CAT,
    DOG,
    EXAMPLE,
    FIRST,
    GRASS,
    GRID,
    PARTLY,
    SECOND,
    TINY,
    KnowingSegmenter,
    cells,
    features,
    numbered,
    refer,
    scene,
    search,
    unit,
)

CONFIG = GraphConfig(presence_level=0.7, presence_gain=20)


def numpy_tokens(tokens: np.ndarray, equal_channels: bool) -> np.ndarray:
    """Cells (n, C) of length 1."""
    flat = tokens.reshape(-1, tokens.shape[-1])
    if equal_channels:
        flat = flat / np.sqrt((flat**2).sum(axis=0))
    return unit(flat)


def numpy_alignment(examples, target: np.ndarray, equal_channels: bool) -> dict[str, np.ndarray]:
    maps = {"best": [], "mean": [], "away": []}
    image = numpy_tokens(target, equal_channels)
    for tokens, coverage in examples:
        shown, inside = numpy_tokens(tokens, equal_channels), coverage.ravel()
        best, mean, away = [], [], []
        for x in image:
            cosines = [x @ y for y in shown]
            best.append(max(w * s for w, s in zip(inside, cosines, strict=True)))
            mean.append(sum(w * s for w, s in zip(inside, cosines, strict=True)) / sum(inside))
            away.append(
                sum((1 - w) * s for w, s in zip(inside, cosines, strict=True)) / sum(1 - inside)
            )
        for name, values in (("best", best), ("mean", mean), ("away", away)):
            maps[name].append(values)
    found = {name: np.mean(values, axis=0) for name, values in maps.items()}

    def scaled(values: np.ndarray) -> np.ndarray:
        return (values - values.min()) / (values.max() - values.min())

    cross = scaled(found["mean"] * found["best"])
    found["cross"] = np.where(scaled(found["away"]) > cross, 0, cross)
    middle = (found["mean"].max() + found["mean"].min()) / 2
    found["balance"] = found["mean"] ** 2 - found["away"] * middle
    return found


@pytest.mark.parametrize("examples", [[EXAMPLE], [PARTLY], [TINY], [EXAMPLE, TINY]])
@pytest.mark.parametrize("equal_channels", [True, False])
def test_the_maps_equal_numpy(examples, equal_channels: bool) -> None:
    target = scene([(CAT, FIRST), (DOG, SECOND)])
    tokens = graph_tokens(features(target), equal_channels=equal_channels)
    np.testing.assert_allclose(tokens, numpy_tokens(target, equal_channels), atol=1e-6)
    found = align(refer(*examples), tokens, equal_channels=equal_channels)
    for name, values in numpy_alignment(examples, target, equal_channels).items():
        np.testing.assert_allclose(getattr(found, name), values, atol=2e-5, err_msg=name)


def test_the_published_scaling_forgets_the_weight_of_channels() -> None:
    target = scene([(CAT, FIRST), (DOG, SECOND)])
    weights = np.array([1, 100, 1, 0.1])
    for equal_channels in (True, False):
        plain, weighted = (
            graph_tokens(features(tokens), equal_channels=equal_channels)
            for tokens in (target, target * weights)
        )
        assert torch.allclose(plain, weighted, atol=1e-5) == equal_channels


def test_as_many_cells_as_the_map_sums_to() -> None:
    cross = torch.tensor([0.9, 0.0, 0.8, 0.7, 0.2])
    assert choose_cells(cross, 128).tolist() == [0, 2]  # 2.6
    assert choose_cells(cross, 1).tolist() == [0]
    assert choose_cells(cross / 5, 128).tolist() == [0]  # 0.52, but one at least
    assert choose_cells(cross * 0, 128).tolist() == []


def test_components_are_weakly_connected() -> None:
    covers = np.eye(5, dtype=bool)
    covers[0, 1] = True  # one way is enough
    covers[3, 1] = True
    labels = components_of(covers)
    assert labels[0] == labels[1] == labels[3]
    assert len({labels[0], labels[2], labels[4]}) == 3


def test_the_growth_gate_step_by_step() -> None:
    balance = np.float32([0.5, 0.4, 0.3, -0.2, -0.3, -0.4])
    shares = np.float32(
        [
            [1, 1, 0, 0, 0, 0],  # positive: passes first
            [0, 1, 1, 1, 0, 0],  # adds one positive and one negative cell: no
            [0, 1, 1, 0, 0.5, 0],  # adds one positive and half a negative: yes, before that
            [0, 0, 0, 0, 1, 1],  # negative
            [0, 0, 1, 0, 0, 0],  # another component: its own
        ]
    )
    # Means .45, .17, .22, -.35 and .3: in the order 0, 2, 1, 3. After 0 and 2, cell 2 is taken,
    # so that 1 adds only the negative cell 3.
    assert grow(balance, shares, np.array([0, 0, 0, 0, 1])).tolist() == [
        True,
        False,
        True,
        False,
        True,
    ]
    # Alone, 1 has two positive cells and one negative.
    assert grow(balance, shares[[1]], np.array([0])).tolist() == [True]


def test_the_consistency_gate_equals_numpy() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((20, 3)) + 0.5)  # a grid of 4 rows and 5 columns
    clicks = np.array([0, 1, 7, 13, 18, 19])
    for seed in range(10):
        components = np.array([0, 0, 0, 1, 1, 2])
        wholes = np.random.default_rng(seed).random((3, 20)).round(1).astype(np.float32)
        expected = []
        for i, click in enumerate(clicks):
            own = []
            for c in range(3):
                mean = sum(w * vectors[click] @ v for w, v in zip(wholes[c], vectors, strict=True))
                steps = [
                    np.hypot(click // 5 - other // 5, click % 5 - other % 5)
                    for other in clicks[components == c]
                ]
                own.append(mean / wholes[c].sum() / (min(steps) or 1))
            expected.append(np.argmax(own) == components[i])
        expected = np.array(expected)
        for c in range(3):
            members = components == c
            if expected[members].sum() < (~expected[members]).sum():
                expected[members] = False
        found = agree(torch.tensor(vectors, dtype=torch.float32), wholes, components, clicks, 5)
        np.testing.assert_array_equal(found, expected)


def test_masks_that_pass_both_gates_stay_or_one_that_passes_either() -> None:
    yes, no = True, False
    grown, consistent = np.array([yes, yes, no, no]), np.array([yes, no, yes, no])
    surplus = np.float32([1, 5, 9, 20])
    assert choose_masks(grown, consistent, surplus).tolist() == [yes, no, no, no]
    grown = np.array([no, yes, no, no])
    assert choose_masks(grown, consistent, surplus).tolist() == [no, no, yes, no]
    assert not choose_masks(grown & no, consistent & no, surplus).any()


@pytest.fixture
def find(obedient_segmenter):
    """Masks in cells (N, 12, 12) and the answer, where the segmenter knows the things."""

    def run(reference, things, config=CONFIG, *, tokens=None, numbers=None):
        segmenter = KnowingSegmenter(
            obedient_segmenter, numbered(things) if numbers is None else numbers
        )
        tokens = scene(things) if tokens is None else tokens
        return search(GraphStrategy(config), reference, tokens, segmenter)

    return run


def test_a_picture_all_alike_has_no_place(find) -> None:
    masks, matches = find(refer(EXAMPLE), [], tokens=np.tile(GRASS, (12, 12, 1)))
    assert len(masks) == 0
    assert matches.presence == 0
    assert matches.rejected[0].reason.startswith("no place is more like the object")


def test_an_object_of_one_cell(find) -> None:
    masks, _ = find(refer(TINY), [(CAT, SECOND)])
    np.testing.assert_array_equal(masks, [cells(SECOND) > 0])
    dot = (5, 5, 6, 6)
    masks, matches = find(refer(EXAMPLE), [(CAT, dot)])
    np.testing.assert_array_equal(masks, [cells(dot) > 0])
    assert matches.presence > 0.9


def test_masks_that_run_over_the_surroundings_fail(find) -> None:
    # The segmenter takes the object and the whole image for one thing.
    things = [(CAT, (5, 5, 6, 6))]
    masks, matches = find(refer(EXAMPLE), things, numbers=np.zeros(GRID, int))
    assert matches.presence > 0.9
    assert len(masks) == 1  # passes the second gate only: there is nothing else to be likened to
    assert masks.all()


def test_the_order_of_examples_does_not_matter_and_more_of_them_count() -> None:
    target = graph_tokens(features(scene([(CAT, FIRST), (DOG, SECOND)])), equal_channels=True)
    dog = (scene([(DOG, (4, 7, 9, 10))], seed=5), cells((4, 7, 9, 10)))
    maps = [align(refer(*e), target, equal_channels=True) for e in ((EXAMPLE, dog), (dog, EXAMPLE))]
    torch.testing.assert_close(maps[0].cross, maps[1].cross)
    alone = align(refer(EXAMPLE), target, equal_channels=True)
    on_dog = torch.tensor(cells(SECOND).ravel() > 0)
    assert maps[0].cross[on_dog].mean() > alone.cross[on_dog].mean() + 0.3


def test_clicks_are_single_and_on_the_object(obedient_segmenter) -> None:
    things = [(CAT, FIRST), (DOG, SECOND)]
    segmenter = KnowingSegmenter(obedient_segmenter, numbered(things))
    for _ in range(2):
        search(GraphStrategy(CONFIG), refer(EXAMPLE), scene(things), segmenter)
    first, second = segmenter.clicks
    np.testing.assert_array_equal(first, second)
    assert first.shape[1:] == (1, 2)
    for x, y in first[:, 0]:
        assert cells(FIRST)[int(y) // 8, int(x) // 8]
    segmenter.clicks.clear()
    search(GraphStrategy(replace(CONFIG, max_points=2)), refer(EXAMPLE), scene(things), segmenter)
    assert len(segmenter.clicks[0]) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_points": 0}, "max_points must be 1 or more"),
        ({"join": 1.5}, "join must be between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(change, says: str) -> None:
    with pytest.raises(InputError, match=says):
        GraphConfig(**change)
