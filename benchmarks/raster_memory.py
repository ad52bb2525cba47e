"""Peak memory of `promptseg segment --tiles` on a generated GeoTIFF.

    python benchmarks/raster_memory.py [--side 20000] [--tiles 2048] [--folder FOLDER]

The raster, tiled and compressed, repeats the example pictures of the page in the browser; the
phrase is "cat". Printed are the size of the file, the masks that were found, the seconds, and the
highest resident memory of the command.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window

import promptseg

EXAMPLES = Path(promptseg.__path__[0]).parents[1] / "apps" / "web" / "examples"
CELL = 1000


def make_raster(path: Path, side: int) -> None:
    """Write a raster of side x side pixels with CELL pixels for each picture."""
    pictures = [_fitted(file) for file in sorted(EXAMPLES.glob("*.jpg"))]
    with rasterio.Env(GDAL_CACHEMAX=2**26), rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(500_000, 5_400_000, 0.5, 0.5), tiled=True,
        blockxsize=512, blockysize=512, compress="deflate", predictor=2, photometric="rgb",
        bigtiff="if_safer",
    ) as target:  # fmt: skip
        for row, top in enumerate(range(0, side, CELL)):
            height = min(CELL, side - top)
            order = [pictures[(row + i) % len(pictures)] for i in range(-(-side // CELL))]
            strip = np.concatenate(order, axis=2)[:, :height, :side]
            target.write(strip, window=Window(0, top, side, height))


def main() -> None:
    """Make the raster, segment it in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tiles", default="2048")
    parser.add_argument("--text", default="cat")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        scene = folder / "scene.tif"
        make_raster(scene, arguments.side)
        formats = [part for kind in ("geotiff", "geojson", "gpkg", "json")
                   for part in ("--format", kind)]  # fmt: skip
        started = time.perf_counter()
        subprocess.run(
            [
                sys.executable, "-m", "promptseg", "segment", str(scene), "-t", arguments.text,
                "--tiles", arguments.tiles, *formats, "--out", str(folder / "out"),
            ],
            check=True,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN)
        record = json.loads((folder / "out" / "json" / "scene.json").read_text())
        megabytes = scene.stat().st_size / 1e6
    print(
        f"{arguments.side} x {arguments.side} pixels, {megabytes:.0f} MB on disk, tiles of "
        f"{arguments.tiles}: {len(record['masks'])} masks, {seconds:.0f} s "
        f"({peak.ru_utime + peak.ru_stime:.0f} s of CPU), at most "
        f"{peak.ru_maxrss / 1e6:.2f} GB resident"
    )


def _fitted(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.moveaxis(np.asarray(picture.convert("RGB").resize((CELL, CELL))), 2, 0)


if __name__ == "__main__":
    main()
