"""The image that is searched: its features, and masks at the decoder's resolution on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ....models.embedding import ImageEmbedding
from ....models.features.dense import DenseFeatures
from ...checks import BoolArray, Float32Array
from ...decoding.prompts import LowResMasks
from ...decoding.segmenter import Segmenter


def groups_of(labels: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """Return the indices of each label, in the order in which the labels first occur."""
    first = sorted(np.unique(labels, return_index=True)[1])
    return [np.flatnonzero(labels == labels[i]) for i in first]


@dataclass(frozen=True, eq=False)
class Target:
    """The image that is searched, and how masks decoded for it lie in the grid of its features.

    Methods that take masks take them with C of 1.

    Attributes:
        segmenter: Decodes prompts for the image.
        embedding: The encoded image.
        features: Features of the image, by the same model as the references'.
    """

    segmenter: Segmenter
    embedding: ImageEmbedding
    features: DenseFeatures

    def pixels(self, masks: LowResMasks) -> BoolArray:
        """Return the masks (N, h', w') without padding."""
        logits = self.inside(masks.logits)[:, 0]
        pixels: BoolArray = logits > self.segmenter.model.mask_threshold
        return pixels

    def inside(self, logits: Float32Array) -> Float32Array:
        """Return the part (..., h', w') of logits (..., h, w) that is not padding."""
        rows, columns = self.segmenter.mask_input_extent(self.embedding)
        return logits[..., :rows, :columns]

    def cell_shares(self, masks: LowResMasks, *, samples: int = 4) -> Float32Array:
        """Return how much of each cell each mask covers.

        Args:
            masks: N masks.
            samples: Samples along each side of a cell; with 1, a share is 0 or 1 and tells whether
                the cell's centre is covered.

        Returns:
            (N, h * w) in [0, 1], cells row by row.
        """
        model, places = self.segmenter.model, []
        for cells, step, length, resized in zip(
            self.features.grid_size,
            self.features.cell_size,
            self.embedding.original_size,
            self.embedding.input_size,
            strict=True,
        ):
            # As pixel edges; of a cell that overhangs the image, the part inside counts.
            at = np.minimum((np.arange(cells * samples) + 0.5) * (step / samples), length)
            places.append(torch.from_numpy(at * (2 * resized / (length * model.image_size)) - 1))
        grid = torch.stack(torch.meshgrid(places[1], places[0], indexing="xy"), dim=-1)
        logits = torch.from_numpy(masks.logits[:, 0]).unsqueeze(0)
        sampled = F.grid_sample(
            logits, grid.unsqueeze(0).to(logits), padding_mode="border", align_corners=False
        )
        covered = (sampled[0] > model.mask_threshold).float()
        rows, columns = self.features.grid_size
        parts = covered.view(len(covered), rows, samples, columns, samples)
        shares: Float32Array = parts.mean((2, 4)).flatten(1).numpy()
        return shares

    def join_overlapping(self, masks: LowResMasks, limit: float) -> NDArray[np.int32]:
        """Number the groups of masks that overlap, directly or through others.

        Args:
            masks: N masks; some may be empty.
            limit: Two masks overlap if they share more than this of the smaller one's area.

        Returns:
            (N,) from 0.
        """
        from scipy.sparse import csgraph  # not at the start of a command that needs none of it

        flat = self.pixels(masks).reshape(len(masks.logits), -1).astype(np.float32)
        areas = flat.sum(1)
        shares = (flat @ flat.T) / np.maximum(np.minimum.outer(areas, areas), 1)
        labels: NDArray[np.int32] = csgraph.connected_components(shares > limit)[1]
        return labels

    def unite(self, masks: LowResMasks, groups: Sequence[NDArray[np.intp]]) -> LowResMasks:
        """Return the union of each group of masks, with the area-weighted mean predicted IoU."""
        areas = np.maximum(self.pixels(masks).sum((1, 2)), 1)
        ious = masks.iou_predictions[:, 0]
        means = [[np.average(ious[group], weights=areas[group])] for group in groups]
        logits = np.stack([masks.logits[group].max(0) for group in groups])
        return LowResMasks(logits, np.array(means, np.float32))
