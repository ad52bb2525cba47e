"""Writes the results of a batch in the formats of others, image by image, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...models.errors import InputError
from ...pipeline.files import staging_folder, write_files
from ...pipeline.raster import require_geo
from ...pipeline.result import Result
from ..exports import FORMATS, GEO_FORMATS, POLYGON_FORMATS, exporter_class
from ..exports.base import Exporter
from ..exports.coco import COCO_FILE
from ..exports.coco_stream import write_coco
from ..exports.geo import Georeference
from ..exports.manifest import Files
from ..image_names import has_ending
from .filesystems import on_disk, read_bytes
from .require import require_ray
from .rows import result_of
from .store import Store
from .work import MAX_PIXELS

# Rows that are read at a time.
_ROWS = 64
_STREAMED = {"coco": False, "coco-polygons": True}

Progress = Callable[[int, int], None]


@dataclass
class Exported:
    """What was written.

    Attributes:
        images: How many.
        failed: How many rows have an error and are left out.
        notes: What the format cannot hold, each once.
    """

    images: int = 0
    failed: int = 0
    notes: list[str] = field(default_factory=list)


def export(
    out: str | Path,
    to: str | Path,
    format: str = "coco",
    *,
    simplify: float = 0.0,
    progress: Progress | None = None,
) -> Exported:
    """Write the results of a batch in another format.

    Args:
        out: The batch's folder or URI.
        to: Folder to write; it appears when it is complete, and must not be there yet, or be
            empty.
        format: A name of ``promptseg.apps.exports.FORMATS``, or of ``GEO_FORMATS`` where all
            images are georeferenced TIFFs.
        simplify: Pixels that polygons may deviate from the masks.
        progress: Called with the number of images done and the total.

    Raises:
        InputError: There is no such format or batch, the folder is not empty, two images would
            get the same file, an image has changed, or it says not where it lies.
        OSError: A file cannot be written.
    """
    require_ray()
    if format not in (*FORMATS, *GEO_FORMATS):
        known = ", ".join((*FORMATS, *GEO_FORMATS))
        raise InputError(f"there is no format {format!r}; use one of {known}")
    if simplify and format not in POLYGON_FORMATS:
        raise InputError(f"{format} has no polygons to simplify; {', '.join(POLYGON_FORMATS)} have")
    if format in GEO_FORMATS:
        require_geo("rasterio", "pyogrio")
    target = Path(to).absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{str(to)!r} is not an empty folder; give another")
    store = Store(out)
    labels = [str(label) for label in store.asked().get("labels", ())]
    told = Exported()
    target.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(target.parent) as staging:
        whole = staging / "whole"
        whole.mkdir()
        rows = _rows(store, told, progress)
        if format in _STREAMED:
            named = ((_name(row), result_of(row)) for row in rows)
            polygons = _STREAMED[format]
            write_coco(whole / COCO_FILE, named, labels, polygons=polygons, simplified=simplify)
        else:
            with exporter_class(format)(whole, labels, files=_NewFiles()) as exporter:
                exporter.simplify = simplify
                notes: dict[str, None] = {}
                for row in rows:
                    notes |= dict.fromkeys(_add(exporter, row))
                told.notes = list(notes)
        if target.is_dir():
            target.rmdir()
        whole.replace(target)
    return told


class _NewFiles(Files):
    """Writes files into a new folder: nothing is replaced, and nothing need be remembered."""

    def write_folder(self, folder: Path, files: Mapping[str, bytes], image: str = "") -> None:
        write_files(folder, files)


def _rows(store: Store, told: Exported, progress: Progress | None) -> Iterator[dict[str, Any]]:
    """Yield the rows without an error, and count."""
    dataset = store.dataset()
    total = dataset.count_rows()
    for batch in dataset.to_batches(batch_size=_ROWS, batch_readahead=1, fragment_readahead=1):
        for row in batch.to_pylist():
            if row["error"] is not None:
                told.failed += 1
                continue
            told.images += 1
            yield row
        if progress is not None:
            progress(told.images + told.failed, total)


def _add(exporter: Exporter, row: dict[str, Any]) -> list[str]:
    name, result = _name(row), result_of(row)
    if exporter.has(name):
        raise InputError(
            f"two images would get the same files in {exporter.name}: {name!r} and one that "
            "differs from it in its ending only; give them other ids in a manifest"
        )
    if exporter.name in GEO_FORMATS:
        with on_disk(row["uri"]) as path:
            exporter.origins = {name: path}
            _check_size(row["uri"], Georeference.read(path, row["uri"]).size, result)
            return exporter.add(name, None, result)
    pixels = np.zeros((0, 0, 3), np.uint8)
    if exporter.reads_pixels:
        from .worker import decode

        pixels = decode(read_bytes(row["uri"]), row["uri"], MAX_PIXELS)
        _check_size(row["uri"], pixels.shape[:2], result)
    return exporter.add(name, pixels, result)


def _check_size(uri: str, size: tuple[int, ...], result: Result) -> None:
    if size != result.image_size:
        raise InputError(f"{uri!r} has changed since it was segmented; segment it again")


def _name(row: dict[str, Any]) -> str:
    """Return the name of an image's files: its id, with the ending of its file."""
    name = str(row["id"])
    if has_ending(PurePosixPath(name).name):
        return name
    suffix = PurePosixPath(row["uri"].partition("?")[0]).suffix
    return f"{name}{suffix}" if has_ending(f"x{suffix}") else name
