"""The JSON files of labelme, one per image.

Source: https://github.com/wkentaro/labelme, the files that its version 5 writes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..console import printable
from ..wording import count
from .base import Exporter, class_name, stem

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.result import Result

LABELME_VERSION = "5.5.0"


class LabelmeExporter(Exporter):
    """Writes IMAGE.json with polygons, which labelme and supervision fill to the same pixels.

    Each part of a mask is a polygon, and the parts of one mask share a group; holes are joined to
    the outline by a seam. The score is in the description.
    """

    name = "labelme"

    @classmethod
    def outputs(cls, name: str) -> list[str]:
        return [f"{stem(name)}.json"]

    def add(self, name: str, image: UInt8Array | None, result: Result) -> list[str]:
        from .outlines import pixel_polygons
        from .simplify import simplify

        path = self._path(name)
        height, width = result.image_size
        shapes: list[dict[str, Any]] = []
        empty = 0
        for i, mask in enumerate(result.compact_masks):
            polygons = [simplify(polygon, self.simplify) for polygon in pixel_polygons(mask)]
            empty += not polygons
            shapes += [
                {
                    "label": class_name(result.labels[i]),
                    "points": polygon.round(2).tolist(),
                    "group_id": i + 1 if len(polygons) > 1 else None,
                    "description": f"score {result.scores[i]:.4f}",
                    "shape_type": "polygon",
                    "flags": {},
                    "mask": None,
                }
                for polygon in polygons
            ]
        document: dict[str, Any] = {
            "version": LABELME_VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": printable(self._image_path(name, path.parent)),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        content = json.dumps(document, indent=2, allow_nan=False) + "\n"
        self.files.write(path, content.encode(), self.source(name))
        return [f"{self.name}: {count(empty, 'empty mask')} left out"] if empty else []

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def _path(self, name: str) -> Path:
        return self.folder / self.outputs(name)[0]

    def _image_path(self, name: str, folder: Path) -> str:
        """Return the image's path relative to the folder of its JSON."""
        if self.images is None:
            return PurePosixPath(name).name
        photograph = self.images.absolute() / name
        try:
            return Path(os.path.relpath(photograph, folder.absolute())).as_posix()
        except ValueError:  # on another drive of Windows
            return photograph.as_posix()
