"""YOLO's segmentation labels: one line per mask, with its class and one polygon.

Source: https://docs.ultralytics.com/datasets/segment/.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.errors import InputError
from ...pipeline.files import write_text
from ..wording import count
from .base import Exporter, stem

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.result import Result

DATA_FILE = "data.yaml"
LABELS_FOLDER = "labels"


class YoloExporter(Exporter):
    """Writes labels/IMAGE.txt and data.yaml; the images belong in images/ beside labels/.

    A mask is one polygon. Holes are joined to the outline by a seam, which loses nothing. Parts are
    joined by lines, which readers fill one pixel wide; specks with fewer pixels than their line are
    left out. Scores are not kept. An image in which nothing was found gets an empty file, which
    makes it an example of the background.
    """

    name = "yolo"

    def __init__(
        self, folder: Path, labels: Sequence[str] = (), images: Path | None = None
    ) -> None:
        super().__init__(folder, (), images)
        self._settings = self._read_settings()
        self.labels.numbers_of(self._names())
        self.labels.numbers_of(labels)
        self._written: list[str] = []

    def add(self, name: str, image: UInt8Array, result: Result) -> list[str]:
        from .outlines import joined_polygon

        path = self._path(name)
        numbers = self.labels.numbers_of(result.labels)
        if self._written != self.labels.names or not (self.folder / DATA_FILE).exists():
            self._write_settings()  # first, so that every class in a label file has a name
        height, width = result.image_size
        lines: list[str] = []
        several = added = lost = 0
        for number, mask in zip(numbers, result.masks, strict=True):
            joined = joined_polygon(mask)
            several += joined.parts > 1
            added += joined.added
            lost += joined.lost
            if joined.polygon is not None:
                values = (joined.polygon / (width, height)).ravel().tolist()
                lines.append(" ".join([str(number), *(f"{value:.7f}" for value in values)]))
        write_text(path, "".join(line + "\n" for line in lines))
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
        return self.folder / LABELS_FOLDER / f"{stem(name)}.txt"

    def _read_settings(self) -> dict[str, Any]:
        import yaml

        try:
            settings = yaml.safe_load((self.folder / DATA_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"train": "images", "val": "images"}
        except (yaml.YAMLError, ValueError) as error:
            raise self._refusal(str(error)) from error
        if not isinstance(settings, dict):
            raise self._refusal("it is not a mapping")
        return settings

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
