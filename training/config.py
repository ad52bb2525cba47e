"""All settings for training the pocket models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A part of the training whose learning rate rises, stays constant and falls to zero.

    Attributes:
        steps: Optimiser steps.
        warmup: Number of initial steps, in which the rate rises linearly.
        cooldown: Number of final steps, in which the rate falls linearly.
        learning_rate: For the neck, the prompt encoder, the mask decoder and the text head.
        backbone_rate: For the backbone's deep stages; 0 freezes them and the text head.
        images: Pictures per step.
        prompts: Prompts per picture.
        ema: Decay of the running mean of the weights; the mean is the result of the training.
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
        seed: Seed for the weights and for every random choice.
        phases: In order: first the mask decoder on frozen features, which it learns to use
            quickly; then the backbone's deep stages and the text head as well; then a short
            final polish.
        weight_decay: Weight decay of AdamW.
        corrections: Probability of a second round of prompts, and then of a third.
        repeats: Probability that the next round after a box adds no corrective click and gives
            only the box and the previous mask.
        spread: Weight of the ambiguous masks' mean loss, which is added to their smallest loss.
        text_weight: Weight of the text head's loss.
        heat_chance: Probability that a picture is prompted with the text head's own heat map.
        text_noise: Standard deviation of the noise on each entry of a phrase embedding.
        sources: Relative frequency with which a source is drawn; sources not listed are drawn by
            their share of the index.
        unnamed_sources: Sources whose labels are not words; they train masks only.
        min_area: Smallest object to prompt for, as a share of the picture.
        save_every: Steps between checkpoints.
        eval_every: Steps between evaluations on the dev split.
        eval_images: Number of dev pictures to evaluate.
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
        """Total optimiser steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """The phase that a step belongs to, and the step's number within it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise ValueError(f"training was over {step} steps before this one")
