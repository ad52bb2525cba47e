"""The prototype strategy: finds cells like the example's object and unlike its surroundings.

After Zhang et al. 2023, "Personalize Segment Anything Model with One Shot" (PerSAM), which uses the
mean of the object's cells. With x a cell of the image, p the weighted mean of the object's cells of
one example, and q the mean of all other cells of all examples,

    mean(x) = max over p of cos(x, p) - cos(x, q)
    near(x) = mean of the k largest cos(x, object's cells) - the same for the other cells
    score(x) = (1 - near_share) * mean(x) + near_share * near(x)

The other cells separate the object from what lies beside it; the nearest ones recognise parts of
an object that no single mean describes.

The highest scores are a poor sign that the object is in the image at all: they say that a cell is
more like the object than like its surroundings, which can hold for any other object. So presence
is computed, as in :mod:`~promptseg.pipeline.prompters.reference.matching`, from all cells with the
highest scores together. The heat that becomes prompts is

    heat(x) = sigmoid(gain * (score(x) - level + level_fall * (1 - likeness)))

since the scores of the whole object fall with its likeness to the example.

Each connected hot region becomes a prompt: a positive point on its hottest cell, a negative one
on the coldest cell of the image, its box, and its heat as a mask prior. Masks are refined by a
cascade.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from ....models.errors import InputError
from ....models.features.dense import DenseFeatures
from ....models.grounding.answers import HeatMap
from ...checks import Float32Array
from ...decoding.decode import DecodingConfig, decode_cascade
from ...decoding.prompts import PromptSet
from ..heat_prompts import HeatPromptConfig, HeatPrompts
from .examples import EncodedReference
from .matching import (
    Matches,
    PresenceConfig,
    TokenBank,
    absent,
    collect_tokens,
    likeness_to,
    presence_of,
    unit_tokens,
)
from .target import Target


@dataclass(frozen=True, kw_only=True)
class PrototypeConfig(PresenceConfig):
    """How likeness becomes prompts and masks.

    Attributes:
        neighbours: Number of nearest cells, k, in `near`.
        near_share: Weight of `near` in the score.
        level: Score at which the heat is 0.5, for a likeness of 1.
        level_fall: How far that level falls as the likeness falls by 1.
        gain: Logits of heat per unit of score.
        top_share: Share of the cells, those with the highest scores, that presence is computed
            from; at least one cell.
        oversampling: Cells of the heat map along each side of a cell of the features.
        negative_point: Whether the coldest cell becomes a negative point.
        prompts: How the heat map becomes prompts.
        decoding: How the prompts become masks.

    Raises:
        InputError: A value is out of its range.
    """

    neighbours: int = 5
    near_share: float = 0.75
    level: float = 0.15
    level_fall: float = 0.25
    gain: float = 20.0
    top_share: float = 0.05
    oversampling: int = 4
    negative_point: bool = True
    prompts: HeatPromptConfig = field(default_factory=HeatPromptConfig)
    decoding: DecodingConfig = field(
        default_factory=lambda: DecodingConfig(first_pass=("points", "masks"))
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("neighbours", "oversampling"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("near_share", "top_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must be between 0 and 1, not {getattr(self, name)}")


def prototype_scores(bank: TokenBank, cells: Tensor, config: PrototypeConfig) -> Tensor:
    """Score cells (n, C) of length 1 by the module's formula; (n,)."""
    surroundings = F.normalize(bank.background.mean(0), dim=0)
    mean = (cells @ bank.prototypes.T).amax(1) - cells @ surroundings
    inside = _nearest(cells @ bank.foreground.T, config.neighbours)
    outside = _nearest(cells @ bank.background.T, config.neighbours)
    return (1 - config.near_share) * mean + config.near_share * (inside - outside)


def likeness_of(bank: TokenBank, cells: Tensor, scores: Tensor, config: PrototypeConfig) -> float:
    """Return the likeness to the examples of those cells (n, C) that score (n,) highest."""
    count = max(1, round(config.top_share * len(scores)))
    return likeness_to(bank, cells[scores.topk(count).indices])


def heat_of(
    target: DenseFeatures, scores: Tensor, likeness: float, config: PrototypeConfig
) -> Float32Array:
    """Return the heat (h * oversampling, w * oversampling) of scores (h * w,)."""
    rows, columns = target.grid_size
    size = rows * config.oversampling, columns * config.oversampling
    level = config.level - config.level_fall * (1 - likeness)
    spread = target.spread(scores.view(rows, columns), size)
    heat: Float32Array = (config.gain * (spread - level)).sigmoid().cpu().numpy()
    return heat


def _nearest(cosines: Tensor, count: int) -> Tensor:
    """Return the mean of the largest cosines of each cell, (n, m) -> (n,)."""
    return cosines.topk(min(count, cosines.shape[1]), dim=1).values.mean(1)


class PrototypeStrategy:
    """Finds objects by prototypes; see the module.

    Args:
        config: Settings of the scores, prompts and masks.
    """

    def __init__(self, config: PrototypeConfig | None = None) -> None:
        self.config = config or PrototypeConfig()

    @property
    def min_presence(self) -> float:
        """Minimum presence for the object to count as present."""
        return self.config.min_presence

    def __call__(
        self, reference: EncodedReference, target: Target, min_presence: float | None = None
    ) -> Matches:
        """As :class:`~promptseg.pipeline.prompters.reference.matching.MatchingStrategy` says."""
        config = self.config
        bank, cells = collect_tokens(reference), unit_tokens(target.features)
        scores = prototype_scores(bank, cells, config)
        likeness = likeness_of(bank, cells, scores, config)
        presence = presence_of(likeness, config)
        found = HeatMap(
            reference.label, heat_of(target.features, scores, likeness, config), presence
        )

        # From here on a reference is treated like a phrase: as a heat map with a presence.
        nothing = absent(target, reference.label, presence, config, min_presence)
        if nothing is not None:
            return nothing
        prompts = HeatPrompts(target.segmenter, config.prompts)(found, target.embedding)
        if config.negative_point:
            prompts = _with_negative(prompts, target.features.cell_centres()[int(scores.argmin())])
        masks = decode_cascade(target.segmenter, target.embedding, prompts, config.decoding)
        return Matches(masks, prompts.prompt_scores, presence)


def _with_negative(prompts: PromptSet, point: Float32Array) -> PromptSet:
    """Return the prompts with the same negative point added to each."""
    if prompts.point_coords is None or prompts.point_labels is None:
        raise ValueError("the prompts have no points")
    count = len(prompts)
    return replace(
        prompts,
        point_coords=np.concatenate(
            [prompts.point_coords, np.broadcast_to(point, (count, 1, 2))], axis=1
        ),
        point_labels=np.concatenate([prompts.point_labels, np.zeros((count, 1), np.int64)], axis=1),
    )
