"""Colour words in phrases: "red car" is a car whose pixels are mostly red.

Neither half of the pocket grounder knows colours, so they are measured in the pixels: each pixel
is softly assigned to the nearest of several focal colours in CIELAB, and a hot region counts in
proportion to the share of its pixels that have the requested colour. The words are the eleven basic
colour terms (Berlin & Kay 1969).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float32Array = NDArray[np.float32]

# sRGB examples of each term, from dark to light.
FOCAL_COLOURS: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((12, 12, 14), (38, 38, 42)),
    "grey": ((85, 85, 88), (125, 125, 128), (165, 165, 168)),
    "white": ((215, 215, 215), (248, 248, 248)),
    "red": ((85, 22, 20), (125, 20, 28), (165, 25, 35), (210, 35, 45), (225, 75, 75)),
    "orange": ((205, 100, 35), (235, 130, 40), (195, 130, 75), (225, 160, 100)),
    "yellow": ((205, 175, 40), (245, 220, 60), (245, 230, 150)),
    "green": ((25, 60, 35), (40, 110, 60), (90, 140, 60), (140, 190, 110)),
    "blue": ((22, 30, 60), (60, 78, 110), (40, 70, 130), (50, 100, 180), (105, 130, 165),
             (95, 145, 200), (165, 200, 230)),
    "purple": ((60, 30, 80), (105, 55, 135), (155, 110, 185)),
    "pink": ((205, 60, 125), (235, 130, 165), (245, 190, 205)),
    "brown": ((55, 35, 25), (95, 62, 42), (135, 70, 25), (140, 98, 68), (175, 135, 100)),
}  # fmt: skip
_ALIASES = {"gray": "grey", "violet": "purple", "golden": "yellow", "navy": "blue"}
_SHADES = frozenset(["dark", "light", "bright", "pale", "deep"])
_SPREAD = 12.0  # CIELAB distance at which a focal colour's weight has fallen to 0.6
# Share of a region's pixels with the colour up to which it does not count, and from which it
# counts in full.
SHARE_RANGE = (0.12, 0.32)


def split_colour(phrase: str) -> tuple[str | None, str]:
    """Split the colour word off a phrase.

    Returns:
        A key of ``FOCAL_COLOURS`` and the rest of the phrase; None and the whole phrase if it has
        no colour word, several of them, or nothing else ("orange" alone is a fruit).
    """
    words = phrase.split()
    colours = [word for word in words if _colour(word)]
    rest = [word for word in words if not _colour(word) and word.lower() not in _SHADES]
    if len(colours) != 1 or not rest or _colour(words[-1]):
        return None, phrase
    return _colour(colours[0]), " ".join(rest)


def _colour(word: str) -> str | None:
    lower = word.lower().strip(",.")
    lower = _ALIASES.get(lower, lower)
    return lower if lower in FOCAL_COLOURS else None


def colour_share(image: NDArray[np.uint8], colour: str) -> Float32Array:
    """How much each pixel of an RGB image (H, W, 3) has a colour: (H, W) in [0, 1]."""
    lab = _to_lab(image)
    weights = np.stack(
        [
            np.max([np.exp(-_square(lab, rgb) / (2 * _SPREAD**2)) for rgb in examples], axis=0)
            for examples in FOCAL_COLOURS.values()
        ]
    )
    number = list(FOCAL_COLOURS).index(colour)
    share: Float32Array = (weights[number] / (weights.sum(0) + 1e-6)).astype(np.float32)
    return share


def keep_coloured(
    heat: Float32Array, presence: float, share: Float32Array
) -> tuple[Float32Array, float]:
    """Cool the hot regions that do not have the colour.

    Args:
        heat: (h, w) in [0, 1], hot from 0.5 on.
        presence: Presence of the phrase without its colour.
        share: (h, w), how much each cell has the colour.

    Returns:
        Heat and presence of the phrase with its colour.
    """
    low, high = SHARE_RANGE
    hot = heat >= min(0.5, float(heat.max()))
    labelled, count = ndimage.label(hot)
    shares = ndimage.mean(share, labelled, index=np.arange(1, count + 1))
    factors = np.clip((np.asarray(shares) - low) / (high - low), 0, 1)
    # Cold places are cooled as well, or they would be close to the peak of the cooled regions.
    by_cell = np.concatenate([[factors.max() / 2], factors]).astype(np.float32)[labelled]
    return heat * by_cell, presence * float(factors.max())


def _square(lab: Float32Array, rgb: tuple[int, int, int]) -> Float32Array:
    focal = _to_lab(np.array(rgb, np.uint8)[None, None])[0, 0]
    difference: Float32Array = (lab - focal).astype(np.float32)
    # Lightness matters less than hue: the same cloth may be in sun and shade.
    return np.asarray((difference**2 * np.array([0.5, 1, 1])).sum(-1), np.float32)


def _to_lab(rgb: NDArray[np.uint8]) -> Float32Array:
    """Convert sRGB (..., 3) to CIELAB under D65 (CIE 15:2004)."""
    values = rgb.astype(np.float32) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375],
         [0.2126729, 0.7151522, 0.0721750],
         [0.0193339, 0.1191920, 0.9503041]]
    )  # fmt: skip
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    lab: Float32Array = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(
        np.float32
    )
    return lab
