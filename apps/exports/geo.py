"""Masks of georeferenced rasters: GeoTIFF, GeoJSON and GeoPackage.

Sources: the OGC GeoTIFF and GeoPackage standards, and RFC 7946 for GeoJSON, whose coordinates are
longitude and latitude of WGS 84. rasterio and pyogrio, both on GDAL, write the files.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import shapely
from numpy.typing import NDArray

from ...models.errors import InputError
from ...pipeline.raster import is_raster, require_geo
from ..console import printable
from ..wording import count
from .base import Exporter, class_name, stem

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.compact_mask import CompactMask
    from ...pipeline.result import Result

_BLOCK = 512  # of the GeoTIFFs, in pixels
# A mask is outlined in strips of so many pixels.
_STRIP_PIXELS = 2**25
LAYER = "masks"


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of a raster lie.

    Attributes:
        crs: Its coordinate reference system, a `rasterio.crs.CRS`.
        transform: From columns and rows to its coordinates, an `affine.Affine`.
        size: (H, W) of the raster.
    """

    crs: Any
    transform: Any
    size: tuple[int, int]

    @classmethod
    def read(cls, path: str, called: str = "") -> Georeference:
        """Read it from a TIFF.

        Args:
            path: Its path.
            called: What errors call it; by default its path.

        Raises:
            InputError: The file is none, or has no coordinate reference system.
        """
        name = repr(called or path)
        if not is_raster(path) or not Path(path).is_file():
            raise InputError(
                f"{name} is not a TIFF, so it cannot say where its pixels lie; use --format coco, "
                "labelme or json"
            )
        import rasterio
        from rasterio.errors import RasterioError

        try:
            with rasterio.open(path, driver="GTiff") as source:
                found = cls(source.crs, source.transform, (source.height, source.width))
        except RasterioError as error:
            raise InputError(f"{name} is not a TIFF that can be read ({error})") from error
        if found.crs is None:
            raise InputError(
                f"{name} has no coordinate reference system; assign one (gdal_edit -a_srs), or use "
                "--format coco, labelme or json"
            )
        return found

    def at(self, size: tuple[int, int]) -> Georeference:
        """Return where the pixels lie of the raster scaled to another size (H, W)."""
        from rasterio import Affine

        scale = Affine.scale(self.size[1] / size[1], self.size[0] / size[0])
        return Georeference(self.crs, self.transform * scale, size)

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the coordinates (n, 2) of points (n, 2) in pixels."""
        a, b, c, d, e, f = self.transform[:6]
        placed: NDArray[np.float64] = points @ np.array([[a, d], [b, e]]) + np.array([c, f])
        return placed


def has_place(path: Path) -> bool:
    """Return whether an image says where on Earth it lies, and what writes that is installed."""
    try:
        require_geo("rasterio", "pyogrio")
        Georeference.read(str(path))
    except InputError:
        return False
    return True


class _GeoExporter(Exporter):
    """Writes one file for each image, with its georeference."""

    ending: ClassVar[str]

    @classmethod
    def outputs(cls, name: str) -> list[str]:
        return [f"{stem(name)}.{cls.ending}"]

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def check(self, name: str) -> None:
        require_geo("rasterio", "pyogrio")
        Georeference.read(self.source(name))

    def _path(self, name: str) -> Path:
        return self.folder / self.outputs(name)[0]

    def _place(self, name: str, result: Result) -> Georeference:
        """Return where the pixels of a result lie, which may be of a reduced raster."""
        return Georeference.read(self.source(name)).at(result.image_size)


class GeoTiffExporter(_GeoExporter):
    """Writes IMAGE.tif: a band of the masks' numbers, from 1, best first, and one of classes.

    0 means neither. The names of the classes are tags of the file, and so is the score of each
    mask. Size, coordinate reference system and transform are the source's.
    """

    name = "geotiff"
    ending = "tif"

    def add(self, name: str, image: UInt8Array | None, result: Result) -> list[str]:
        place = self._place(name, result)
        numbers = self.labels.numbers_of(result.labels)
        largest = max(len(result), *(number + 1 for number in numbers), 0)
        dtype = np.uint16 if largest < 2**16 else np.uint32
        tags = {f"CLASS_{number + 1}": self.labels.names[number] for number in sorted(set(numbers))}
        tags |= {f"SCORE_{i}": f"{score:.4f}" for i, score in enumerate(result.scores, 1)}
        content, hidden = _write_bands(
            result, [number + 1 for number in numbers], dtype, place, {"SOURCE": name, **tags}
        )
        self.files.write(self._path(name), content, self.source(name))
        covered = f"{self.name}: {count(hidden, 'pixel')} of masks under a better one"
        return [covered] if hidden else []


class _VectorExporter(_GeoExporter):
    """Writes a feature for each mask: a multipolygon along its pixels, its phrase and scores."""

    driver: ClassVar[str]
    options: ClassVar[dict[str, str]] = {}

    def add(self, name: str, image: UInt8Array | None, result: Result) -> list[str]:
        from pyogrio import raw

        place = self._place(name, result)
        kept = [i for i, mask in enumerate(result.compact_masks) if mask.area]
        shapes = [outline(result.compact_masks[i], self.simplify) for i in kept]
        located = [shapely.transform(shape, place.place) for shape in shapes]
        columns: dict[str, NDArray[Any]] = {
            "number": np.array(kept, np.int32) + 1,
            "phrase": np.array([class_name(result.labels[i]) for i in kept], object),
            "score": result.scores[kept].astype(np.float64).round(6),
            "iou_prediction": result.iou_predictions[kept].astype(np.float64).round(6),
            "stability": result.stability_scores[kept].astype(np.float64).round(6),
            "prompt_score": result.prompt_scores[kept].astype(np.float64).round(6),
            "pixels": np.array([result.compact_masks[i].area for i in kept], np.int64),
            "source": np.array([printable(name)] * len(kept), object),
        }
        content = io.BytesIO()
        raw.write(
            content,
            np.array([shapely.to_wkb(shape) for shape in located], object),
            list(columns.values()),
            list(columns),
            geometry_type="MultiPolygon",
            crs=place.crs.to_wkt(),
            driver=self.driver,
            layer=LAYER,
            layer_options=self.options,
        )
        self.files.write(self._path(name), content.getvalue(), self.source(name))
        empty = len(result) - len(kept)
        return [f"{self.name}: {count(empty, 'empty mask')} left out"] if empty else []


class GeoJsonExporter(_VectorExporter):
    """Writes IMAGE.geojson, in longitude and latitude of WGS 84."""

    name = "geojson"
    ending = "geojson"
    driver = "GeoJSON"
    options: ClassVar[dict[str, str]] = {"RFC7946": "YES"}


class GeoPackageExporter(_VectorExporter):
    """Writes IMAGE.gpkg, in the source's coordinate reference system."""

    name = "gpkg"
    ending = "gpkg"
    driver = "GPKG"


def outline(mask: CompactMask, tolerance: float = 0.0) -> shapely.MultiPolygon:
    """Return the outline of a mask along its pixels, holes included.

    Args:
        mask: The mask.
        tolerance: Pixels that the outline may deviate; 0 keeps it exact.

    Returns:
        A valid multipolygon in pixels of the image, (x, y).
    """
    from rasterio.features import shapes

    x0, y0, x1, y1 = mask.box
    step = max(1, _STRIP_PIXELS // max(1, x1 - x0))
    found: list[shapely.Polygon] = []
    for top in range(y0, y1, step):
        part = mask.window((x0, top, x1, min(top + step, y1)))
        for shape, _ in shapes(part.view(np.uint8), mask=part, connectivity=4):
            rings = [np.add(ring, (x0, top)) for ring in shape["coordinates"]]
            found.append(shapely.Polygon(rings[0], rings[1:]))
    whole = shapely.MultiPolygon(found)
    if y1 - y0 > step:
        # Strips leave points along their seams.
        whole = shapely.union_all(found).simplify(0)
    if tolerance > 0:
        whole = whole.simplify(tolerance)
    return whole if whole.geom_type == "MultiPolygon" else shapely.MultiPolygon([whole])


def _write_bands(
    result: Result, classes: list[int], dtype: type[Any], place: Georeference, tags: dict[str, str]
) -> tuple[bytes, int]:
    """Return the content of a GeoTIFF, and how many pixels of masks lie under a better mask."""
    import rasterio
    from rasterio.io import MemoryFile

    height, width = result.image_size
    hidden = 0
    with rasterio.Env(GDAL_CACHEMAX=2**26), MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=width, height=height, count=2, dtype=dtype, nodata=0,
            crs=place.crs, transform=place.transform, compress="deflate", tiled=True,
            blockxsize=_BLOCK, blockysize=_BLOCK, interleave="band", sparse_ok=True,
            bigtiff="if_safer",
        ) as target:  # fmt: skip
            target.update_tags(**tags)
            target.set_band_description(1, "mask")
            target.set_band_description(2, "class")
            for window, numbers, covered in _strips(result, np.dtype(dtype)):
                hidden += covered
                target.write(numbers, 1, window=window)
                target.write(np.array([0, *classes], dtype)[numbers], 2, window=window)
        return memory.read(), hidden


def _strips(result: Result, dtype: np.dtype[Any]) -> Iterator[tuple[Any, NDArray[Any], int]]:
    """Yield windows as high as a block with the numbers of the masks there, and what is hidden."""
    from rasterio.windows import Window

    height, width = result.image_size
    for row in range(math.ceil(height / _BLOCK)):
        y0, y1 = row * _BLOCK, min((row + 1) * _BLOCK, height)
        numbers = np.zeros((y1 - y0, width), dtype)
        hidden = 0
        for i, mask in reversed(list(enumerate(result.compact_masks, 1))):
            left, top, right, bottom = mask.box
            top, bottom = max(top, y0), min(bottom, y1)
            if top >= bottom:
                continue
            part = mask.window((left, top, right, bottom))
            below = numbers[top - y0 : bottom - y0, left:right]
            hidden += int(np.count_nonzero(below[part]))
            below[part] = i
        if numbers.any():
            yield Window(0, y0, width, y1 - y0), numbers, hidden
