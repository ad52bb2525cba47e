"""TIFF files read in windows, so that a raster of any size takes little memory; needs rasterio.

Bands become RGB: red, green and blue as the file names them, otherwise its first three, or one band
in grey. 8-bit values are taken as they are. All others are stretched: for each band the second
percentile of the raster becomes 0 and the 98th becomes 255, so that every window is stretched
alike. Pixels without data are black, and said to be so.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models.errors import InputError
from .checks import BoolArray, UInt8Array
from .images import check_file
from .masks import Box
from .pixels import grey_to_rgb

if TYPE_CHECKING:
    from rasterio import DatasetReader

ENDINGS = (".tif", ".tiff")
# Run lengths of masks hold 32 bits.
MOST_PIXELS = 2**32 - 1
MOST_IN_MEMORY = 2**27
# Of GDAL's cache of blocks; its default is a share of the machine's memory.
_CACHE_BYTES = 2**26
# Longer side of the reduced raster whose values set the stretch.
_SAMPLE_SIDE = 1024
# A reduced raster is read in so many strips, so that damage costs one of them.
_STRIPS = 16
_PERCENTILES = (2.0, 98.0)


def is_raster(source: object) -> bool:
    """Return whether a source is the path of a file that can be read in windows."""
    return isinstance(source, (str, os.PathLike)) and str(source).lower().endswith(ENDINGS)


def require_geo(*packages: str) -> None:
    """Refuse to go on without packages of the extra `geo`.

    Raises:
        InputError: One is missing; the message has the command that installs it.
    """
    missing = [name for name in packages or ("rasterio",) if find_spec(name) is None]
    if missing:
        raise InputError(
            f"georeferenced rasters need {' and '.join(missing)}; run: pip install 'promptseg[geo]'"
        )


class Raster:
    """A TIFF file, of which only the windows asked for are read.

    Args:
        path: The file.
        bands: Numbers from 1 of the bands that are shown as red, green and blue, or of one; by
            default those that the file names so, or else the first.

    Attributes:
        path: The file.
        size: (H, W).

    Raises:
        InputError: rasterio is missing, the file is not a TIFF that can be read, it has no such
            bands, or too many pixels.
    """

    def __init__(self, path: str | Path, *, bands: Sequence[int] | None = None) -> None:
        require_geo("rasterio")
        from rasterio.errors import RasterioError

        self.path = Path(path)
        self._name = repr(str(path))
        check_file(self.path, self._name)
        try:
            with self._open() as source:
                self.size = (int(source.height), int(source.width))
                self._bands = _choose_bands(source, bands, self._name)
                self._dtype = np.dtype(source.dtypes[self._bands[0] - 1])
                self._colours = _colours(source, self._bands)
        except (RasterioError, TypeError) as error:
            raise InputError(f"{self._name} is not a TIFF that can be read ({error})") from error
        if self._dtype.kind not in "uif":
            raise InputError(f"{self._name} has values of type {self._dtype}; give real numbers")
        if math.prod(self.size) > MOST_PIXELS:
            raise InputError(
                f"{self._name} has {self.size[1]} x {self.size[0]} pixels; at most "
                f"{MOST_PIXELS / 1e9:.1f} billion fit into a mask: cut it into parts"
            )

    def read(self, box: Box) -> tuple[UInt8Array, BoolArray | None]:
        """Read a window.

        Args:
            box: Where, within the raster.

        Returns:
            (h, w, 3) uint8 RGB, and (h, w) which of it has data; None if all has.

        Raises:
            InputError: It cannot be read.
        """
        return self._shown(*self._values(box, (box[3] - box[1], box[2] - box[0])))

    def overview(self, side: int) -> tuple[UInt8Array, BoolArray | None]:
        """Read the whole raster, its longer side reduced to at most so many pixels.

        What cannot be read of it has no data.
        """
        return self._shown(*self._reduced(side))

    def check_in_memory(self, use: str) -> None:
        """Refuse a raster of which not all pixels should be in memory at once.

        Args:
            use: What needs them, for the message.

        Raises:
            InputError: It has too many.
        """
        if math.prod(self.size) > MOST_IN_MEMORY:
            raise InputError(
                f"{self._name} has {self.size[1]} x {self.size[0]} pixels, too many for {use}; "
                "give --format geotiff, geojson, gpkg, coco or json"
            )

    def pixels(self) -> UInt8Array:
        """Read all of it: (H, W, 3) uint8 RGB."""
        return self.read((0, 0, self.size[1], self.size[0]))[0]

    def _open(self) -> DatasetReader:
        import rasterio

        with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            # Only TIFF: other drivers follow what a file says to other files and addresses.
            return rasterio.open(self.path, driver="GTiff")

    def _shown(self, values: NDArray[Any], valid: BoolArray) -> tuple[UInt8Array, BoolArray | None]:
        """Return bands (B, h, w) as RGB, black where they are not valid."""
        if self._colours is not None:
            pixels = self._colours[values[0]]
        else:
            if self._dtype != np.uint8:
                values = self._stretched(values, valid)
            pixels = grey_to_rgb(values[0]) if len(values) == 1 else np.moveaxis(values, 0, 2)
        pixels = np.ascontiguousarray(pixels)
        if valid.all():
            return pixels, None
        pixels[~valid] = 0
        return pixels, valid

    def _reduced(self, side: int) -> tuple[NDArray[Any], BoolArray]:
        """Return the bands of the whole raster, reduced, and where they have data."""
        share = min(1.0, side / max(self.size))
        height, width = (max(1, round(length * share)) for length in self.size)
        values = np.zeros((len(self._bands), height, width), self._dtype)
        valid = np.zeros((height, width), np.bool_)
        step = -(-height // _STRIPS)
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            first, last = (row * self.size[0] / height for row in (rows.start, rows.stop))
            try:
                part = self._values((0, first, self.size[1], last), (rows.stop - top, width))
            except InputError:  # told of the tiles that lie there
                continue
            values[:, rows], valid[rows] = part
        return values, valid

    def _values(
        self, box: tuple[float, float, float, float], size: tuple[int, int]
    ) -> tuple[NDArray[Any], BoolArray]:
        """Return the bands (B, h, w) of a window at a size, and where they have data."""
        import rasterio
        from rasterio.enums import Resampling
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        x0, y0, x1, y1 = box
        window = Window(x0, y0, x1 - x0, y1 - y0)
        shape = (len(self._bands), *size)
        smooth = Resampling.nearest if self._colours is not None else Resampling.average
        try:
            with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES), self._open() as source:
                values = source.read(self._bands, window=window, out_shape=shape, resampling=smooth)
                masks = source.read_masks(self._bands, window=window, out_shape=shape)
        except RasterioError as error:
            raise InputError(
                f"{self._name} cannot be read at {x0},{y0} to {x1},{y1} "
                f"({error.__cause__ or error})"
            ) from error
        valid: BoolArray = masks.any(0)
        if self._dtype.kind == "f":
            valid &= np.isfinite(values).all(0)
        return values, valid

    @cached_property
    def _range(self) -> NDArray[np.float64]:
        """The values (B, 2) that become 0 and 255."""
        values, valid = self._reduced(_SAMPLE_SIDE)
        if not valid.any():
            return np.tile([0.0, 1.0], (len(values), 1))
        found: NDArray[np.float64] = np.percentile(
            values[:, valid].astype(np.float64), _PERCENTILES, axis=1
        ).T
        return found

    def _stretched(self, values: NDArray[Any], valid: BoolArray) -> UInt8Array:
        low, high = (self._range[:, i, None, None].astype(np.float32) for i in (0, 1))
        span = np.where(high > low, high - low, 1)
        share = (np.where(valid, values, 0).astype(np.float32) - low) / span
        stretched: UInt8Array = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
        return stretched


def _choose_bands(source: DatasetReader, bands: Sequence[int] | None, name: str) -> list[int]:
    from rasterio.enums import ColorInterp

    count = int(source.count)
    if bands is not None:
        chosen = [int(band) for band in bands]
        if len(chosen) not in (1, 3) or not all(1 <= band <= count for band in chosen):
            raise InputError(
                f"bands must be one or three numbers from 1 to {count} for {name}, not {chosen}"
            )
        return chosen
    named = list(source.colorinterp)
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in named for colour in wanted):
        return [named.index(colour) + 1 for colour in wanted]
    return [1, 2, 3] if count >= 3 and ColorInterp.alpha not in named[:3] else [1]


def _colours(source: DatasetReader, bands: Sequence[int]) -> UInt8Array | None:
    """Return the palette (256, 3) of a file that has one."""
    from rasterio.enums import ColorInterp

    if len(bands) != 1 or source.colorinterp[bands[0] - 1] != ColorInterp.palette:
        return None
    palette = np.zeros((256, 3), np.uint8)
    for number, colour in source.colormap(bands[0]).items():
        palette[number] = colour[:3]
    return palette
