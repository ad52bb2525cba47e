"""Masks as pictures: cut-outs with transparency, and black and white."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...models.errors import InputError
from ...pipeline.masks import cut
from ...pipeline.saving import mask_names, mask_picture
from .base import Exporter, stem, to_png

if TYPE_CHECKING:
    from ...pipeline.checks import BoolArray, UInt8Array
    from ...pipeline.compact_mask import CompactMask
    from ...pipeline.masks import Box
    from ...pipeline.result import Result


class _PictureExporter(Exporter):
    """Writes a folder per image with one PNG per mask, best first."""

    in_folder = True

    @classmethod
    def outputs(cls, name: str) -> list[str]:
        return [stem(name)]

    def add(self, name: str, image: UInt8Array | None, result: Result) -> list[str]:
        pictures = [to_png(self._draw(image, mask)) for mask in result.compact_masks]
        files = dict(zip(mask_names(result.labels), pictures, strict=True))
        self.files.write_folder(self._path(name), files, self.source(name))
        return []

    def has(self, name: str) -> bool:
        return self._path(name).is_dir()

    def _path(self, name: str) -> Path:
        return self.folder / self.outputs(name)[0]

    @abstractmethod
    def _draw(self, image: UInt8Array | None, mask: CompactMask) -> Image.Image:
        """Return the picture of a mask."""


class CutoutExporter(_PictureExporter):
    """Writes IMAGE/mask_01_LABEL.png: RGBA of the image's size, transparent outside the mask."""

    name = "cutout"
    reads_pixels = True

    def _draw(self, image: UInt8Array | None, mask: CompactMask) -> Image.Image:
        if image is None:
            raise InputError("a cut-out needs the image's pixels; give another format")
        return cutout(image, mask.box, mask.part())


class PngExporter(_PictureExporter):
    """Writes IMAGE/mask_01_LABEL.png: white inside the mask, black outside."""

    name = "png"

    def _draw(self, image: UInt8Array | None, mask: CompactMask) -> Image.Image:
        return mask_picture(mask)


def cutout(image: UInt8Array, box: Box, part: BoolArray) -> Image.Image:
    """Return an image (H, W, 3) as RGBA, transparent outside a mask that is given within a box."""
    rgba = np.zeros((*image.shape[:2], 4), np.uint8)
    inside = cut(rgba, box)
    inside[..., :3][part] = cut(image, box)[part]
    inside[..., 3][part] = 255
    return Image.fromarray(rgba)
