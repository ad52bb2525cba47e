"""Turns heat maps into prompts: hot regions become points, boxes and mask priors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...models.embedding import ImageEmbedding
from ...models.grounding.answers import HeatMap, ObjectField
from ..checks import BoolArray, Float32Array
from ..decoding.prompts import PromptSet
from ..decoding.segmenter import Segmenter
from .objects import ObjectSplitConfig, split_objects

_DEEP = 4.0  # cells from its border at which a place of an object counts in full
_LEAST_HEAT = 1e-4  # bounds a prior's logits at about 9


@dataclass(frozen=True)
class HeatPromptConfig:
    """How a heat map becomes prompts.

    Attributes:
        level: Cells of at least this heat belong to the object.
        peak_share: So do cells of at least this share of the map's peak, if that is less.
        min_peak: Minimum peak of a further region, as a share of the map's peak.
        min_region: Minimum share of the image that a further region covers.
        max_prompts: Maximum number of regions for a phrase; those with the highest peaks stay.
        smooth: Standard deviation in cells of the Gaussian that smooths the heat before a region's
            point is placed on its hottest cell; 0 for no smoothing.
        objects: When a region is several objects, where the model tells them apart; None takes
            every region for one.
        max_objects: Maximum number of prompts for a phrase after that.
    """

    level: float = 0.5
    peak_share: float = 0.7
    min_peak: float = 0.5
    min_region: float = 0.002
    max_prompts: int = 8
    smooth: float = 0.0
    objects: ObjectSplitConfig | None = None
    max_objects: int = 20


@dataclass(frozen=True, eq=False)
class _Region:
    """A connected hot region, in the frame of its heat map."""

    mask: BoolArray
    peak: float
    row: int
    column: int


def hot_regions(
    heat: Float32Array, config: HeatPromptConfig, field: ObjectField | None = None
) -> list[_Region]:
    """Return the hot regions, hottest first; at least the one with the peak.

    Args:
        heat: (h, w).
        config: The thresholds.
        field: Tells the objects of a connected region apart; None if the model cannot.
    """
    peak = float(heat.max())
    hot = heat >= min(config.level, config.peak_share * peak)
    labelled, count = ndimage.label(hot)
    smoothed = ndimage.gaussian_filter(heat, config.smooth, mode="nearest")
    regions = []
    for number in range(1, count + 1):
        mask = labelled == number
        inside = np.where(mask, smoothed, -1.0)
        row, column = np.unravel_index(int(inside.argmax()), heat.shape)
        regions.append(_Region(mask, float(heat[mask].max()), int(row), int(column)))
    regions.sort(key=lambda region: -region.peak)
    first, further = regions[:1], regions[1:]
    further = [
        region
        for region in further
        if region.peak >= config.min_peak * peak and region.mask.mean() >= config.min_region
    ]
    connected = (first + further)[: config.max_prompts]
    if field is None or config.objects is None:
        return connected
    found = []
    for region in connected:
        parts = split_objects(region.mask, heat, field, config.objects)
        found += [region] if len(parts) == 1 else [_inner(part, heat, smoothed) for part in parts]
    return sorted(found, key=lambda region: -region.peak)[: config.max_objects]


def _inner(part: BoolArray, heat: Float32Array, smoothed: Float32Array) -> _Region:
    """Return an object of a region, with its point where it is hot and away from its neighbours."""
    depth = np.minimum(1.0, ndimage.distance_transform_edt(part) / _DEEP)
    row, column = np.unravel_index(int(np.where(part, smoothed * depth, -1.0).argmax()), part.shape)
    return _Region(part, float(heat[part].max()), int(row), int(column))


def region_prior(heat: Float32Array, region: _Region, others: BoolArray) -> Float32Array:
    """Return mask logits (h, w) of one region: those of the heat, but cold on the other regions."""
    even = np.clip(heat, _LEAST_HEAT, 1 - _LEAST_HEAT)
    logits = np.log(even / (1 - even))
    prior: Float32Array = np.where(others & ~region.mask, logits.min(), logits).astype(np.float32)
    return prior


class HeatPrompts:
    """Turns heat maps into prompts, one for each hot region or object of it.

    Args:
        segmenter: Resamples the priors to its mask input.
        config: Which regions and objects become prompts.
    """

    def __init__(self, segmenter: Segmenter, config: HeatPromptConfig | None = None) -> None:
        self.segmenter = segmenter
        self.config = config or HeatPromptConfig()

    def __call__(self, found: HeatMap, embedding: ImageEmbedding) -> PromptSet:
        """Return the prompts of one heat map, the hottest object first; at least one."""
        step = _pixels_per_cell(found.heat, embedding.original_size)
        regions = hot_regions(found.heat, self.config, found.objects)
        hot: BoolArray = np.logical_or.reduce([region.mask for region in regions])
        highest = max(regions[0].peak, _LEAST_HEAT)
        scores = [min(1.0, found.presence * region.peak / highest) for region in regions]
        priors = np.stack([region_prior(found.heat, region, hot) for region in regions])
        return PromptSet(
            prompt_scores=np.array(scores, np.float32),
            labels=(found.phrase,) * len(regions),
            point_coords=np.array([_point(r, step) for r in regions], np.float32)[:, None],
            point_labels=np.ones((len(regions), 1), np.int64),
            boxes=np.array([_box(region.mask, step) for region in regions], np.float32),
            mask_input=self.segmenter.to_mask_input(priors, embedding),
        )

    def peak(self, found: HeatMap, embedding: ImageEmbedding) -> tuple[float, float]:
        """Return where the phrase matches best, (x, y) in pixels, whether present or not."""
        step = _pixels_per_cell(found.heat, embedding.original_size)
        return _point(hot_regions(found.heat, self.config)[0], step)


def _point(region: _Region, step: tuple[float, float]) -> tuple[float, float]:
    x, y = (region.column + 0.5) * step[0] - 0.5, (region.row + 0.5) * step[1] - 0.5
    return max(0.0, x), max(0.0, y)


def _pixels_per_cell(heat: Float32Array, size: tuple[int, int]) -> tuple[float, float]:
    return size[1] / heat.shape[1], size[0] / heat.shape[0]


def _box(mask: BoolArray, step: tuple[float, float]) -> tuple[float, float, float, float]:
    rows: NDArray[np.intp] = np.flatnonzero(mask.any(1))
    columns: NDArray[np.intp] = np.flatnonzero(mask.any(0))
    return (
        float(columns[0] * step[0]),
        float(rows[0] * step[1]),
        float((columns[-1] + 1) * step[0]),
        float((rows[-1] + 1) * step[1]),
    )
