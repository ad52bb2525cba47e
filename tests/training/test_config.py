"""The settings: which phase a step belongs to, and that the shipped ones make sense."""

from __future__ import annotations

import pytest
from config import Phase, TrainConfig

from promptseg.models.pocket.sam import PocketSamConfig

PHASES = (
    Phase(5, 1, 2, 1e-3, 0.0, images=2, prompts=6),
    Phase(1, 1, 1, 2e-3, 1e-4, images=4, prompts=4),
    Phase(3, 1, 1, 3e-3, 2e-4, images=2, prompts=2),
)


def test_every_step_has_its_phase_and_its_number_there() -> None:
    config = TrainConfig(phases=PHASES)
    assert config.steps == 9
    numbers = [(PHASES.index(phase), number) for phase, number in map(config.phase_at, range(9))]
    assert numbers == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0), (2, 1), (2, 2)]


def test_beyond_the_last_step_there_is_no_phase() -> None:
    with pytest.raises(ValueError, match="over 2 steps before"):
        TrainConfig(phases=PHASES).phase_at(11)
    with pytest.raises(ValueError, match="over 0 steps before"):
        TrainConfig(phases=()).phase_at(0)


def test_the_shipped_settings_make_sense() -> None:
    config = TrainConfig()
    assert config.steps > 1000
    for phase in config.phases:
        assert phase.warmup > 0
        assert phase.cooldown > 0
        assert phase.warmup + phase.cooldown <= phase.steps
        assert phase.backbone_rate < phase.learning_rate
        assert phase.images % 2 == 0  # as many workers as there are by default
    assert config.phases[0].backbone_rate == 0 < config.phases[-1].backbone_rate
    assert sum(chance for _, chance in config.sources) == pytest.approx(1)
    named = {name for name, _ in config.sources}
    assert named >= set(config.unnamed_sources)
    # An object must be larger than a cell of the text head's grid.
    cells = (PocketSamConfig().image_size / 16) ** 2
    assert config.min_area * cells > 1
