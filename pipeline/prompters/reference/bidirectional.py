"""The bidirectional strategy: cells of an example and of an image that match both ways.

After Liu et al. 2023, "Matcher: Segment Anything with One Shot Using All-Purpose Feature Matching".

1. Matching. The object's cells of all examples are assigned to cells of the image, one to one, so
   that the sum of the cosines is highest; then the cells so found are assigned back to any cells of
   the examples. Cells that do not come back to the object are dropped; of more than `keep_all`
   matches the better half stays. A cell belongs to the object if the object covers half of it.
2. Prompts. The matched cells are clustered by their places (k-means++). Sets of points are drawn
   from each cluster (parts), from all matched cells (instances) and from the clusters' centres (the
   whole); if there are few sets, all are used. Each set decodes to three masks, of which those stay
   that are stable and overlap no better one.
3. Selection. With the cost (1 - cosine) / 2 of moving a cell of the object to a cell of the mask,

       emd      = 1 - earth mover's distance of the object's cells to the mask's cells
       purity   = matched cells in the mask / cells of the mask
       coverage = matched cells in the mask / matched cells
       score    = emd_weight * emd + purity_weight * purity * coverage ** coverage_power

   A mask with too low a purity, coverage or emd is dropped, unless it is the best in that respect.
   With the distance 1 - score, those masks stay that are near and nearly as near as the nearest.

The selected masks are joined where they overlap. Unlike in the paper, each group is a mask of its
own, since each is an object, and there is a presence: that of the matched cells, as in
:mod:`~promptseg.pipeline.prompters.reference.matching`. Without any match the object is absent.

The earth mover's distance has uniform weights. Both sides are brought to the same number of cells,
the larger of the two but at most `emd_cells`, by repeating or leaving out cells at even steps, in
the order of their likeness to the examples; between equal numbers of cells an assignment is the
optimal transport. So the distance is exact for equal numbers and, up to `emd_cells`, where one is a
multiple of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....models.errors import InputError
from ...checks import BoolArray, Float32Array
from ...decoding.prompts import LowResMasks
from ...decoding.upscaling import stability_score
from ...masks import box_nms
from ...result import RejectedMask
from .examples import EncodedReference
from .matching import (
    CELL_SHARE,
    Matches,
    PresenceConfig,
    TokenBank,
    absent,
    collect_tokens,
    likeness_to,
    object_cells,
    presence_of,
    unit_tokens,
)
from .point_sets import cluster, draw_sets
from .target import Target, groups_of

IntArray = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class BidirectionalConfig(PresenceConfig):
    """Settings; the defaults are those published for COCO with DINOv2 ViT-L and SAM ViT-H.

    Attributes:
        max_cells: Maximum number of the object's cells that are matched, taken at even steps in
            the order of their likeness to the examples; bounds the time.
        keep_all: Of more matches than this only the better half is kept.
        centres: Maximum number of clusters of matched cells.
        set_sizes: Minimum and maximum number of points of a set.
        sets_per_size: Sets of each size; a third for each of parts, instances and the whole.
        min_iou_prediction: Minimum predicted IoU of a mask.
        min_stability: Minimum stability score of a mask.
        nms_iou: A mask whose box overlaps that of a better one by more than this IoU is dropped.
        emd_weight: Published as alpha.
        purity_weight: Published as beta.
        coverage_power: Published as exp.
        min_emd: Minimum emd of a mask.
        min_purity: Minimum purity of a mask.
        min_coverage: Minimum coverage of a mask.
        max_distance: A mask is near if 1 - score is below this; the nearest always counts.
        max_excess: It is nearly as near as the nearest if its distance exceeds the nearest's by
            less than this share of the largest distance.
        max_masks: Maximum number of masks that are joined.
        emd_cells: Maximum number of cells of each side in the earth mover's distance.
        join: Masks that share more than this of the smaller area become one.
        seed: Seed for the clusters and the sets of points.

    Raises:
        InputError: A value is out of its range.
    """

    max_cells: int = 1000
    keep_all: int = 40
    centres: int = 8
    set_sizes: tuple[int, int] = (1, 6)
    sets_per_size: int = 64
    min_iou_prediction: float = 0.85
    min_stability: float = 0.9
    nms_iou: float = 0.65
    emd_weight: float = 1.0
    purity_weight: float = 0.0
    coverage_power: float = 0.0
    min_emd: float = 0.0
    min_purity: float = 0.02
    min_coverage: float = 0.0
    max_distance: float = 0.33
    max_excess: float = 0.1
    max_masks: int = 9
    emd_cells: int = 128
    join: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_cells", "centres", "sets_per_size", "max_masks", "emd_cells"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("min_iou_prediction", "min_stability", "nms_iou", "join"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        least, most = self.set_sizes
        if not 1 <= least <= most:
            raise InputError(f"set_sizes must be two ascending numbers from 1, not {least}, {most}")


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Cells that match both ways, most similar first.

    Attributes:
        cells: (m,) indices of cells of the image.
        cosines: (m,) cosines with their partners in the examples.
    """

    cells: IntArray
    cosines: Float32Array


def match_both_ways(
    reference: EncodedReference, bank: TokenBank, cells: Tensor, config: BidirectionalConfig
) -> Correspondence:
    """Match the object's cells with an image's cells (n, C) of length 1, and these back."""
    everything = torch.cat([unit_tokens(shot.features) for shot in reference.shots])
    inside = torch.cat([object_cells(shot) for shot in reference.shots]).cpu().numpy()
    order = by_likeness(bank, bank.foreground)[
        spaced(len(bank.foreground), min(len(bank.foreground), config.max_cells))
    ]
    forward = (bank.foreground[torch.from_numpy(order)] @ cells.T).cpu().numpy()
    rows, found = _assign(-forward)
    backward = (cells[torch.from_numpy(found)] @ everything.T).cpu().numpy()
    returned = inside[_assign(-backward)[1]]
    cosines, found = forward[rows, found][returned], found[returned]
    best = np.argsort(-cosines, kind="stable")
    if len(best) > config.keep_all:
        best = best[: len(best) // 2]
    return Correspondence(found[best], cosines[best])


def by_likeness(bank: TokenBank, tokens: Tensor) -> IntArray:
    """Return an order of cells (n, C), most similar first, independent of their numbering."""
    likeness = (tokens @ bank.prototypes.T).amax(1)
    return likeness.argsort(descending=True, stable=True).cpu().numpy()


def spaced(count: int, wanted: int) -> IntArray:
    """Return (wanted,) of ``count`` indices at even steps, repeated if more are wanted."""
    indices: IntArray = ((2 * np.arange(wanted) + 1) * count // (2 * wanted)).astype(np.intp)
    return indices


def transport_distance(cost: Float32Array, most: int) -> float:
    """Return the earth mover's distance with uniform weights, as described in the module.

    Args:
        cost: (n, m) cost of moving each cell of one side to each of the other, both in an order
            that can be thinned at even steps.
        most: Maximum number of cells of each side that are used.
    """
    count = min(max(cost.shape), most)
    equal = cost[np.ix_(spaced(cost.shape[0], count), spaced(cost.shape[1], count))]
    return float(equal[_assign(equal)].mean())


def _assign(cost: Float32Array) -> tuple[IntArray, IntArray]:
    """Return the rows and columns of the assignment that costs least."""
    from scipy.optimize import linear_sum_assignment  # takes as long as a query with a phrase

    rows, columns = linear_sum_assignment(cost)
    return rows, columns


@dataclass(frozen=True, eq=False)
class Fitness:
    """How well N masks fit the matches, (N,) float32 each, by the module's formulas."""

    emd: Float32Array
    purity: Float32Array
    coverage: Float32Array


def fitness_of(
    bank: TokenBank,
    cells: Tensor,
    covered: BoolArray,
    hits: BoolArray,
    config: BidirectionalConfig,
) -> Fitness:
    """Judge masks.

    Args:
        bank: Cells of the examples.
        cells: (n, C) cells of the image, of length 1.
        covered: (N, n) which cells each mask covers, at least one.
        hits: (N, m) which of the matched cells' centres each mask covers.
        config: Bounds the number of cells by ``emd_cells``.
    """
    order = by_likeness(bank, cells)
    rows = by_likeness(bank, bank.foreground)
    rows = rows[spaced(len(rows), min(len(rows), config.emd_cells))]
    foreground = bank.foreground[torch.from_numpy(rows)]
    costs: Float32Array = ((1 - foreground @ cells.T) / 2).cpu().numpy()
    emd = [
        1 - transport_distance(costs[:, order[mask[order]]], config.emd_cells) for mask in covered
    ]
    inside = hits.sum(1)
    return Fitness(
        np.array(emd, np.float32),
        (inside / covered.sum(1)).astype(np.float32),
        (inside / hits.shape[1]).astype(np.float32),
    )


def select_masks(
    fitness: Fitness, config: BidirectionalConfig
) -> tuple[IntArray, Float32Array, dict[int, str]]:
    """Choose the masks that are joined.

    Returns:
        Their indices (M,), best first; the scores (N,) of all masks; why the others are dropped.
    """
    scores = config.emd_weight * fitness.emd + config.purity_weight * (
        fitness.purity * fitness.coverage**config.coverage_power
    )
    alive = np.arange(len(scores))
    reasons: dict[int, str] = {}
    for name in ("coverage", "emd", "purity"):
        values: Float32Array = getattr(fitness, name)
        least = getattr(config, f"min_{name}")
        passed = values[alive] >= min(least, values[alive].max())
        reasons |= {int(i): f"{name} {values[i]:.2f} below {least:.2f}" for i in alive[~passed]}
        alive = alive[passed]
    alive = alive[np.argsort(-scores[alive], kind="stable")]
    distances = 1 - scores[alive]
    near = distances < config.max_distance
    near[0] = True
    near &= (distances - distances[0]) / (distances[-1] + 1e-6) < config.max_excess
    near[config.max_masks :] = False
    reasons |= {int(i): f"score {scores[i]:.2f} far from the best" for i in alive[~near]}
    return alive[near], scores.astype(np.float32), reasons


class BidirectionalStrategy:
    """Finds objects by cells that match both ways; see the module.

    Args:
        config: Settings of all three steps.
    """

    def __init__(self, config: BidirectionalConfig | None = None) -> None:
        self.config = config or BidirectionalConfig()

    @property
    def min_presence(self) -> float:
        """Minimum presence for the object to count as present."""
        return self.config.min_presence

    def __call__(
        self, reference: EncodedReference, target: Target, min_presence: float | None = None
    ) -> Matches:
        """As :class:`~promptseg.pipeline.prompters.reference.matching.MatchingStrategy` says."""
        config, label = self.config, reference.label
        bank, cells = collect_tokens(reference), unit_tokens(target.features)
        matched = match_both_ways(reference, bank, cells, config)
        if not len(matched.cells):
            reason = "no cell of the image matches the object both ways"
            return Matches.none(target, 0.0, (RejectedMask(label, reason, 0.0),))
        presence = presence_of(likeness_to(bank, cells[torch.from_numpy(matched.cells)]), config)
        nothing = absent(target, label, presence, config, min_presence)
        if nothing is not None:
            return nothing

        masks = self._propose(target, target.features.cell_centres()[matched.cells])
        shares = target.cell_shares(masks)
        if not len(shares):
            reason = "no mask of the matched cells is stable with a high predicted IoU"
            return Matches.none(target, presence, (RejectedMask(label, reason, presence),))
        covered = shares >= np.minimum(CELL_SHARE, shares.max(1, keepdims=True))
        hits = target.cell_shares(masks, samples=1)[:, matched.cells] > 0
        chosen, scores, reasons = select_masks(
            fitness_of(bank, cells, covered, hits, config), config
        )
        scores = presence * np.clip(scores / max(scores[chosen[0]], 1e-6), 0, 1)
        rejected = tuple(
            RejectedMask(
                label, reason, float(scores[i]), iou_prediction=float(masks.iou_predictions[i, 0])
            )
            for i, reason in sorted(reasons.items())
        )
        selected = masks.take(chosen)
        groups = groups_of(target.join_overlapping(selected, config.join))
        best = [scores[chosen[group]].max() for group in groups]
        return Matches(
            target.unite(selected, groups), np.array(best, np.float32), presence, rejected
        )

    def _propose(self, target: Target, points: Float32Array) -> LowResMasks:
        """Return good masks (N, 1, h, w) of sets of points (n, 2), distinct and covering cells."""
        config, segmenter = self.config, target.segmenter
        rng = np.random.default_rng(config.seed)
        centres, labels = cluster(points, config.centres, rng)
        good: list[LowResMasks] = []
        drawn = draw_sets(
            points, centres, labels, rng, sizes=config.set_sizes, count=config.sets_per_size
        )
        for sets in drawn:
            found = segmenter.decode_low_res(
                target.embedding,
                point_coords=sets,
                point_labels=np.ones(sets.shape[:2]),
                multimask_output=True,
            )
            good.append(self._keep_good(target, found))
        masks = LowResMasks(
            np.concatenate([part.logits for part in good]),
            np.concatenate([part.iou_predictions for part in good]),
        )
        masks = masks.take(np.flatnonzero(target.cell_shares(masks).any(1)))
        boxes = segmenter.low_res_boxes(target.embedding, masks)
        ious = masks.iou_predictions[:, 0].astype(np.float64)
        return masks.take(box_nms(boxes, ious, config.nms_iou))

    def _keep_good(self, target: Target, found: LowResMasks) -> LowResMasks:
        """Return the masks, with C of 1, that are stable and have a high predicted IoU."""
        threshold = target.segmenter.model.mask_threshold
        flat = LowResMasks(
            found.logits.reshape(-1, 1, *found.logits.shape[-2:]),
            found.iou_predictions.reshape(-1, 1),
        )
        logits = torch.from_numpy(target.inside(flat.logits)[:, 0])
        stability = stability_score(logits, threshold).numpy()
        good = (flat.iou_predictions[:, 0] >= self.config.min_iou_prediction) & (
            stability >= self.config.min_stability
        )
        return flat.take(good)
