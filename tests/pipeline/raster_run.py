"""A process of its own: its peak memory before and after a raster was looked at in tiles.

    python raster_run.py RASTER

prints the number of red things, their pixels, and the two peaks in bytes.
"""

from __future__ import annotations

import sys

import numpy as np
from peak_memory import peak_memory
from scipy import ndimage

from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.raster import Raster
from promptseg.pipeline.tiling.run import TilingConfig, find_in_tiles


def red(pixels: np.ndarray, stricter: float) -> Proposals:
    labels, count = ndimage.label((pixels[..., 0] > 190) & (pixels[..., 1] < 64))
    masks = np.array([labels == i + 1 for i in range(count)]).reshape(-1, *pixels.shape[:2])
    return Proposals.of(masks, ["red"] * count, np.ones(count), np.ones(count), np.ones(count))


def peak() -> int:
    return peak_memory()


def main() -> None:
    picture = Raster(sys.argv[1])
    picture.read((0, 0, 64, 64))
    before = peak()
    found = find_in_tiles(picture, red, (512, 512), config=TilingConfig())
    area = sum(mask.area for mask in found.masks)
    sys.stdout.write(f"{len(found)} {area} {before} {peak()}\n")


if __name__ == "__main__":
    main()
