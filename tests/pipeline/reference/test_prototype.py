"""The prototype strategy's formulas against plain NumPy, and its answers on hand-made grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptseg.models.errors import InputError
from promptseg.pipeline.decoding.decode import DecodingConfig
from promptseg.pipeline.prompters.reference.examples import EncodedReference
from promptseg.pipeline.prompters.reference.matching import (
    TokenBank,
    collect_tokens,
    likeness_to,
    unit_tokens,
)
from promptseg.pipeline.prompters.reference.prototype import (
    PrototypeConfig,
    PrototypeStrategy,
    heat_of,
    likeness_of,
    presence_of,
    prototype_scores,
)

from .scenes import (
    CAT,
    DOG,
    EXAMPLE,
    FIRST,
    GRID,
    PARTLY,
    SECOND,
    TINY,
    cells,
    features,
    refer,
    scene,
    search,
    unit,
)


def numpy_bank(examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    prototypes, foreground, background = [], [], []
    for tokens, coverage in examples:
        least = min(0.5, coverage.max())
        kept = [i for i in np.ndindex(GRID) if coverage[i] >= least]
        prototypes.append(unit(sum(coverage[i] * unit(tokens[i]) for i in kept)))
        foreground += [unit(tokens[i]) for i in kept]
        lowest = coverage.min()
        background += [unit(tokens[i]) for i in np.ndindex(GRID) if coverage[i] == lowest]
    return np.array(prototypes), np.array(foreground), np.array(background)


def numpy_scores(examples, target: np.ndarray, k: int, share: float) -> np.ndarray:
    prototypes, foreground, background = numpy_bank(examples)
    q = unit(background.mean(0))
    scores = np.empty(GRID)
    for i in np.ndindex(GRID):
        x = unit(target[i])
        mean = max(x @ p for p in prototypes) - x @ q
        inside = np.sort([x @ f for f in foreground])[::-1][:k]
        outside = np.sort([x @ b for b in background])[::-1][:k]
        scores[i] = (1 - share) * mean + share * (inside.mean() - outside.mean())
    return scores


def test_likeness_weighs_the_best_example_and_all_of_them() -> None:
    def likeness(*prototypes: list[float]) -> float:
        bank = TokenBank(torch.tensor(prototypes), torch.zeros(0, 2), torch.zeros(0, 2))
        return likeness_to(bank, torch.tensor([[2.0, 1.0], [2.0, -1.0]]))  # their mean is east

    east, north, slanted = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]
    assert likeness(slanted) == pytest.approx(0.6)  # of one example the cosine
    assert likeness(slanted, slanted) == pytest.approx(0.6)
    assert likeness(east, north) == pytest.approx((1 + 0.5) / 2)
    assert likeness(north, east, north, north) == pytest.approx((1 + 0.25) / 2)
    # Further examples that are less alike do not lift it.
    assert likeness(slanted, north) < likeness(slanted)


@pytest.mark.parametrize("examples", [[EXAMPLE], [PARTLY], [TINY], [EXAMPLE, TINY]])
@pytest.mark.parametrize(("k", "share"), [(5, 0.0), (5, 1.0), (3, 0.4), (500, 0.5)])
def test_scores_and_presence_equal_numpy(examples, k: int, share: float) -> None:
    target = scene([(CAT, (1, 5, 4, 8)), (DOG, (6, 2, 10, 6))])
    config = PrototypeConfig(
        neighbours=k, near_share=share, top_share=0.06, presence_level=0.3, presence_gain=7
    )
    bank, tokens = collect_tokens(refer(*examples)), unit_tokens(features(target))
    scores = prototype_scores(bank, tokens, config)
    expected = numpy_scores(examples, target, k, share)
    np.testing.assert_allclose(scores.view(GRID), expected, atol=1e-5)
    prototypes, _, _ = numpy_bank(examples)
    best = np.argsort(-expected.ravel())[:9]  # 6% of 144
    place = unit(unit(target).reshape(-1, 4)[best].mean(0))
    cosines = prototypes @ place
    likeness = (cosines.max() + cosines.mean()) / 2
    assert likeness_of(bank, tokens, scores, config) == pytest.approx(likeness, abs=1e-5)
    presence = presence_of(likeness, config)
    assert presence == pytest.approx(1 / (1 + np.exp(-7 * (likeness - 0.3))), abs=1e-6)


def test_heat_equals_numpy() -> None:
    target = features(scene([]))
    scores = np.random.default_rng(4).uniform(-0.5, 0.8, GRID)
    given = torch.tensor(scores.ravel(), dtype=torch.float32)
    config = PrototypeConfig(level=0.3, level_fall=0.2, gain=9, oversampling=1)
    for likeness in (1.0, 0.4):
        expected = 1 / (1 + np.exp(-9 * (scores - (0.3 - 0.2 * (1 - likeness)))))
        np.testing.assert_allclose(heat_of(target, given, likeness, config), expected, atol=1e-5)
    # Finer, every cell's own value is in its middle.
    fine = heat_of(target, given, 1.0, replace(config, oversampling=3))
    np.testing.assert_allclose(fine[1::3, 1::3], heat_of(target, given, 1.0, config), atol=1e-5)


def test_an_object_of_no_whole_cell_is_its_best_cell() -> None:
    bank = collect_tokens(refer(TINY))
    assert bank.foreground.shape == (1, 4)
    np.testing.assert_allclose(bank.foreground[0], unit(TINY[0][7, 7]), atol=1e-6)
    assert bank.background.shape == (143, 4)


def test_where_the_object_touches_all_cells_the_least_covered_are_the_rest() -> None:
    coverage = np.full(GRID, 0.9)
    coverage[0, :3] = 0.2
    bank = collect_tokens(refer((EXAMPLE[0], coverage)))
    np.testing.assert_allclose(bank.background, unit(EXAMPLE[0][0, :3]), atol=1e-6)


@pytest.fixture
def find(obedient_segmenter):
    """Masks in cells (N, 12, 12) and the whole answer; the segmenter does as the prompts say."""

    def run(reference: EncodedReference, tokens: np.ndarray, config: PrototypeConfig | None = None):
        strategy = PrototypeStrategy(config or CONFIG)
        return search(strategy, reference, tokens, obedient_segmenter)

    return run


ONCE = DecodingConfig(first_pass=("points", "masks"), refine_passes=0)
CONFIG = PrototypeConfig(
    near_share=0.5, level=0.2, level_fall=0.0, presence_level=0.7, presence_gain=20
)


def test_an_object_of_one_cell(find) -> None:
    masks, _ = find(refer(TINY), scene([(CAT, SECOND)]))
    np.testing.assert_array_equal(masks, [cells(SECOND) > 0])
    strict = replace(CONFIG, top_share=0.0, level=-0.1)
    masks, matches = find(refer(EXAMPLE), scene([(CAT, (5, 5, 6, 6))]), strict)
    assert matches.presence > 0.9
    np.testing.assert_array_equal(masks, [cells((5, 5, 6, 6)) > 0])


def test_more_examples_help(find) -> None:
    # The object has two sides; one example shows one of them.
    back = 0.2 * CAT + 0.8 * np.array([2.5, 2.5, 0.5, 0.5])
    front, rear = (1, 2, 4, 5), (8, 2, 11, 5)
    target = scene([(CAT, front), (back, rear)])
    other = (scene([(back, (4, 7, 9, 10))], seed=5), cells((4, 7, 9, 10)))
    nearest = replace(CONFIG, near_share=1.0, neighbours=3)
    found = {}
    for count in (1, 2):
        reference = refer(*[EXAMPLE, other][:count])
        found[count] = find(reference, target, replace(nearest, level=0.47))[0].any(0)
    middle_of_front, middle_of_rear = (3, 2), (3, 9)
    assert found[1][middle_of_front]
    assert not found[1][2:5, 8:11].any()
    assert found[2][middle_of_front]
    assert found[2][middle_of_rear]


def test_the_order_of_examples_and_channels_and_the_scale_do_not_matter() -> None:
    target = scene([(CAT, SECOND), (DOG, FIRST)])
    examples = [EXAMPLE, PARTLY]

    def scores(examples, target: np.ndarray) -> torch.Tensor:
        bank = collect_tokens(refer(*examples))
        return prototype_scores(bank, unit_tokens(features(target)), CONFIG)

    expected = scores(examples, target)
    torch.testing.assert_close(scores(examples[::-1], target), expected, rtol=1e-4, atol=1e-5)
    channels = [3, 1, 0, 2]
    mixed = [(tokens[..., channels] * 3, coverage) for tokens, coverage in examples]
    torch.testing.assert_close(
        scores(mixed, target[..., channels] * 0.1), expected, rtol=1e-4, atol=1e-5
    )


def test_points_say_where_it_is_and_where_it_is_not(
    obedient_segmenter, monkeypatch: pytest.MonkeyPatch, find
) -> None:
    calls = []
    decode = obedient_segmenter.decode_low_res
    monkeypatch.setattr(
        obedient_segmenter, "decode_low_res", lambda e, **p: calls.append(p) or decode(e, **p)
    )
    target = scene([(CAT, FIRST), (CAT, SECOND)])
    find(refer(EXAMPLE), target)
    first, second = calls
    assert first["boxes"] is None  # by default the points and the prior come first
    assert first["mask_input"] is not None
    assert second["boxes"] is not None
    np.testing.assert_array_equal(first["point_labels"], [[1, 0], [1, 0]])
    scores = numpy_scores([EXAMPLE], target, CONFIG.neighbours, CONFIG.near_share)
    row, column = np.unravel_index(scores.argmin(), GRID)
    np.testing.assert_allclose(first["point_coords"][:, 1], [[8 * column + 3.5, 8 * row + 3.5]] * 2)
    for x, y in first["point_coords"][:, 0]:
        assert cells(FIRST, SECOND)[int(y) // 8, int(x) // 8]
    calls.clear()
    find(refer(EXAMPLE), target, replace(CONFIG, negative_point=False, decoding=ONCE))
    assert len(calls) == 1
    np.testing.assert_array_equal(calls[0]["point_labels"], [[1], [1]])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"neighbours": 0}, "neighbours must be 1 or more"),
        ({"oversampling": 0}, "oversampling must be 1 or more"),
        ({"near_share": 1.5}, "near_share must be between 0 and 1"),
        ({"top_share": -0.1}, "top_share must be between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_refused(change, says: str) -> None:
    with pytest.raises(InputError, match=says):
        PrototypeConfig(**change)
