"""Masks as pictures: cut-outs with transparency, and black and white."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...pipeline.saving import mask_names
from .base import Exporter, stem, to_png

if TYPE_CHECKING:
    from ...pipeline.checks import BoolArray, UInt8Array
    from ...pipeline.result import Result


class _PictureExporter(Exporter):
    """Writes a folder per image with one PNG per mask, best first."""

    in_folder = True

    @classmethod
    def outputs(cls, name: str) -> list[str]:
        return [stem(name)]

    def add(self, name: str, image: UInt8Array, result: Result) -> list[str]:
        pictures = [to_png(self._draw(image, mask)) for mask in result.masks]
        files = dict(zip(mask_names(result.labels), pictures, strict=True))
        self.files.write_folder(self._path(name), files, self.source(name))
        return []

    def has(self, name: str) -> bool:
        return self._path(name).is_dir()

    def _path(self, name: str) -> Path:
        return self.folder / self.outputs(name)[0]

    @abstractmethod
    def _draw(self, image: UInt8Array, mask: BoolArray) -> Image.Image:
        """Return the picture of a mask."""


class CutoutExporter(_PictureExporter):
    """Writes IMAGE/mask_01_LABEL.png: RGBA of the image's size, transparent outside the mask."""

    name = "cutout"

    def _draw(self, image: UInt8Array, mask: BoolArray) -> Image.Image:
        return Image.fromarray(
            np.dstack([image, np.full_like(image[:, :, 0], 255)]) * mask[..., None]
        )


class PngExporter(_PictureExporter):
    """Writes IMAGE/mask_01_LABEL.png: white inside the mask, black outside."""

    name = "png"

    def _draw(self, image: UInt8Array, mask: BoolArray) -> Image.Image:
        return Image.fromarray(mask).convert("L")
