"""A COCO instances file written image by image, however many there are, in bounded memory.

:class:`~promptseg.apps.exports.coco.CocoExporter` holds the whole document, so that images can be
added to a file and replaced in it; here each is written once and forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .base import ClassNames, stem
from .coco_layout import describe_annotation, describe_image

if TYPE_CHECKING:
    from ...pipeline.result import Result


def write_coco(
    path: Path,
    results: Iterable[tuple[str, Result]],
    labels: Iterable[str],
    *,
    polygons: bool = False,
    simplified: float = 0.0,
) -> None:
    """Write a COCO file.

    Args:
        path: Of the file; what is made meanwhile lies beside it.
        results: The path of each image below its folder, with what was found in it.
        labels: Categories to number first, from 1.
        polygons: Whether masks are polygons instead of run lengths.
        simplified: Pixels that polygons may deviate from the masks.

    Raises:
        InputError: A name is not a path below a folder.
        OSError: A file cannot be written.
    """
    categories = ClassNames(labels)
    later = path.with_name(f".{path.name}.annotations")
    try:
        with path.open("w", encoding="utf-8") as file, later.open("w+", encoding="utf-8") as rest:
            file.write('{"info": {"description": "promptseg"},\n"images": [')
            number = 0
            for image, (name, result) in enumerate(results, start=1):
                stem(name)  # for its check
                entry = describe_image(name, result, polygons=polygons, simplified=simplified)
                numbers = categories.numbers_of(item["category"] for item in entry["annotations"])
                for item, category in zip(entry.pop("annotations"), numbers, strict=True):
                    number += 1
                    annotation = describe_annotation(item, number, image, category + 1)
                    rest.write(_item(annotation, number))
                file.write(_item({"id": image, **entry}, image))
            file.write('\n],\n"annotations": [')
            rest.seek(0)
            while block := rest.read(1 << 20):
                file.write(block)
            listed = [
                {"id": i, "name": name, "supercategory": ""}
                for i, name in enumerate(categories.names, start=1)
            ]
            file.write(f'\n],\n"categories": {json.dumps(listed)}}}\n')
    finally:
        later.unlink(missing_ok=True)


def _item(entry: object, number: int) -> str:
    """Return an entry of a list, on a line of its own."""
    return ("," if number > 1 else "") + "\n" + json.dumps(entry, allow_nan=False)
