"""PASCAL VOC's PNGs of classes and objects.

Source: Everingham et al. 2010, "The PASCAL Visual Object Classes Challenge", and the development
kit's colour map.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...models.errors import InputError
from ...models.foreign import read_regular
from ...pipeline.files import write_text
from ...pipeline.masks import cut
from ..wording import count
from .base import Exporter, stem, to_png
from .manifest import Files

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.result import Result

LABELS_FILE = "labels.txt"
CLASS_FOLDER = "SegmentationClass"
OBJECT_FOLDER = "SegmentationObject"
BACKGROUND = "background"
# 255 is void.
_LARGEST = 254
_LARGEST_LABELS = 2**24


class VocExporter(Exporter):
    """Writes SegmentationClass/, SegmentationObject/ and labels.txt.

    In both PNGs 0 is the background. A class is the number of its line in labels.txt, from 0; an
    object is the number of its mask, from 1. Where masks overlap, the better one is on top. Scores
    are not kept. PNGs have VOC's colours; with a number above 254 they have 16 bits and no colours.
    """

    name = "voc"
    shared = (LABELS_FILE,)

    def __init__(
        self,
        folder: Path,
        labels: Sequence[str] = (),
        images: Path | None = None,
        files: Files | None = None,
    ) -> None:
        super().__init__(folder, (), images, files)
        self._written = self._read_names()
        self.labels.numbers_of(self._written or ())
        self.labels.numbers_of(labels)

    @classmethod
    def outputs(cls, name: str) -> list[str]:
        below = f"{stem(name)}.png"
        return [f"{CLASS_FOLDER}/{below}", f"{OBJECT_FOLDER}/{below}"]

    def add(self, name: str, image: UInt8Array | None, result: Result) -> list[str]:
        of_classes, of_objects = (self.folder / path for path in self.outputs(name))
        numbers = self.labels.numbers_of(result.labels)
        if self._written != self.labels.names:
            names = [BACKGROUND, *self.labels.names]
            write_text(self.folder / LABELS_FILE, "".join(f"{name}\n" for name in names))
            self._written = list(self.labels.names)
        objects = np.zeros(result.image_size, np.uint16)
        for i in reversed(range(len(result))):
            mask = result.compact_masks[i]
            cut(objects, mask.box)[mask.part()] = i + 1
        classes = np.array([0, *(number + 1 for number in numbers)], np.uint16)[objects]
        notes: list[str] = []
        self.files.write(of_classes, self._png(classes, "classes", notes), self.source(name))
        # Last, so that where it exists the other one does too.
        self.files.write(of_objects, self._png(objects, "objects", notes), self.source(name))
        visible = np.bincount(objects.ravel(), minlength=len(result) + 1)[1:]
        covered = np.array([mask.area for mask in result.compact_masks], np.int64) - visible
        if covered.any():
            hidden = int((visible == 0).sum())
            notes.append(
                f"{self.name}: {count(int((covered > 0).sum()), 'mask')} partly under a better one"
                + (f", {hidden} wholly" if hidden else "")
            )
        return notes

    def has(self, name: str) -> bool:
        return (self.folder / self.outputs(name)[1]).is_file()

    def _read_names(self) -> list[str] | None:
        path = self.folder / LABELS_FILE
        if not os.path.lexists(path):
            return None
        try:
            content = read_regular(path, "it", limit=_LARGEST_LABELS)
            lines = content.decode("utf-8").split("\n")
        except ValueError as error:
            raise self._refusal(str(error)) from error
        if lines[0].strip() not in ("", BACKGROUND):
            raise self._refusal(f"its first line is not {BACKGROUND!r}")
        names = [line for line in lines[1:] if line]
        if len(set(names)) != len(names):
            raise self._refusal("a class is named twice")
        return names

    def _refusal(self, reason: str) -> InputError:
        return InputError(
            f"no classes can be added to {str(self.folder / LABELS_FILE)!r}: {reason}; "
            "move it away or give another folder"
        )

    def _png(self, numbers: NDArray[np.uint16], what: str, notes: list[str]) -> bytes:
        if numbers.max(initial=0) > _LARGEST:
            notes.append(f"{self.name}: more than {_LARGEST} {what}, in 16 bits without colours")
            return to_png(Image.fromarray(numbers))
        image = Image.fromarray(numbers.astype(np.uint8))
        image.putpalette(palette().tobytes())
        return to_png(image)


def palette() -> UInt8Array:
    """Return VOC's (256, 3) colours: a number's bits go to red, green and blue in turn."""
    numbers = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            if 3 * bit + channel < 8:
                value = (numbers >> (3 * bit + channel) & 1) << (7 - bit)
                colors[:, channel] |= value.astype(np.uint8)
    return colors
