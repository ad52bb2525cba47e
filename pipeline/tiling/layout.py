"""Where the tiles of a picture lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TypeAlias

import numpy as np

from ...models.errors import InputError
from ..masks import Box

# Share of a tile's side that neighbours have in common at least, as in SAHI.
OVERLAP = 0.2
# Sides of a tile, in pixels.
LEAST_SIDE = 64
MOST_SIDE = 4096

Tiles: TypeAlias = "str | int | Sequence[int]"


def read_tiles(tiles: Tiles, side: int) -> tuple[int, int]:
    """Return the height and width of a tile.

    Args:
        tiles: "auto", the side of a square, or height and width, in pixels.
        side: What "auto" stands for.

    Raises:
        InputError: They are something else, or too small or too large.
    """
    if isinstance(tiles, str):
        if tiles != "auto":
            raise InputError(f"tiles must be 'auto' or (height, width) in pixels, not {tiles!r}")
        return side, side
    sides: list[object] = list(tiles) if isinstance(tiles, (list, tuple)) else [tiles, tiles]
    whole = [int(v) for v in sides if isinstance(v, (int, np.integer)) and not isinstance(v, bool)]
    if len(sides) != 2 or len(whole) != 2:
        raise InputError(f"tiles must be 'auto' or (height, width) in pixels, not {tiles!r}")
    if not all(LEAST_SIDE <= v <= MOST_SIDE for v in whole):
        raise InputError(
            f"a side of a tile must be from {LEAST_SIDE} to {MOST_SIDE} pixels, not "
            f"{whole[0]} x {whole[1]}"
        )
    return whole[0], whole[1]


def lay_tiles(size: tuple[int, int], tile: tuple[int, int]) -> list[Box]:
    """Return tiles that cover an image, row by row; neighbours share a fifth of a side or more.

    Args:
        size: (H, W) of the image.
        tile: (h, w) of a tile; a side that is longer than the image's is cut to it.
    """
    rows, columns = (_spans(*pair) for pair in zip(size, tile, strict=True))
    return [(x0, y0, x1, y1) for (y0, y1), (x0, x1) in product(rows, columns)]


def window_around(box: Box, size: tuple[int, int], tile: tuple[int, int]) -> Box:
    """Return the window (h, w) in whose middle a box lies, as far as the image (H, W) allows it."""
    x0, x1 = _centred(box[0], box[2], size[1], tile[1])
    y0, y1 = _centred(box[1], box[3], size[0], tile[0])
    return x0, y0, x1, y1


def _centred(start: int, end: int, length: int, side: int) -> tuple[int, int]:
    side = min(side, length)
    first = min(max((start + end - side) // 2, 0), length - side)
    return first, first + side


def _spans(length: int, side: int) -> list[tuple[int, int]]:
    """Return spans of a side that cover a length, evenly, with the overlap between neighbours."""
    side = min(side, length)
    step = max(1, int(side * (1 - OVERLAP)))
    count = 1 + math.ceil((length - side) / step)
    starts = np.round(np.linspace(0, length - side, count)).astype(int).tolist()
    return [(start, start + side) for start in starts]
