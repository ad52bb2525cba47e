"""All settings of the pocket training in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """How the pocket SAM's neck, prompt encoder and mask decoder are trained.

    Attributes:
        seed: Of the weights and of every random choice.
        steps: Optimiser steps in all.
        warmup: Steps of linear rise of the learning rate.
        cooldown: Last steps, over which the learning rate falls to zero linearly.
        learning_rate: Of AdamW, between the two.
        weight_decay: Of AdamW.
        images: Pictures a step.
        prompts: Prompts a picture.
        corrections: Chance of a round of corrective clicks, and of another after it.
        spread: Share of the mean loss in the minimum over ambiguous masks.
        ema: Decay of the running mean of the weights, which is what is kept.
        sources: How often a source is drawn; the index's own share for those not named.
        min_area: Smallest object, as a share of the picture.
        save_every: Steps between checkpoints.
        eval_every: Steps between looks at the dev split.
        eval_images: Pictures of the dev split looked at.
    """

    seed: int = 0
    steps: int = 6000
    warmup: int = 200
    cooldown: int = 1500
    learning_rate: float = 8e-4
    weight_decay: float = 0.02
    images: int = 2
    prompts: int = 6
    corrections: float = 0.55
    spread: float = 0.05
    ema: float = 0.998
    sources: tuple[tuple[str, float], ...] = (
        ("voc", 0.52),
        ("coco", 0.16),
        ("davis", 0.12),
        ("ccp", 0.20),
    )
    min_area: float = 0.004
    save_every: int = 100
    eval_every: int = 500
    eval_images: int = 96
