"""Turning a uint8 image into a network's input, for all families of models."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def longest_side_size(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """Size (H', W') of an image (H, W) after scaling its longer side to ``long_side``.

    Rounds half up as the official ResizeLongestSide does; no side becomes less than one pixel.
    """
    scale = long_side / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an image (H, W, 3) uint8 RGB to a size (H', W').

    By Pillow's antialiased bilinear filter, which is what the official code uses.
    """
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(resized)


def to_pixel_values(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    *,
    mean: Tensor,
    std: Tensor,
    pad_to: tuple[int, int],
) -> Tensor:
    """Resize, normalise and pad an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: (H', W') to resize to.
        mean: Channel means (3, 1, 1) in 0..255.
        std: Channel standard deviations (3, 1, 1) in 0..255.
        pad_to: (H'', W'') to pad with zeros to, at the right and the bottom.

    Returns:
        (1, 3, H'', W'') on the device of ``mean``.
    """
    pixels = torch.from_numpy(resize(image, size)).to(mean.device).permute(2, 0, 1)
    pixels = (pixels.to(mean.dtype) - mean) / std
    padding = (0, pad_to[1] - size[1], 0, pad_to[0] - size[0])
    return F.pad(pixels, padding).unsqueeze(0)
