"""The shipped settings make sense."""

from __future__ import annotations

import pytest
from config import TrainConfig
from scenes import MULTIPLE

from promptseg.models.pocket.sam import PocketSamConfig


def test_the_shipped_settings_make_sense() -> None:
    config = TrainConfig()
    assert config.backbone_rate < config.learning_rate
    assert config.images % 2 == 0  # as many workers as there are by default
    assert config.cooldown_ema < config.ema < 1
    assert config.one_chance + config.heat_chance < 1
    # An object must be about as large as a cell of the text head's grid.
    assert config.min_area * (PocketSamConfig().image_size / 16) ** 2 > 1


@pytest.mark.parametrize("calm", [False, True])
def test_the_shipped_scenes_make_sense(calm: bool) -> None:
    scenes = TrainConfig().calm if calm else TrainConfig().scenes
    assert scenes.side == PocketSamConfig().image_size
    assert scenes.side % MULTIPLE == scenes.small_side % MULTIPLE == 0
    assert scenes.scales[0] < 1 < scenes.scales[1]
    assert all(0 < share < 1 for _, share in scenes.sources)
    named = {name for name, _ in scenes.sources}
    assert named >= {*scenes.paste_sources, *TrainConfig().unnamed_sources}
