"""Results in common formats: for training datasets, annotation tools and image editors.

Every format is written from the same :class:`~promptseg.pipeline.result.Result`, image by image,
and each file is written whole or not at all. Importing this package is cheap: the formats are
imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .base import Exporter

# What `--format` offers, and what each writes.
FORMATS = {
    "coco": "one COCO file for all images, masks as run lengths",
    "coco-polygons": "one COCO file for all images, masks as polygons",
    "yolo": "YOLO segmentation: labels/IMAGE.txt and data.yaml",
    "labelme": "a labelme JSON for each image, masks as polygons",
    "voc": "PASCAL VOC: a PNG of classes and one of objects for each image, and labels.txt",
    "cutout": "a PNG of each object alone, transparent around it",
    "png": "a black and white PNG of each mask",
    "json": "a JSON for each image with every score, masks as COCO run lengths",
}
# Those of TIFFs that say where on Earth they lie; they need the extra `geo`.
GEO_FORMATS = {
    "geotiff": "a GeoTIFF for each raster: a band of masks and one of classes",
    "geojson": "a GeoJSON for each raster, masks as polygons in longitude and latitude",
    "gpkg": "a GeoPackage for each raster, masks as polygons in its own coordinates",
}
# Those with polygons, which can be simplified.
POLYGON_FORMATS = ("labelme", "yolo", "coco-polygons", "geojson", "gpkg")


def exporter_class(name: str) -> type[Exporter]:
    """Return the exporter of a format.

    Raises:
        InputError: There is no such format.
    """
    from ...models.errors import InputError
    from . import geo
    from .coco import CocoExporter, CocoPolygonsExporter
    from .images import CutoutExporter, PngExporter
    from .labelme import LabelmeExporter
    from .record import JsonExporter
    from .voc import VocExporter
    from .yolo import YoloExporter

    classes: dict[str, type[Exporter]] = {
        "coco": CocoExporter,
        "coco-polygons": CocoPolygonsExporter,
        "yolo": YoloExporter,
        "labelme": LabelmeExporter,
        "voc": VocExporter,
        "cutout": CutoutExporter,
        "png": PngExporter,
        "json": JsonExporter,
        "geotiff": geo.GeoTiffExporter,
        "geojson": geo.GeoJsonExporter,
        "gpkg": geo.GeoPackageExporter,
    }
    if name not in classes:
        raise InputError(f"there is no format {name!r}; use one of {', '.join(classes)}")
    return classes[name]
