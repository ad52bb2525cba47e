"""What a grounding model that works on feature maps answers: a heat map for each phrase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class HeatMap:
    """How well each place of a picture matches a phrase.

    Attributes:
        phrase: The phrase.
        heat: (h, w) float32 in [0, 1], about 0.5 at the border of what the phrase names; the map
            spans the whole picture.
        presence: How sure the model is that what the phrase names is there at all, in [0, 1].
    """

    phrase: str
    heat: NDArray[np.float32]
    presence: float


def sample_cells(maps: Tensor, extent: tuple[float, float], grid: tuple[int, int]) -> Tensor:
    """Sample maps whose last cells may overhang the picture at the picture's own places.

    Args:
        maps: (B, C, h, w).
        extent: Height and width of the picture in cells of the maps.
        grid: Rows and columns wanted.

    Returns:
        (B, C, *grid), bilinear.
    """
    rows, columns = maps.shape[-2:]
    y = (torch.arange(grid[0], device=maps.device) + 0.5) / grid[0] * extent[0]
    x = (torch.arange(grid[1], device=maps.device) + 0.5) / grid[1] * extent[1]
    places = torch.meshgrid(2 * x / columns - 1, 2 * y / rows - 1, indexing="xy")
    return F.grid_sample(
        maps,
        torch.stack(places, dim=-1).expand(len(maps), -1, -1, -1),
        padding_mode="border",
        align_corners=False,
    )
