"""What all matching strategies take and give, and the formulas that they share.

Whether the object is in the image at all is decided the same way by all of them, by an absolute
measure: nothing is stretched to the range of one image, which would find an object in every image.
With r the mean of the cells of the place that a strategy holds for the object, and p one of the
examples' means of the object's cells,

    likeness = (max over p of cos(r, p) + mean over p of cos(r, p)) / 2
    presence = sigmoid(presence_gain * (likeness - presence_level))

The more examples, the higher the maximum, whatever is in the image; with the mean, one level serves
any number of them, and a place that is like one example alone still counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ....models.embedding import ImageEmbedding
from ....models.features.dense import DenseFeatures
from ...checks import Float32Array
from ...decoding.candidates import LowResMasks
from ...decoding.segmenter import Segmenter
from ...masks import CompactMask
from ...result import RejectedMask
from ..text.gate import PresenceGate
from .examples import EncodedReference, Shot

# A cell belongs to the object if this share of it is covered, or the largest there is.
CELL_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Matches:
    """What a strategy found of one reference in an image.

    Attributes:
        masks: (N, 1, h, w), one mask for each object; N may be 0.
        prompt_scores: (N,) float32 in [0, 1], how surely each is what the reference shows.
        presence: How sure the strategy is that the object is in the image at all, in [0, 1].
        rejected: What was dropped, with the reasons; why nothing was found, if so.
        known: Masks at the image's size that need not be found, since an example marks them.
    """

    masks: LowResMasks
    prompt_scores: Float32Array
    presence: float
    rejected: tuple[RejectedMask, ...] = ()
    known: tuple[CompactMask, ...] = ()

    @classmethod
    def none(
        cls, segmenter: Segmenter, presence: float, rejected: tuple[RejectedMask, ...]
    ) -> Matches:
        """Return the answer "not here"."""
        size = segmenter.model.mask_input_size
        empty = LowResMasks(np.zeros((0, 1, *size), np.float32), np.zeros((0, 1), np.float32))
        return cls(empty, np.zeros(0, np.float32), presence, rejected)


class MatchingStrategy(Protocol):
    """Finds what a reference shows in an image."""

    @property
    def min_presence(self) -> float:
        """With less presence the object is not there."""
        ...

    def __call__(
        self,
        reference: EncodedReference,
        target: DenseFeatures,
        segmenter: Segmenter,
        embedding: ImageEmbedding,
    ) -> Matches:
        """Match.

        Args:
            reference: What to look for.
            target: Features of the image, of the same model as the reference's.
            segmenter: Decodes prompts.
            embedding: Of the image.
        """
        ...


@dataclass(frozen=True, eq=False)
class TokenBank:
    """The cells of all examples of a reference, of length 1, apart by what they show.

    Attributes:
        prototypes: (k, C), the mean of the object's cells of each example, weighted by the share
            of the cell that the object covers.
        foreground: (n, C), cells of the object.
        background: (m, C), cells that the object does not touch, and those of the objects that
            negative examples show.
    """

    prototypes: Tensor
    foreground: Tensor
    background: Tensor


def unit_tokens(features: DenseFeatures) -> Tensor:
    """The vectors of all cells, row by row, of length 1: (h * w, C)."""
    return F.normalize(features.tokens.flatten(0, 1), dim=1)


def object_cells(shot: Shot) -> Tensor:
    """Which cells of an example belong to the object, (h * w,) bool; one at least."""
    coverage = shot.coverage.flatten()
    return coverage >= min(CELL_SHARE, float(coverage.max()))


def collect_tokens(reference: EncodedReference) -> TokenBank:
    """Cells of the object and of its surroundings, of all examples.

    An object smaller than a cell is the cell that it covers most; where it touches all cells,
    those that it covers least stand for the surroundings. Cells of what the negative examples
    show count as surroundings.
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
        presence_level: Likeness at which presence is undecided.
        presence_gain: Logits that presence rises over a likeness of 1.
        min_presence: With less presence the object is not there.
    """

    presence_level: float = 0.4
    presence_gain: float = 10.0
    min_presence: float = 0.5


def likeness_to(bank: TokenBank, place: Tensor) -> float:
    """How like the examples the mean of the cells (n, C) of a place is; in [-1, 1]."""
    cosines = bank.prototypes @ F.normalize(place.mean(0), dim=0)
    return float((cosines.max() + cosines.mean()) / 2)


def presence_of(likeness: float, config: PresenceConfig) -> float:
    """How surely the object is in the image, in [0, 1]."""
    return 1 / (1 + math.exp(-config.presence_gain * (likeness - config.presence_level)))


def absent(
    segmenter: Segmenter,
    embedding: ImageEmbedding,
    label: str,
    presence: float,
    config: PresenceConfig,
) -> Matches | None:
    """The answer "not here" if there is too little presence, else None."""
    (verdict,) = PresenceGate(config.min_presence)(embedding, [label], [presence])
    if not verdict.reason:
        return None
    return Matches.none(segmenter, presence, (RejectedMask(label, verdict.reason, presence),))
