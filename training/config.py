"""All settings of the pocket training in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A stretch of the training with a learning rate that rises, stays and falls to zero.

    Attributes:
        steps: Optimiser steps.
        warmup: First steps, of linear rise.
        cooldown: Last steps, of linear fall.
        learning_rate: Of the neck, the prompt encoder, the mask decoder and the text head.
        backbone_rate: Of the backbone's deep stages; 0 keeps them and the text head as they are.
        images: Pictures a step.
        prompts: Prompts a picture.
        ema: Decay of the running mean of the weights, which is what is kept.
    """

    steps: int
    warmup: int
    cooldown: int
    learning_rate: float
    backbone_rate: float
    images: int
    prompts: int
    ema: float = 0.997


@dataclass(frozen=True)
class TrainConfig:
    """How the pocket models are trained.

    Attributes:
        seed: Of the weights and of every random choice.
        phases: One after the other: first the mask decoder on frozen features, which it learns
            to use fast, then all that is deep together with the text head, then a short last
            polish.
        weight_decay: Of AdamW.
        corrections: Chance of a round of corrective clicks, and of another after it.
        repeats: Chance that a box's next round has no click, only the box and the previous mask.
        spread: Share of the mean loss in the minimum over ambiguous masks.
        text_weight: Weight of the text head's loss.
        heat_chance: Chance that a picture's prompts are the text head's own heat.
        text_noise: Standard deviation of the noise on phrase embeddings, per entry.
        sources: How often a source is drawn; the index's own share for those not named.
        unnamed_sources: Their labels are no words; they train masks only.
        min_area: Smallest object, as a share of the picture.
        save_every: Steps between checkpoints.
        eval_every: Steps between looks at the dev split.
        eval_images: Pictures of the dev split looked at.
    """

    seed: int = 0
    phases: tuple[Phase, ...] = (
        Phase(3400, 200, 900, 8e-4, 0.0, images=2, prompts=6),
        Phase(1500, 80, 1000, 5e-4, 2e-4, images=4, prompts=4),
        Phase(240, 10, 230, 2e-4, 6e-5, images=4, prompts=4, ema=0.985),
    )
    weight_decay: float = 0.02
    corrections: float = 0.55
    repeats: float = 0.6
    spread: float = 0.05
    text_weight: float = 1.0
    heat_chance: float = 0.2
    text_noise: float = 0.01
    sources: tuple[tuple[str, float], ...] = (
        ("voc", 0.55),
        ("coco", 0.15),
        ("davis", 0.10),
        ("ccp", 0.20),
    )
    unnamed_sources: tuple[str, ...] = ("davis",)
    min_area: float = 0.004
    save_every: int = 50
    eval_every: int = 300
    eval_images: int = 96

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """The phase of a step and the step's number in it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise ValueError(f"the training is over {step} steps before")
