"""Sampling of cells that overhang the picture, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptseg.models.grounding.answers import sample_cells


def bilinear(values: np.ndarray, y: float, x: float) -> float:
    """Values (h, w) at a place in cells, whose centres are at .5; beyond them the border."""
    y, x = np.clip(y - 0.5, 0, values.shape[0] - 1), np.clip(x - 0.5, 0, values.shape[1] - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, values.shape[0] - 1), min(x0 + 1, values.shape[1] - 1)
    top = values[y0, x0] * (1 - (x - x0)) + values[y0, x1] * (x - x0)
    bottom = values[y1, x0] * (1 - (x - x0)) + values[y1, x1] * (x - x0)
    return float(top * (1 - (y - y0)) + bottom * (y - y0))


@pytest.mark.parametrize(
    ("extent", "grid"),
    [((4.0, 6.0), (16, 24)), ((3.2, 5.1), (13, 21)), ((3.5, 6.0), (5, 3)), ((0.4, 6.0), (1, 9))],
)
def test_a_picture_is_sampled_at_its_own_places(
    extent: tuple[float, float], grid: tuple[int, int]
) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 6))
    expected = np.zeros((2, 3, *grid))
    for i in range(grid[0]):
        for j in range(grid[1]):
            y, x = (i + 0.5) / grid[0] * extent[0], (j + 0.5) / grid[1] * extent[1]
            for place in np.ndindex(2, 3):
                expected[(*place, i, j)] = bilinear(maps[place], y, x)
    found = sample_cells(torch.from_numpy(maps).float(), extent, grid)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
