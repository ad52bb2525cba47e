"""Pixels of any depth and any channels as 8-bit RGB, (H, W, 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .checks import UInt8Array

# An image is converted in bands of this size.
_BAND_PIXELS = 2**20
_INTEGER_BITS = (8, 10, 12, 14, 16)


def rgb_pixels(image: Image.Image) -> UInt8Array:
    """Convert in bands: of a large image, all other ways hold several copies."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    step = max(1, _BAND_PIXELS // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)).convert("RGB"))
    return pixels


def scale_integers(values: NDArray[np.generic]) -> UInt8Array:
    """Map whole numbers to 0..255 by the bit depth that holds their maximum."""
    clipped = np.clip(values.astype(np.int64), 0, None)
    highest = int(clipped.max())
    top = next((2**bits - 1 for bits in _INTEGER_BITS if highest < 2**bits), highest)
    scaled: UInt8Array = ((clipped * 255 + top // 2) // top).astype(np.uint8)
    return scaled


def scale_floats(values: NDArray[np.generic], nodata: float | None) -> UInt8Array:
    """Map floats to 0..255 by the range of their valid pixels; the others become 0."""
    numbers = values.astype(np.float64)
    valid = np.isfinite(numbers)
    if nodata is not None:
        valid &= values != np.asarray(nodata, values.dtype)
    scaled = np.zeros(numbers.shape, np.uint8)
    if not valid.any():
        return scaled
    low, high = float(numbers[valid].min()), float(numbers[valid].max())
    if high > low:
        # Halves, so that the range of the largest numbers is finite.
        share = (numbers[valid] / 2 - low / 2) / (high / 2 - low / 2)
        scaled[valid] = np.rint(share * 255.0)
    return scaled


def over_white(rgba: UInt8Array) -> UInt8Array:
    """Lay (H, W, 4) straight-alpha pixels over white."""
    alpha = rgba[..., 3:].astype(np.uint16)
    over = rgba[..., :3].astype(np.uint16) * alpha + 255 * (255 - alpha)
    rgb: UInt8Array = ((over + 127) // 255).astype(np.uint8)
    return rgb


def grey_to_rgb(grey: UInt8Array) -> UInt8Array:
    """Repeat (H, W) in three channels."""
    return np.repeat(grey[:, :, None], 3, axis=2)
