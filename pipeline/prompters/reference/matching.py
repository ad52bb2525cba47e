"""The interface of the matching strategies, and the formulas that they share.

All of them decide by the same absolute measure whether the object is in the image at all: nothing
is scaled to the range of one image, which would find an object in every image. With r the mean of
the cells of the place that a strategy takes for the object, and p the mean of the object's cells of
one example,

    likeness = (max over p of cos(r, p) + mean over p of cos(r, p)) / 2
    presence = sigmoid(presence_gain * (likeness - presence_level))

The maximum grows with the number of examples, whatever the image shows; with the mean, one level
suits any number of them, and a place that resembles only one example still counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ....models.features.dense import DenseFeatures
from ...checks import Float32Array
from ...compact_mask import CompactMask
from ...decoding.prompts import LowResMasks
from ...result import RejectedMask
from ..evidence import check_least, why_absent
from .examples import EncodedReference, Shot
from .target import Target

# A cell belongs to the object if at least this share of it is covered, or the largest share of all.
CELL_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Matches:
    """What a strategy found for one reference in an image.

    Attributes:
        masks: (N, 1, h, w), one mask for each object; N may be 0.
        prompt_scores: (N,) float32 in [0, 1], how sure it is that each is what the reference shows.
        presence: How sure the strategy is that the object is in the image at all, in [0, 1].
        rejected: What was dropped, with the reasons, or why nothing was found.
        known: Masks at the image's size that need not be found, since an example marks them.
    """

    masks: LowResMasks
    prompt_scores: Float32Array
    presence: float
    rejected: tuple[RejectedMask, ...] = ()
    known: tuple[CompactMask, ...] = ()

    @classmethod
    def none(cls, target: Target, presence: float, rejected: tuple[RejectedMask, ...]) -> Matches:
        """Return the answer "not here"."""
        size = target.segmenter.model.mask_input_size
        empty = LowResMasks(np.zeros((0, 1, *size), np.float32), np.zeros((0, 1), np.float32))
        return cls(empty, np.zeros(0, np.float32), presence, rejected)


class MatchingStrategy(Protocol):
    """Finds what a reference shows in an image."""

    @property
    def min_presence(self) -> float:
        """Minimum presence for the object to count as present."""
        ...

    def __call__(
        self, reference: EncodedReference, target: Target, min_presence: float | None = None
    ) -> Matches:
        """Find the reference's object in an image.

        Args:
            reference: What to look for.
            target: The image.
            min_presence: Minimum presence for this call; None for the strategy's own.
        """
        ...


@dataclass(frozen=True, eq=False)
class TokenBank:
    """Unit-length cells of all examples of a reference, separated by what they show.

    Attributes:
        prototypes: (k, C), the mean of the object's cells of each example, weighted by the share
            of the cell that the object covers.
        foreground: (n, C), cells of the object.
        background: (m, C), cells that the object does not touch, and the object's cells of
            negative examples.
    """

    prototypes: Tensor
    foreground: Tensor
    background: Tensor


def unit_tokens(features: DenseFeatures) -> Tensor:
    """Return the vectors of all cells, row by row, of length 1: (h * w, C)."""
    return F.normalize(features.tokens.flatten(0, 1), dim=1)


def object_cells(shot: Shot) -> Tensor:
    """Return which cells of an example belong to the object, (h * w,) bool; at least one."""
    coverage = shot.coverage.flatten()
    return coverage >= min(CELL_SHARE, float(coverage.max()))


def collect_tokens(reference: EncodedReference) -> TokenBank:
    """Collect the cells of the object and of its surroundings from all examples.

    An object smaller than a cell is represented by the cell that it covers most. Where it touches
    all cells, those that it covers least represent the surroundings. The object's cells of
    negative examples count as surroundings.
    """
    prototypes, foreground, background = [], [], []
    for shot in reference.shots:
        tokens, coverage = unit_tokens(shot.features), shot.coverage.flatten()
        inside = object_cells(shot)
        foreground.append(tokens[inside])
        prototypes.append(F.normalize(coverage[inside] @ tokens[inside], dim=0))
        background.append(tokens[coverage <= float(coverage.min())])
    background += [unit_tokens(shot.features)[object_cells(shot)] for shot in reference.negatives]
    return TokenBank(torch.stack(prototypes), torch.cat(foreground), torch.cat(background))


@dataclass(frozen=True, kw_only=True)
class PresenceConfig:
    """How likeness becomes presence.

    Attributes:
        presence_level: Likeness at which presence is 0.5.
        presence_gain: Logits of presence per unit of likeness.
        min_presence: Minimum presence for the object to count as present.

    Raises:
        InputError: ``min_presence`` is not in [0, 1].
    """

    presence_level: float = 0.4
    presence_gain: float = 10.0
    min_presence: float = 0.5

    def __post_init__(self) -> None:
        check_least("min_presence", self.min_presence)


def likeness_to(bank: TokenBank, place: Tensor) -> float:
    """Return how like the examples the mean cell of a place (n, C) is, in [-1, 1]."""
    cosines = bank.prototypes @ F.normalize(place.mean(0), dim=0)
    return float((cosines.max() + cosines.mean()) / 2)


def presence_of(likeness: float, config: PresenceConfig) -> float:
    """Return how sure it is that the object is in the image, in [0, 1]."""
    return 1 / (1 + math.exp(-config.presence_gain * (likeness - config.presence_level)))


def absent(
    target: Target,
    label: str,
    presence: float,
    config: PresenceConfig,
    min_presence: float | None,
) -> Matches | None:
    """Return the answer "not here" if there is too little presence, otherwise None."""
    least = config.min_presence if min_presence is None else min_presence
    reason = why_absent(presence, least)
    if not reason:
        return None
    rejected = RejectedMask(label, reason, presence, presence=presence)
    return Matches.none(target, presence, (rejected,))
