"""The bidirectional strategy: its formulas against plain NumPy, its answers on hand-made grids."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from promptseg.models.errors import InputError
from promptseg.pipeline.prompters.reference.bidirectional import (
    BidirectionalConfig,
    BidirectionalStrategy,
    Fitness,
    fitness_of,
    match_both_ways,
    select_masks,
    spaced,
    transport_distance,
)
from promptseg.pipeline.prompters.reference.matching import collect_tokens, unit_tokens
from promptseg.pipeline.prompters.reference.point_sets import cluster, draw_sets

from .scenes import (
    CAT,
    DOG,
    EXAMPLE,
    FIRST,
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

CONFIG = BidirectionalConfig(presence_level=0.7, presence_gain=20)


def best_assignment(gains: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows and columns of the assignment of highest sum, by trying all."""
    if gains.shape[0] > gains.shape[1]:
        columns, rows = best_assignment(gains.T)
        order = np.argsort(rows)
        return [rows[i] for i in order], [columns[i] for i in order]
    rows = list(range(gains.shape[0]))
    best = max(permutations(range(gains.shape[1]), len(rows)), key=lambda c: gains[rows, c].sum())
    return rows, list(best)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shots", [1, 2])
def test_matching_equals_all_assignments_tried(seed: int, shots: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.standard_normal((2, 3, 3))
    examples = []
    for _ in range(shots):
        coverage = np.array([[0.9, 0.4, 0.0], [0.6, 0.0, 0.0]])
        examples.append((rng.standard_normal((2, 3, 3)), coverage))
    inside = np.concatenate([coverage.ravel() >= 0.5 for _, coverage in examples])
    shown = np.concatenate([unit(tokens).reshape(-1, 3) for tokens, _ in examples])
    cosines = shown @ unit(target).reshape(-1, 3).T
    rows, found = best_assignment(cosines[inside])
    back = dict(zip(*best_assignment(cosines.T[found]), strict=True))
    expected = {
        cell: cosines[inside][row, cell]
        for i, (row, cell) in enumerate(zip(rows, found, strict=True))
        if inside[back[i]]
    }

    reference = refer(*examples)
    bank, tokens = collect_tokens(reference), unit_tokens(features(target))
    matched = match_both_ways(reference, bank, tokens, CONFIG)
    assert dict(zip(matched.cells, matched.cosines, strict=True)) == pytest.approx(
        expected, abs=1e-5
    )
    assert (np.diff(matched.cosines) <= 0).all()


def test_of_many_matches_the_better_half_stays() -> None:
    reference = refer(EXAMPLE)  # of 4 x 5 cells
    bank, tokens = collect_tokens(reference), unit_tokens(features(EXAMPLE[0]))
    everything = match_both_ways(reference, bank, tokens, CONFIG)
    assert sorted(everything.cells) == np.flatnonzero(EXAMPLE[1]).tolist()
    for keep, count in ((20, 20), (19, 10)):
        matched = match_both_ways(reference, bank, tokens, replace(CONFIG, keep_all=keep))
        np.testing.assert_array_equal(matched.cells, everything.cells[:count])
    few = match_both_ways(reference, bank, tokens, replace(CONFIG, max_cells=6))
    assert len(few.cells) == 6


def test_spaced_indices() -> None:
    assert spaced(5, 5).tolist() == [0, 1, 2, 3, 4]
    assert spaced(6, 3).tolist() == [1, 3, 5]
    assert spaced(2, 6).tolist() == [0, 0, 0, 1, 1, 1]
    assert spaced(1, 2).tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (8, 2), (1, 5), (1, 1)])
def test_the_transport_is_optimal(shape: tuple[int, int]) -> None:
    cost = np.random.default_rng(0).random(shape).astype(np.float32)
    n, m = shape
    # Moves x (n * m) of all weight at the least cost.
    leaving, arriving = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    expected = linprog(cost.ravel(), A_eq=np.vstack([leaving, arriving]), b_eq=weights).fun
    assert transport_distance(cost, 100) == pytest.approx(expected, abs=1e-6)
    assert transport_distance(cost.T, 100) == pytest.approx(expected, abs=1e-6)


def test_the_transport_of_other_numbers_is_near_the_optimum_and_bounded() -> None:
    rng = np.random.default_rng(1)
    places = np.sort(rng.random(30)), np.sort(rng.random(70))  # in an order that is fair
    cost = np.abs(places[0][:, None] - places[1]).astype(np.float32)
    steps = np.linspace(0, 1, 2100, endpoint=False)  # of one dimension, by the quantiles
    exact = np.abs(places[0][(steps * 30).astype(int)] - places[1][(steps * 70).astype(int)]).mean()
    assert transport_distance(cost, 100) == pytest.approx(exact, abs=0.01)
    assert transport_distance(cost, 10) == pytest.approx(exact, abs=0.05)


def test_clusters_are_the_blobs() -> None:
    rng = np.random.default_rng(0)
    blobs = [rng.normal(middle, 1, (6, 2)) for middle in ((0, 0), (50, 0), (0, 50))]
    points = np.concatenate(blobs).astype(np.float32)
    for seed in range(5):
        centres, labels = cluster(points, 3, np.random.default_rng(seed))
        expected = sorted(blob.mean(0).round(3).tolist() for blob in blobs)
        assert sorted(centres.astype(float).round(3).tolist()) == expected
        means = np.repeat([blob.mean(0) for blob in blobs], 6, axis=0)
        np.testing.assert_allclose(centres[labels], means, atol=1e-5)
    centres, labels = cluster(points[[0, 1, 0]], 8, rng)
    assert len(centres) == 2
    np.testing.assert_array_equal(centres[labels], points[[0, 1, 0]])


def test_few_points_give_all_sets() -> None:
    points = np.float32([[0, 0], [1, 0], [9, 9]])
    centres, labels = np.float32([[0.5, 0], [9, 9]]), np.array([0, 0, 1])
    rng = np.random.default_rng(0)
    sets = draw_sets(points, centres, labels, rng, sizes=(1, 6), count=64)
    found = {tuple(sorted(map(tuple, one.tolist()))) for size in sets for one in size}
    everything = [tuple(p) for p in points.tolist()]
    of_points = {c for size in (1, 2, 3) for c in combinations(everything, size)}
    assert found == of_points | {((0.5, 0),), ((0.5, 0), (9, 9))}
    assert [size.shape for size in sets] == [(4, 1, 2), (4, 2, 2), (1, 3, 2)]


def test_of_many_sets_some_are_drawn_from_parts_instances_and_the_whole() -> None:
    points = np.random.default_rng(0).random((40, 2)).astype(np.float32)
    centres, labels = cluster(points, 4, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    sets = draw_sets(points, centres, labels, rng, sizes=(2, 5), count=30)
    assert [size.shape[1] for size in sets] == [2, 3, 4, 5]
    number = {tuple(p): label for p, label in zip(points.tolist(), labels, strict=True)}
    whole = {tuple(c) for c in centres.tolist()}
    for size in sets:
        kinds = {"whole": 0, "part": 0, "instance": 0}
        for one in size.tolist():
            members = {tuple(p) for p in one}
            assert len(members) == size.shape[1]
            if members <= whole:
                kinds["whole"] += 1
            else:
                kinds["part" if len({number[p] for p in members}) == 1 else "instance"] += 1
        assert len(size) <= 10 + 10 + 8
        assert kinds["part"] >= 4
        assert kinds["instance"] >= 4
    # A pool with fewer points than a set's least gives all of them.
    of_centre, of_both = draw_sets(
        points[:2], centres[:1], np.zeros(2, int), rng, sizes=(5, 6), count=30
    )
    np.testing.assert_array_equal(of_centre, centres[None, :1])
    np.testing.assert_array_equal(of_both, points[None, :2])


@pytest.mark.parametrize("examples", [[EXAMPLE], [PARTLY], [EXAMPLE, TINY]])
def test_fitness_equals_numpy(examples) -> None:
    target = scene([(CAT, FIRST), (DOG, SECOND)])
    masks = np.array([cells(FIRST), cells(SECOND), cells(FIRST, SECOND), cells((0, 0, 9, 4))]) > 0
    matched = np.array([13, 14, 26, 27, 91])  # four of the cat's and one of the dog's
    bank = collect_tokens(refer(*examples))
    fitness = fitness_of(
        bank,
        unit_tokens(features(target)),
        masks.reshape(4, -1),
        masks.reshape(4, -1)[:, matched],
        replace(CONFIG, emd_cells=1000),
    )
    foreground = np.concatenate([unit(tokens)[c >= min(0.5, c.max())] for tokens, c in examples])
    for i, mask in enumerate(masks):
        covered = unit(target)[mask]
        n, m = len(foreground), len(covered)
        cost = (1 - foreground @ covered.T) / 2
        leaving, arriving = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
        weights = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
        exact = linprog(cost.ravel(), A_eq=np.vstack([leaving, arriving]), b_eq=weights).fun
        assert fitness.emd[i] == pytest.approx(1 - exact, abs=0.01)
        hits = sum(mask.ravel()[cell] for cell in matched)
        assert fitness.purity[i] == pytest.approx(hits / mask.sum())
        assert fitness.coverage[i] == pytest.approx(hits / 5)
    assert fitness.emd[0] > max(fitness.emd[1:])
    np.testing.assert_allclose(fitness.coverage, [0.8, 0.2, 1.0, 0.8])


def test_masks_are_selected_by_the_rules() -> None:
    fitness = Fitness(
        emd=np.float32([0.9, 0.85, 0.7, 0.5, 0.95]),
        purity=np.float32([0.5, 0.1, 0.4, 0.6, 0.01]),
        coverage=np.float32([1, 0.5, 0.5, 0.2, 0.9]),
    )
    config = replace(CONFIG, max_excess=1)
    chosen, scores, reasons = select_masks(fitness, config)
    np.testing.assert_allclose(scores, fitness.emd)
    assert chosen.tolist() == [0, 1, 2]
    assert reasons == {4: "purity 0.01 below 0.02", 3: "score 0.50 far from the best"}
    # Distances .1, .15, .3, .5: less than a tenth of .5 above the nearest.
    chosen, _, _ = select_masks(fitness, replace(config, max_excess=0.11))
    assert chosen.tolist() == [0, 1]
    assert select_masks(fitness, replace(config, max_masks=2))[0].tolist() == [0, 1]
    # Even if all are far, the nearest stays; so does the best where all are below a least value.
    assert select_masks(fitness, replace(config, max_distance=0.05))[0].tolist() == [0]
    strict = replace(config, min_coverage=2.0, max_excess=0.1)
    assert select_masks(fitness, strict)[0].tolist() == [0]
    chosen, scores, reasons = select_masks(fitness, replace(config, min_emd=0.8, min_purity=0))
    assert chosen.tolist() == [4, 0, 1]
    assert reasons[2] == "emd 0.70 below 0.80"
    weighted = replace(config, emd_weight=0.8, purity_weight=0.2, coverage_power=1.0)
    _, scores, _ = select_masks(fitness, weighted)
    expected = 0.8 * fitness.emd + 0.2 * fitness.purity * fitness.coverage
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.fixture
def find(obedient_segmenter):
    """Masks in cells (N, 12, 12) and the answer, where the segmenter knows the things."""

    def run(reference, things, config=CONFIG, *, tokens=None, numbers=None):
        segmenter = KnowingSegmenter(
            obedient_segmenter, numbered(things) if numbers is None else numbers
        )
        tokens = scene(things) if tokens is None else tokens
        return search(BidirectionalStrategy(config), reference, tokens, segmenter)

    return run


def test_instances_that_a_set_of_points_gives_together_are_one_mask(find) -> None:
    # No click set over both may count, for it gives them as one mask.
    config = replace(CONFIG, set_sizes=(1, 1))
    things = [(CAT, FIRST), (CAT, SECOND), (DOG, (1, 8, 4, 11))]
    assert len(find(refer(EXAMPLE), things, config)[0]) == 2
    together, _ = find(refer(EXAMPLE), [(CAT, FIRST), (CAT, SECOND)])
    np.testing.assert_array_equal(together, [cells(FIRST, SECOND) > 0])


def test_where_nothing_comes_back_nothing_is_there(find) -> None:
    # Each cell of the image is likest to a cell beside the object, and each of the object's has a
    # better partner there.
    shown = np.array([[[1.0, 0.2], [1.0, 0.0]]])
    reference = refer((shown, np.array([[1.0, 0.0]])))
    bank, tokens = collect_tokens(reference), torch.tensor([[1.0, 0.0]])
    assert len(match_both_ways(reference, bank, tokens, CONFIG).cells) == 0
    masks, matches = find(reference, [], tokens=np.tile([1.0, 0.0], (12, 12, 1)), numbers=cells())
    assert len(masks) == 0
    assert matches.presence == 0
    assert matches.rejected[0].reason.startswith("no cell of the image matches")


def test_an_object_of_one_cell(find) -> None:
    masks, _ = find(refer(TINY), [(CAT, SECOND)])
    np.testing.assert_array_equal(masks, [cells(SECOND) > 0])
    dot = (5, 5, 6, 6)
    config = replace(CONFIG, keep_all=1, min_purity=0)
    tokens = scene([(CAT, dot)])
    masks, matches = find(refer(TINY), [(CAT, dot)], config, tokens=tokens)
    np.testing.assert_array_equal(masks, [cells(dot) > 0])
    assert matches.presence > 0.9


def test_masks_that_are_not_good_say_so(find) -> None:
    things = [(CAT, SECOND)]
    _, matches = find(refer(EXAMPLE), things, replace(CONFIG, min_iou_prediction=0.99))
    (dropped,) = matches.rejected
    assert dropped.reason == "no mask of the matched cells is stable with a high predicted IoU"
    assert dropped.prompt_score == matches.presence > 0.9
    # Of the dog only a part matches, so that its mask is less like the object.
    _, matches = find(refer(PARTLY), [(CAT, FIRST), (0.5 * CAT + 0.5 * DOG, SECOND)])
    assert all("far from the best" in item.reason for item in matches.rejected)


def test_the_order_of_examples_and_of_their_cells_does_not_matter() -> None:
    tokens = unit_tokens(features(scene([(CAT, FIRST), (DOG, SECOND)])))
    config = replace(CONFIG, max_cells=25, keep_all=15)
    other = (scene([(CAT, (4, 7, 9, 10))], seed=5), cells((4, 7, 9, 10)))
    shuffled = np.random.default_rng(0).permutation(144)
    mixed = tuple(
        part.reshape(144, *part.shape[2:])[shuffled].reshape(part.shape) for part in other
    )
    found = []
    for examples in ((EXAMPLE, other), (other, EXAMPLE), (EXAMPLE, mixed)):
        reference = refer(*examples)
        found.append(match_both_ways(reference, collect_tokens(reference), tokens, config))
    for again in found[1:]:
        np.testing.assert_array_equal(again.cells, found[0].cells)
        np.testing.assert_allclose(again.cosines, found[0].cosines, atol=1e-6)


def test_it_answers_the_same_each_time_and_leaves_the_global_state_alone(
    obedient_segmenter,
) -> None:
    things = [(CAT, FIRST), (CAT, SECOND)]
    clicks = []
    np.random.seed(0)  # noqa: NPY002 - the global state is what is tested
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    for _ in range(2):
        segmenter = KnowingSegmenter(obedient_segmenter, numbered(things))
        search(BidirectionalStrategy(CONFIG), refer(EXAMPLE), scene(things), segmenter)
        clicks.append(np.concatenate([c.reshape(-1) for c in segmenter.clicks]))
    np.testing.assert_array_equal(*clicks)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"centres": 0}, "centres must be 1 or more"),
        ({"sets_per_size": 0}, "sets_per_size must be 1 or more"),
        ({"emd_cells": 0}, "emd_cells must be 1 or more"),
        ({"nms_iou": 1.5}, "nms_iou must be between 0 and 1"),
        ({"min_stability": -0.1}, "min_stability must be between 0 and 1"),
        ({"set_sizes": (0, 3)}, "set_sizes must be two ascending numbers from 1"),
        ({"set_sizes": (4, 3)}, "set_sizes must be two ascending numbers from 1"),
        ({"min_presence": 1.5}, "min_presence must be between 0 and 1, not 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(change, says: str) -> None:
    with pytest.raises(InputError, match=says):
        BidirectionalConfig(**change)
