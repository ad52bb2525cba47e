"""Turns heat maps into prompts: hot regions become points, boxes and mask priors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...models.embedding import ImageEmbedding
from ...models.grounding.answers import HeatMap
from ..checks import BoolArray, Float32Array
from ..decoding.prompts import PromptSet
from ..decoding.segmenter import Segmenter

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
    """

    level: float = 0.5
    peak_share: float = 0.7
    min_peak: float = 0.5
    min_region: float = 0.002
    max_prompts: int = 8
    smooth: float = 0.0


@dataclass(frozen=True, eq=False)
class _Region:
    """A connected hot region, in the frame of its heat map."""

    mask: BoolArray
    peak: float
    row: int
    column: int


def hot_regions(heat: Float32Array, config: HeatPromptConfig) -> list[_Region]:
    """Return the connected hot regions, hottest first; at least the one with the peak.

    Args:
        heat: (h, w).
        config: The thresholds.
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
    return (first + further)[: config.max_prompts]


def region_prior(heat: Float32Array, region: _Region, others: BoolArray) -> Float32Array:
    """Return mask logits (h, w) of one region: those of the heat, but cold on the other regions."""
    even = np.clip(heat, _LEAST_HEAT, 1 - _LEAST_HEAT)
    logits = np.log(even / (1 - even))
    prior: Float32Array = np.where(others & ~region.mask, logits.min(), logits).astype(np.float32)
    return prior


class HeatPrompts:
    """Turns heat maps into prompts, one for each hot region.

    Args:
        segmenter: Resamples the priors to its mask input.
        config: Which regions become prompts.
    """

    def __init__(self, segmenter: Segmenter, config: HeatPromptConfig | None = None) -> None:
        self.segmenter = segmenter
        self.config = config or HeatPromptConfig()

    def __call__(self, found: HeatMap, embedding: ImageEmbedding) -> PromptSet:
        """Return the prompts of one heat map, the hottest region first; at least one."""
        step = _pixels_per_cell(found.heat, embedding.original_size)
        regions = hot_regions(found.heat, self.config)
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
