"""What every strategy must do, on hand-made grids of cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from promptseg.models.errors import ModelNotFoundError
from promptseg.pipeline.prompters.reference.bidirectional import BidirectionalConfig
from promptseg.pipeline.prompters.reference.graph import GraphConfig
from promptseg.pipeline.prompters.reference.prototype import PrototypeConfig
from promptseg.pipeline.prompters.reference.strategies import (
    STRATEGIES,
    StrategyConfigs,
    create_strategy,
)

from .scenes import (
    CAT,
    DOG,
    EXAMPLE,
    FIRST,
    SECOND,
    KnowingSegmenter,
    cells,
    numbered,
    refer,
    scene,
    search,
)

GATE = {"presence_level": 0.7, "presence_gain": 20}
CONFIGS = {
    "prototype": StrategyConfigs(
        prototype=PrototypeConfig(near_share=0.5, level=0.2, level_fall=0.0, **GATE)
    ),
    "bidirectional": StrategyConfigs(
        # Sets of one point: a larger one may join two objects.
        bidirectional=BidirectionalConfig(set_sizes=(1, 1), **GATE)
    ),
    "graph": StrategyConfigs(graph=GraphConfig(**GATE)),
    "graph of plain channels": StrategyConfigs(graph=GraphConfig(equal_channels=False, **GATE)),
}


@pytest.fixture(params=CONFIGS)
def find(request, obedient_segmenter) -> Callable:
    """Masks in cells (N, 12, 12) and the answer, where the segmenter knows the things."""
    name = request.param.split()[0]
    strategy = create_strategy(name, CONFIGS[request.param])

    def run(reference, things, *, tokens=None, numbers=None):
        segmenter = obedient_segmenter
        if name != "prototype":  # which prompts with the likeness itself, not with clicks alone
            numbers = numbered(things) if numbers is None else numbers
            segmenter = KnowingSegmenter(obedient_segmenter, numbers)
        return search(strategy, reference, scene(things) if tokens is None else tokens, segmenter)

    return run


def test_one_object_beside_another(find) -> None:
    masks, matches = find(refer(EXAMPLE), [(CAT, SECOND), (DOG, FIRST)])
    np.testing.assert_array_equal(masks, [cells(SECOND) > 0])
    assert matches.presence > 0.9
    assert 0.5 < matches.prompt_scores[0] <= matches.presence + 1e-6


def test_several_instances_are_masks_of_their_own(find) -> None:
    masks, _ = find(refer(EXAMPLE), [(CAT, FIRST), (DOG, (0, 8, 3, 12)), (CAT, SECOND)])
    assert len(masks) == 2
    np.testing.assert_array_equal(masks.any(0), cells(FIRST, SECOND) > 0)


def test_an_absent_object(find) -> None:
    masks, matches = find(refer(EXAMPLE), [(DOG, FIRST)])
    assert masks.shape == (0, 12, 12)
    assert matches.masks.logits.shape[:2] == (0, 1)
    (dropped,) = matches.rejected
    assert dropped.label == "cat"
    assert dropped.reason.startswith(("presence 0.", "no cell of the image matches"))
    assert dropped.prompt_score == matches.presence < 0.5


def test_an_examples_own_image_gives_its_mask_back(find) -> None:
    masks, matches = find(refer(EXAMPLE), [], tokens=EXAMPLE[0], numbers=EXAMPLE[1].astype(int))
    np.testing.assert_array_equal(masks, [EXAMPLE[1] > 0])
    assert matches.presence > 0.99


def test_flipping_the_image_or_turning_the_example(find) -> None:
    things = [(CAT, FIRST), (DOG, SECOND)]
    tokens, numbers = scene(things), numbered(things)
    masks, matches = find(refer(EXAMPLE), things)
    flipped, same = find(
        refer(EXAMPLE), [], tokens=tokens[:, ::-1].copy(), numbers=numbers[:, ::-1]
    )
    np.testing.assert_array_equal(flipped, masks[..., ::-1])
    assert same.presence == pytest.approx(matches.presence)
    turned = tuple(np.ascontiguousarray(part[::-1, ::-1]) for part in EXAMPLE)
    again, same = find(refer(turned), things)
    np.testing.assert_array_equal(again, masks)
    assert same.presence == pytest.approx(matches.presence)


def test_strategies_are_made_by_name() -> None:
    assert list(STRATEGIES) == ["prototype", "bidirectional", "graph"]
    configs = StrategyConfigs()
    for name in STRATEGIES:
        assert create_strategy(name, configs).config is getattr(configs, name)
        assert create_strategy(name).config == getattr(configs, name)
    with pytest.raises(ModelNotFoundError, match=r"no matching strategy is called 'graf'; .*graph"):
        create_strategy("graf")
