"""Turns similarity maps into points: foreground on the hottest cells, background on the coldest.

The rule is CLIP Surgery's (Li et al. 2023). Every map has a hottest cell, whatever the image shows,
so a gate must first have decided that the object is present.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ....models.embedding import ImageEmbedding
from ....models.errors import InputError
from ....models.grounding.answers import HeatMap
from ...checks import Float32Array
from ...decoding.prompts import PromptSet

_NO_SPAN = 1e-6  # heat that varies by no more than rounding is flat


@dataclass(frozen=True)
class SimilarityPointsConfig:
    """How a similarity map becomes points.

    Attributes:
        level: Cells of at least this heat, scaled to [0, 1] over the map, are on the object.
        max_points: Maximum number of foreground and of background points; the hottest and the
            coldest stay.
        shrink: Factor by which the map is shrunk first, which smooths it.

    Raises:
        InputError: A value is out of its range.
    """

    level: float = 0.8
    max_points: int = 16
    shrink: int = 2

    def __post_init__(self) -> None:
        if not 0.0 < self.level <= 1.0:
            raise InputError(f"level must be above 0 and at most 1, not {self.level!r}")
        for name in ("max_points", "shrink"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, not {getattr(self, name)}")


def sample_points(
    similarity: Float32Array, config: SimilarityPointsConfig
) -> tuple[Float32Array, NDArray[np.int64]]:
    """Choose points from a similarity map: its hottest cells, and as many of its coldest.

    Args:
        similarity: (h, w).
        config: Level and number of the points.

    Returns:
        (x, y) in cells of the map, (N, 2), the outer corner of the first cell being (0, 0), and
        labels (N,): first 1 from the hottest on, then 0 from the coldest on. There is always a
        foreground point; for a flat map it is the only point, in the middle.
    """
    rows, columns = similarity.shape
    size = (max(1, rows // config.shrink), max(1, columns // config.shrink))
    map_ = torch.from_numpy(np.asarray(similarity, np.float32))[None, None]
    small = F.interpolate(map_, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
    span = float(small.max() - small.min())
    if span <= _NO_SPAN:
        return np.array([[columns / 2, rows / 2]], np.float32), np.ones(1, np.int64)
    heat = (small - small.min()).ravel() / span
    count = min(int((heat >= config.level).sum()), heat.size // 2, config.max_points)
    chosen = np.concatenate([np.argsort(-heat, kind="stable")[:count],
                             np.argsort(heat, kind="stable")[:count]])  # fmt: skip
    y, x = np.divmod(chosen, size[1])
    step = columns / size[1], rows / size[0]
    points = np.stack([(x + 0.5) * step[0], (y + 0.5) * step[1]], axis=1).astype(np.float32)
    return points, np.repeat(np.array([1, 0], np.int64), count)


class PointPrompts:
    """Turns the similarity map of a phrase into one prompt of several points.

    Args:
        config: How points are chosen.
    """

    def __init__(self, config: SimilarityPointsConfig | None = None) -> None:
        self.config = config or SimilarityPointsConfig()

    def __call__(self, found: HeatMap, embedding: ImageEmbedding) -> PromptSet:
        """Return one prompt with all points of a phrase."""
        cells, labels = sample_points(found.heat, self.config)
        return PromptSet(
            prompt_scores=np.array([found.presence], np.float32),
            labels=(found.phrase,),
            point_coords=_to_pixels(cells, found, embedding)[None],
            point_labels=labels[None],
        )

    def peak(self, found: HeatMap, embedding: ImageEmbedding) -> tuple[float, float]:
        """Return the centre of the hottest cell, (x, y) in pixels."""
        row, column = np.unravel_index(int(found.heat.argmax()), found.heat.shape)
        middle = np.array([[column + 0.5, row + 0.5]], np.float32)
        x, y = _to_pixels(middle, found, embedding)[0].tolist()
        return x, y


def _to_pixels(cells: Float32Array, found: HeatMap, embedding: ImageEmbedding) -> Float32Array:
    """Convert places (N, 2) in cells to pixels (N, 2) of the image, clipped to it."""
    rows, columns = found.heat.shape
    height, width = embedding.original_size
    pixels = cells * np.array([width / columns, height / rows]) - 0.5
    inside: Float32Array = np.clip(pixels, 0, [width - 1, height - 1]).astype(np.float32)
    return inside
