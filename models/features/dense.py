"""Dense features: a grid of vectors, and where its cells lie in the image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..embedding import ImageEmbedding


@dataclass(frozen=True, eq=False)
class DenseFeatures:
    """A feature vector for each cell of a grid over an image.

    Cell (row, column) spans the pixels from ``row * cell_size[0]`` to ``(row + 1) *
    cell_size[0]`` vertically, and likewise horizontally. Cells of the last row and column may
    overhang the image.

    Attributes:
        tokens: (h, w, C) float32.
        image_size: (H, W) of the image.
        input_size: (H', W') that the image was resized to for the model.
        cell_size: Height and width of a cell in pixels of the image.
        model_id: Name of the model; only features of the same model can be compared.
    """

    tokens: Tensor
    image_size: tuple[int, int]
    input_size: tuple[int, int]
    cell_size: tuple[float, float]
    model_id: str

    @property
    def grid_size(self) -> tuple[int, int]:
        """Number of rows and columns of the grid."""
        return int(self.tokens.shape[0]), int(self.tokens.shape[1])

    def to(self, device: torch.device) -> DenseFeatures:
        """Return the same features on another device."""
        return replace(self, tokens=self.tokens.to(device))

    def cell_centres(self) -> NDArray[np.float32]:
        """Centres (h * w, 2) of the cells as pixels (x, y), row by row, clipped to the image."""
        height, width = self.image_size
        rows, columns = np.indices(self.grid_size, dtype=np.float64)
        x = np.clip((columns + 0.5) * self.cell_size[1] - 0.5, 0, width - 1)
        y = np.clip((rows + 0.5) * self.cell_size[0] - 0.5, 0, height - 1)
        centres: NDArray[np.float32] = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
        return centres

    def cell_coverage(self, mask: NDArray[np.bool_]) -> Tensor:
        """Fraction of each cell that a mask covers.

        Args:
            mask: (H, W), at the size of the image.

        Returns:
            (h, w) float32 in [0, 1]; of a cell that overhangs the image, only the part inside
            counts.

        Raises:
            ValueError: The mask has another size than the image.
        """
        if mask.shape != self.image_size:
            raise ValueError(f"the mask must be {self.image_size}, not {mask.shape}")
        rows = _overlaps(self.grid_size[0], self.cell_size[0], self.image_size[0])
        columns = _overlaps(self.grid_size[1], self.cell_size[1], self.image_size[1])
        covered = rows @ mask.astype(np.float32) @ columns.T
        areas = rows.sum(1)[:, None] * columns.sum(1)
        return torch.from_numpy((covered / areas).astype(np.float32)).to(self.tokens.device)

    def spread(self, cells: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample a map of the cells to a grid that spans the image exactly.

        Args:
            cells: (h, w).
            size: Rows and columns of the new grid.

        Returns:
            (*size), bilinearly interpolated.
        """
        y = _centres(size[0]) * (self.image_size[0] / (self.cell_size[0] * self.grid_size[0]))
        x = _centres(size[1]) * (self.image_size[1] / (self.cell_size[1] * self.grid_size[1]))
        places = torch.meshgrid(2 * x - 1, 2 * y - 1, indexing="xy")
        sampled = F.grid_sample(
            cells[None, None],
            torch.stack(places, dim=-1)[None].to(cells),
            padding_mode="border",
            align_corners=False,
        )
        return sampled[0, 0]


def _centres(count: int) -> Tensor:
    """Centres of ``count`` equal parts of [0, 1]."""
    return (torch.arange(count) + 0.5) / count


def _overlaps(cells: int, step: float, pixels: int) -> NDArray[np.float64]:
    """Lengths (cells, pixels) of the overlap of each cell with each pixel along one axis."""
    starts = np.arange(cells)[:, None] * step
    left = np.maximum(starts, np.arange(pixels))
    right = np.minimum(starts + step, np.arange(pixels) + 1)
    return np.maximum(right - left, 0)


class FeatureExtractor(Protocol):
    """Computes dense features of images."""

    @property
    def model_id(self) -> str:
        """Name of the model, which is stored with its features."""
        ...

    def extract(self, image: NDArray[np.uint8]) -> DenseFeatures:
        """Features of an image (H, W, 3) uint8 RGB."""
        ...

    def extract_encoded(self, embedding: ImageEmbedding) -> DenseFeatures:
        """Features of an encoded image; maps that its encoder left are not computed again.

        Raises:
            ValueError: The image itself is needed, and the embedding does not keep it.
        """
        ...
