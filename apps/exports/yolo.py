"""YOLO's segmentation labels: one line per mask, with its class and one polygon.

Source: https://docs.ultralytics.com/datasets/segment/.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import InputError
from ...models.foreign import read_regular
from ...pipeline.files import write_text
from ..console import printable
from ..wording import count
from .base import Exporter, stem
from .manifest import Files

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.result import Result

DATA_FILE = "data.yaml"
LABELS_FOLDER = "labels"
IMAGES_FOLDER = "images"
_LARGEST_SETTINGS = 2**24


class YoloExporter(Exporter):
    """Writes labels/IMAGE.txt and data.yaml; the images belong in images/ beside labels/.

    Of images that lie in a folder called images already, readers replace its last mention by
    labels: the labels of train/images/a.jpg are train/labels/a.txt.

    A mask is one polygon. Holes are joined to the outline by a seam, which loses nothing. Parts are
    joined by lines, which readers fill one pixel wide; specks with fewer pixels than their line are
    left out. Scores are not kept. An image in which nothing was found gets an empty file, which
    makes it an example of the background.
    """

    name = "yolo"
    shared = (DATA_FILE,)

    def __init__(
        self,
        folder: Path,
        labels: Sequence[str] = (),
        images: Path | None = None,
        files: Files | None = None,
    ) -> None:
        super().__init__(folder, (), images, files)
        self._settings = self._read_settings()
        self.labels.numbers_of(self._names())
        self.labels.numbers_of(labels)
        self._written: list[str] = []

    @classmethod
    def outputs(cls, name: str) -> list[str]:
        parts = stem(name).split("/")
        last = max((i for i, part in enumerate(parts[:-1]) if part == IMAGES_FOLDER), default=None)
        if last is None:
            return ["/".join([LABELS_FOLDER, *parts]) + ".txt"]
        return ["/".join([*parts[:last], LABELS_FOLDER, *parts[last + 1 :]]) + ".txt"]

    def add(self, name: str, image: UInt8Array | None, result: Result) -> list[str]:
        from .outlines import joined_polygon
        from .simplify import simplify

        path = self._path(name)
        numbers = self.labels.numbers_of(result.labels)
        if self._written != self.labels.names or not (self.folder / DATA_FILE).exists():
            self._write_settings()  # first, so that every class in a label file has a name
        height, width = result.image_size
        lines: list[str] = []
        several = added = lost = 0
        for number, mask in zip(numbers, result.compact_masks, strict=True):
            joined = joined_polygon(mask)
            several += joined.parts > 1
            added += joined.added
            lost += joined.lost
            if joined.polygon is not None:
                polygon = simplify(joined.polygon, self.simplify)
                values = (polygon / (width, height)).ravel().tolist()
                lines.append(" ".join([str(number), *(f"{value:.7f}" for value in values)]))
        content = "".join(line + "\n" for line in lines)
        self.files.write(path, content.encode(), self.source(name))
        notes = []
        if several:
            notes.append(
                f"{self.name}: {count(several, 'mask')} in several parts, joined by lines "
                f"(adds up to {added} pixels) or left out (loses up to {lost})"
            )
        empty = len(result) - len(lines)
        if empty:
            notes.append(f"{self.name}: {count(empty, 'empty mask')} left out")
        return notes

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def _path(self, name: str) -> Path:
        return self.folder / self.outputs(name)[0]

    def _read_settings(self) -> dict[str, Any]:
        import yaml

        path = self.folder / DATA_FILE
        if not os.path.lexists(path):
            where = self._image_folder()
            return {"train": where, "val": where}
        try:
            text = read_regular(path, "it", limit=_LARGEST_SETTINGS).decode("utf-8")
            # A few lines of them can stand for gigabytes.
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
                raise self._refusal("it has aliases (*name), which are not read")
            settings = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise self._refusal(str(error)) from error
        if not isinstance(settings, dict):
            raise self._refusal("it is not a mapping")
        return settings

    def _image_folder(self) -> str:
        """Return where the images lie, relative to data.yaml, as its readers take it."""
        if self.images is None:
            return IMAGES_FOLDER
        folder = self.images.absolute()
        if (folder / IMAGES_FOLDER).is_dir():
            folder /= IMAGES_FOLDER
        try:
            return printable(Path(os.path.relpath(folder, self.folder.absolute())).as_posix())
        except ValueError:  # on another drive of Windows
            return printable(folder.as_posix())

    def _names(self) -> list[str]:
        """Return the names of the classes in data.yaml, where they are a list or a mapping."""
        names = self._settings.get("names", [])
        if isinstance(names, dict) and set(names) == set(range(len(names))):
            names = [names[i] for i in range(len(names))]
        if not isinstance(names, list) or len(set(map(str, names))) != len(names):
            raise self._refusal("its names are not numbered from 0, each once")
        return [str(name) for name in names]

    def _write_settings(self) -> None:
        import yaml

        self._settings["names"] = dict(enumerate(self.labels.names))
        write_text(self.folder / DATA_FILE, yaml.safe_dump(self._settings, sort_keys=False))
        self._written = list(self.labels.names)

    def _refusal(self, reason: str) -> InputError:
        return InputError(
            f"no classes can be added to {str(self.folder / DATA_FILE)!r}: "
            f"{' '.join(reason.split())}; move it away or give another folder"
        )
