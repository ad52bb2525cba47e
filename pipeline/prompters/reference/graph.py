"""The graph strategy: many clicks, grouped by which masks cover each other's clicks.

After Zhang et al. 2024, "Bridge the Points: Graph-based Few-shot Segment Anything Semantically"
(GF-SAM). It has no thresholds to tune. With S(x, y) the cosine of cell x of the image and cell y of
an example, w(y) the share of y that the object covers and, for the surroundings, 1 - w(y),

    best(x) = max over y of w(y) S(x, y)
    mean(x) = sum over y of w(y) S(x, y) / sum of w(y)

each averaged over the examples, + for the object and - for its surroundings. A cell is positive by

    cross(x) = scaled(mean+(x) best+(x)), but 0 where scaled(mean-(x)) > cross(x)

with `scaled` to the range [0, 1] over the image. The floor(sum of cross) cells with the highest
cross, at most 128, become a click and a mask each. Mask i has an edge to click j if it covers it;
the weakly connected components of that graph are the objects. Two gates choose among their masks:

- growth: from the mask with the highest mean of mean+^2 - mid mean-, mid being the middle of the
  range of mean+, to the lowest, a mask passes if of the cells it adds to its component those with
  mean+^2 > mid mean- outweigh the others;
- self-consistency: with own(c, x) the `mean` of x against the cells of the image that component c
  covers, a click passes if own(c, x) / (distance in cells to the nearest click of c, 1 at least) is
  highest for its own component, and if at least half of its component's clicks do.

If no mask passes both, one that passes either is taken, of the component with the best balance.

Unlike in the paper, each component is a mask of its own, since each is an object; those that
overlap become one. And there is a presence: that of the clicks' cells, as in
:mod:`~promptseg.pipeline.prompters.reference.matching`.

The published code normalises along the wrong axis: over the image's cells for each channel, which
gives all channels equal weight. Cosines are taken after that, so all formulas hold. It is kept as
`equal_channels`, since the published figures were made with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ....models.errors import InputError
from ....models.features.dense import DenseFeatures
from ...checks import BoolArray, Float32Array
from ...result import RejectedMask
from .examples import EncodedReference
from .matching import (
    Matches,
    PresenceConfig,
    absent,
    collect_tokens,
    likeness_to,
    presence_of,
    unit_tokens,
)
from .target import Target, groups_of

_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class GraphConfig(PresenceConfig):
    """Settings that are not fixed by the paper.

    Attributes:
        equal_channels: Whether channels are weighted as in the published code; see the module.
        max_points: Maximum number of clicks.
        join: Components that share more than this of the smaller area become one mask.

    Raises:
        InputError: A value is out of its range.
    """

    equal_channels: bool = True
    max_points: int = 128
    join: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_points < 1:
            raise InputError(f"max_points must be 1 or more, not {self.max_points}")
        if not 0.0 <= self.join <= 1.0:
            raise InputError(f"join must be between 0 and 1, not {self.join}")


@dataclass(frozen=True, eq=False)
class Alignment:
    """How similar each cell of an image is to the object and its surroundings; (n,) each.

    Attributes:
        best: Largest weighted cosine with the object's cells.
        mean: Weighted mean of the cosines with the object's cells.
        away: The same with the surroundings' cells.
        cross: How strongly the cell is positive, in [0, 1].
    """

    best: Tensor
    mean: Tensor
    away: Tensor
    cross: Tensor

    @property
    def balance(self) -> Tensor:
        """How much more each cell resembles the object: mean+^2 - mid mean-."""
        middle = (self.mean.max() + self.mean.min()) / 2
        return self.mean**2 - middle * self.away


def graph_tokens(features: DenseFeatures, *, equal_channels: bool) -> Tensor:
    """Return unit vectors of all cells, (h * w, C), optionally with equal channel weights."""
    if not equal_channels:
        return unit_tokens(features)
    return F.normalize(F.normalize(features.tokens.flatten(0, 1), dim=0), dim=1)


def align(reference: EncodedReference, cells: Tensor, *, equal_channels: bool) -> Alignment:
    """Compare an image's cells (n, C) of length 1 with the examples, by the module's formulas."""
    maps = []
    for shot in reference.shots:
        tokens = graph_tokens(shot.features, equal_channels=equal_channels)
        cosines, inside = cells @ tokens.T, shot.coverage.flatten()
        best = (cosines * inside).amax(1)
        maps.append(torch.stack([best, _mean(cosines, inside), _mean(cosines, 1 - inside)]))
    best, mean, away = torch.stack(maps).mean(0)
    cross = _scaled(mean * best)
    return Alignment(best, mean, away, cross * (_scaled(away) <= cross))


def choose_cells(cross: Tensor, most: int) -> NDArray[np.intp]:
    """Return the cells that become clicks, highest first; at least one if any is positive."""
    total = float(cross.sum())
    count = min(max(int(total), 1 if total > 0 else 0), most)
    return cross.topk(count).indices.cpu().numpy()


def components_of(covers: BoolArray) -> NDArray[np.int32]:
    """Return weakly connected components (M,) from 0; (M, M) says if mask i covers click j."""
    from scipy.sparse import csgraph  # not at the start of a command that needs none of it

    labels: NDArray[np.int32] = csgraph.connected_components(covers, connection="weak")[1]
    return labels


def grow(balance: Float32Array, shares: Float32Array, components: NDArray[np.int32]) -> BoolArray:
    """Apply the first gate, growth.

    Args:
        balance: (n,) balance of the cells.
        shares: (M, n) share of each cell that each mask covers.
        components: (M,) component of each mask.

    Returns:
        (M,) whether each mask passes.
    """
    passed = np.zeros(len(shares), np.bool_)
    sign = _sign(balance)
    means = (shares @ balance) / (shares.sum(1) + _EPSILON)
    for component in range(components.max() + 1):
        members = np.flatnonzero(components == component)
        taken = np.zeros(len(balance), np.float32)
        for i in members[np.argsort(-means[members], kind="stable")]:
            added = shares[i] * (1 - taken)
            if added @ sign > 0:
                taken += added
                passed[i] = True
    return passed


def agree(
    cells: Tensor,
    wholes: Float32Array,
    components: NDArray[np.int32],
    clicks: NDArray[np.intp],
    columns: int,
) -> BoolArray:
    """Apply the second gate, self-consistency.

    Args:
        cells: (n, C) the image's cells, of length 1.
        wholes: (K, n) share of each cell that each component's masks cover together.
        components: (M,) component of each mask.
        clicks: (M,) cell of each mask's click.
        columns: Number of columns of the grid.

    Returns:
        (M,) whether each mask's click passes.
    """
    places = np.stack([clicks // columns, clicks % columns], axis=1).astype(np.float32)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)  # (M, M)
    cosines = (cells[torch.from_numpy(clicks)] @ cells.T).cpu()  # (M, n)
    own = []
    for component, whole in enumerate(wholes):
        nearest = distances[:, components == component].min(1)
        likeness = _mean(cosines, torch.from_numpy(whole)).numpy()
        own.append(likeness / np.where(nearest > 0, nearest, 1))
    agrees: BoolArray = np.stack(own).argmax(0) == components
    for component in range(len(wholes)):
        members = components == component
        if 2 * agrees[members].sum() < members.sum():
            agrees[members] = False
    return agrees


def choose_masks(grown: BoolArray, consistent: BoolArray, surplus: Float32Array) -> BoolArray:
    """Return which of M masks stay, (M,); none if no mask passes any gate.

    Args:
        grown: (M,) which pass the first gate.
        consistent: (M,) which pass the second.
        surplus: (M,) cells by which the positive ones outweigh the others in each component.
    """
    both, either = grown & consistent, grown | consistent
    if both.any() or not either.any():
        return both
    kept = np.zeros(len(both), np.bool_)
    kept[np.where(either, surplus, -np.inf).argmax()] = True
    return kept


class GraphStrategy:
    """Finds objects by a graph of clicks and masks; see the module.

    Args:
        config: Channel weights, number of clicks and joining of masks.
    """

    def __init__(self, config: GraphConfig | None = None) -> None:
        self.config = config or GraphConfig()

    @property
    def min_presence(self) -> float:
        """Minimum presence for the object to count as present."""
        return self.config.min_presence

    def __call__(
        self, reference: EncodedReference, target: Target, min_presence: float | None = None
    ) -> Matches:
        """As :class:`~promptseg.pipeline.prompters.reference.matching.MatchingStrategy` says."""
        config = self.config
        cells = graph_tokens(target.features, equal_channels=config.equal_channels)
        found = align(reference, cells, equal_channels=config.equal_channels)
        clicks = choose_cells(found.cross, config.max_points)
        if not len(clicks):
            reason = "no place is more like the object than like its surroundings"
            return Matches.none(target, 0.0, (RejectedMask(reference.label, reason, 0.0),))
        place = unit_tokens(target.features)[torch.from_numpy(clicks)]
        presence = presence_of(likeness_to(collect_tokens(reference), place), config)
        nothing = absent(target, reference.label, presence, config, min_presence)
        if nothing is not None:
            return nothing

        masks = target.segmenter.decode_low_res(
            target.embedding,
            point_coords=target.features.cell_centres()[clicks][:, None],
            point_labels=np.ones((len(clicks), 1)),
            multimask_output=False,
        )
        components = components_of(target.cell_shares(masks, samples=1)[:, clicks] > 0)
        wholes = target.cell_shares(target.unite(masks, groups_of(components)))
        balance = found.balance.cpu().numpy()
        grown = grow(balance, target.cell_shares(masks), components)
        consistent = agree(cells, wholes, components, clicks, target.features.grid_size[1])
        kept = choose_masks(grown, consistent, (wholes @ _sign(balance))[components])

        scores = presence * (found.cross / found.cross.max()).cpu().numpy()[clicks]
        rejected = tuple(
            RejectedMask(
                reference.label,
                f"{len(group)} clicks "
                + (
                    "are more like another place" if grown[group].any() else "lie on something else"
                ),
                float(scores[group].max()),
            )
            for group in groups_of(components)
            if not kept[group].any()
        )
        if not kept.any():
            return Matches.none(target, presence, rejected)
        chosen = np.flatnonzero(kept)
        groups = [chosen[group] for group in groups_of(components[chosen])]
        parts = target.unite(masks, groups)
        joined = groups_of(target.join_overlapping(parts, config.join))
        best = np.array([scores[group].max() for group in groups], np.float32)
        return Matches(
            target.unite(parts, joined),
            np.array([best[group].max() for group in joined], np.float32),
            presence,
            rejected,
        )


def _mean(cosines: Tensor, weights: Tensor) -> Tensor:
    """Return weighted means (n,) of cosines (n, m); 0 if no weight is above 0."""
    return (cosines @ weights) / weights.sum().clamp(min=_EPSILON)


def _scaled(values: Tensor) -> Tensor:
    """Scale values to the range [0, 1]; all 0 if they are equal."""
    return (values - values.min()) / (values.max() - values.min() + _EPSILON)


def _sign(balance: Float32Array) -> Float32Array:
    """Return 1 for positive cells, -1 for the others."""
    sign: Float32Array = np.where(balance > 0, 1, -1).astype(np.float32)
    return sign
