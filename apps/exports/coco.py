"""One COCO instances file for all images.

Source: Lin et al. 2014, "Microsoft COCO"; https://cocodataset.org/#format-data and, for the
scores, #format-results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from ...models.errors import InputError
from ...models.foreign import decode_json, read_regular
from ...pipeline.files import write_text
from ..console import printable
from ..wording import count
from .base import Exporter, class_name, stem
from .coco_layout import describe_annotation, describe_image, is_panoptic
from .manifest import Files

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.result import Result

COCO_FILE = "annotations.json"
# The file is rewritten when this share of its images is new, so that the number of writes of a long
# run is bounded; until then, new images are in a file beside it.
_NEW_SHARE = 1 / 20
_LARGEST = 2**32


class _PendingMask(msgspec.Struct):
    """What is checked of an annotation that is not in the file yet."""

    category: str
    segmentation: dict[str, object] | list[list[float]]
    area: int
    bbox: tuple[float, float, float, float]
    score: float


class _Pending(msgspec.Struct):
    """What is checked of an image that is not in the file yet."""

    file_name: str
    height: int
    width: int
    annotations: list[_PendingMask]


class _Image(msgspec.Struct):
    """What is read of an image in a file that is added to."""

    id: int
    file_name: str
    height: int | None = None
    width: int | None = None


class _Category(msgspec.Struct):
    """What is read of a category in a file that is added to."""

    id: int
    name: str


class _Annotation(msgspec.Struct):
    """What is read of an annotation in a file that is added to."""

    id: int
    image_id: int
    category_id: int | None = None
    segmentation: list[list[float]] | dict[str, object] | None = None
    area: float | None = None
    bbox: list[float] | None = None


class _Document(msgspec.Struct):
    """What is read of a file that is added to; all else in it is kept as it is."""

    images: list[_Image] = []
    categories: list[_Category] = []
    annotations: list[_Annotation] = []


class CocoExporter(Exporter):
    """Writes annotations.json, with masks as compressed run lengths, exact to the pixel.

    Images and categories keep the ids they got first; the annotations of an image that is added
    again take over the ids of those they replace. A COCO file from elsewhere that is already there
    is added to.

    Between two writes of the file, new images are kept in a file of JSON lines beside it; if the
    run is interrupted, the next one reads them from there.
    """

    name = "coco"
    shared = (COCO_FILE,)
    polygons: ClassVar[bool] = False

    def __init__(
        self,
        folder: Path,
        labels: Sequence[str] = (),
        images: Path | None = None,
        files: Files | None = None,
    ) -> None:
        super().__init__(folder, labels, images, files)
        self.path = folder / COCO_FILE
        self._pending_path = self.path.with_name(f".{COCO_FILE}.pending.jsonl")
        self._document = self._read_document()
        self._index()
        for label in labels:
            self._category(class_name(label))
        self._new = 0
        for entry in self._read_pending():
            self._insert(entry)
        # At once, because nothing may be appended to a line that was cut off.
        self.close()

    @classmethod
    def outputs(cls, name: str) -> list[str]:
        return []

    def add(self, name: str, image: UInt8Array | None, result: Result) -> list[str]:
        stem(name)  # for its check
        entry = describe_image(name, result, polygons=self.polygons, simplified=self.simplify)
        empty = sum(mask.area == 0 for mask in result.compact_masks)
        self._insert(entry)
        if self._new >= len(self._images) * _NEW_SHARE:
            self._write()
        else:
            with self._pending_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, allow_nan=False) + "\n")
        if empty and self.polygons:
            return [f"{self.name}: {count(empty, 'empty mask')} written as run lengths"]
        return []

    def has(self, name: str) -> bool:
        return printable(name) in self._images

    def close(self) -> None:
        if self._new:
            self._write()

    def _read_document(self) -> dict[str, Any]:
        if not os.path.lexists(self.path):
            return {"info": {"description": "promptseg"}}
        try:
            content = read_regular(self.path, "it", limit=_LARGEST)
            document: dict[str, Any] = decode_json(content, dict[str, Any], "it")
            entries = document.get("annotations")
            if isinstance(entries, list) and any(map(is_panoptic, entries)):
                raise InputError("its annotations are panoptic segments")
            msgspec.convert(document, _Document)
        except InputError as error:
            raise self._refusal(str(error)) from error
        except (msgspec.ValidationError, RecursionError) as error:
            raise self._refusal(f"it is not of COCO's instances layout ({error})") from error
        return document

    def _index(self) -> None:
        """Index the file's content by name and id."""
        document = self._document
        self._images: dict[str, dict[str, Any]] = {}
        for entry in document.pop("images", []):
            if self._images.setdefault(entry["file_name"], entry) is not entry:
                raise self._refusal(f"two images are named {entry['file_name']!r}")
        self._categories: dict[str, dict[str, Any]] = {}
        self._category_list: list[dict[str, Any]] = document.pop("categories", [])
        for entry in self._category_list:
            self._categories.setdefault(entry["name"], entry)
        self._annotations: dict[object, list[dict[str, Any]]] = {}
        last = 0
        for entry in document.pop("annotations", []):
            self._annotations.setdefault(entry["image_id"], []).append(entry)
            last = max(last, int(entry["id"]))
        self._last_annotation = last
        self._last_image = max((int(entry["id"]) for entry in self._images.values()), default=0)
        self._last_category = max((int(entry["id"]) for entry in self._category_list), default=0)

    def _category(self, name: str) -> int:
        if name not in self._categories:
            self._last_category += 1
            entry = {"id": self._last_category, "name": name, "supercategory": ""}
            self._categories[name] = entry
            self._category_list.append(entry)
        number: int = self._categories[name]["id"]
        return number

    def _insert(self, entry: Mapping[str, Any]) -> None:
        """Put an image and its annotations in place of its earlier ones."""
        name = entry["file_name"]
        known = self._images.get(name)
        if known is None:
            self._last_image += 1
            known = {"id": self._last_image, "file_name": name}
            self._images[name] = known
        known.update(height=entry["height"], width=entry["width"])
        numbers = [item["id"] for item in self._annotations.get(known["id"], [])]
        annotations = []
        for i, item in enumerate(entry["annotations"]):
            if i < len(numbers):
                number = numbers[i]
            else:
                self._last_annotation += 1
                number = self._last_annotation
            category = self._category(item["category"])
            annotations.append(describe_annotation(item, number, known["id"], category))
        self._annotations[known["id"]] = annotations
        self._new += 1

    def _write(self) -> None:
        document = {
            **self._document,
            "images": list(self._images.values()),
            "annotations": [item for items in self._annotations.values() for item in items],
            "categories": self._category_list,
        }
        write_text(self.path, json.dumps(document, allow_nan=False) + "\n")
        self._pending_path.unlink(missing_ok=True)
        self._new = 0

    def _read_pending(self) -> list[dict[str, Any]]:
        if not os.path.lexists(self._pending_path):
            return []
        try:
            content = read_regular(self._pending_path, "it", limit=_LARGEST)
            # Without the last line, which an interruption may have cut off.
            lines = content.decode("utf-8").split("\n")[:-1]
            entries = [json.loads(line) for line in lines]
            msgspec.convert(entries, list[_Pending])
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{str(self._pending_path)!r} is broken ({error}); delete it and segment the "
                "images of the last run again"
            ) from error
        return entries

    def _refusal(self, reason: str) -> InputError:
        return InputError(
            f"nothing can be added to {str(self.path)!r}: {reason}; "
            "move it away or give another folder"
        )


class CocoPolygonsExporter(CocoExporter):
    """Writes annotations.json with masks as polygons, which pycocotools fills to the same pixels.

    Each part of a mask is a polygon; holes are joined to the outline by a seam. An empty mask,
    which has no polygon, is written as run lengths. Readers that include a polygon's boundary
    (supervision) make masks up to a pixel larger.
    """

    name = "coco-polygons"
    polygons = True
