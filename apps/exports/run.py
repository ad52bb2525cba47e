"""Writes results: in several formats at once for a run, or one result as a file to download."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...models.errors import InputError
from ...pipeline.checks import UInt8Array
from ...pipeline.drawing import draw_overlay
from ...pipeline.masks import cut
from ...pipeline.result import Result
from ...pipeline.saving import slug
from . import FORMATS, GEO_FORMATS, exporter_class
from .base import Exporter
from .geo import has_place
from .images import cutout
from .manifest import MANIFEST_FILE, Manifest

# In the ZIP: what the formats cannot hold of a result.
NOTES_FILE = "notes.txt"


class Exports:
    """The exporters of a run, each writing to a folder named like its format.

    Use it as a context manager: it is closed even if a run fails, and what was added is kept.

    Args:
        formats: Names of FORMATS.
        folder: Gets a folder for each format.
        images: Paths of all images of the run.
        labels: What is looked for; see :class:`~promptseg.apps.exports.base.Exporter`.
        root: Folder of the images; their paths below it become their names. By default the
            closest folder that holds all of them.
        files: The record of what earlier runs wrote into the folder, which may be replaced; by
            default the one that the folder has.
        simplify: Pixels that polygons may deviate from the masks; 0 keeps them exact.

    Raises:
        InputError: There is no such format, an image is not below the root, two images would get
            the same files, or files that are there cannot be added to.
        OSError: A file cannot be read.
    """

    def __init__(
        self,
        formats: Sequence[str],
        folder: Path,
        images: Sequence[str | Path],
        *,
        labels: Sequence[str] = (),
        root: Path | None = None,
        files: Manifest | None = None,
        simplify: float = 0.0,
    ) -> None:
        classes = [exporter_class(name) for name in dict.fromkeys(formats)]
        self._root = _common_folder(images) if root is None else _absolute(root)
        names = [self._name(image) for image in images]
        for kind in classes:
            _check_outputs(kind, names)
        self.folder = folder
        self._own_files = Manifest(folder) if files is None else None
        files = files or self._own_files
        self._exporters: list[Exporter] = [
            kind(folder / kind.name, labels, self._root, files) for kind in classes
        ]
        for exporter in self._exporters:
            exporter.simplify = simplify

    def outputs(self, image: str | Path) -> tuple[list[Path], list[Path]]:
        """Return the files that an image gets, and the folders of further files."""
        name = self._name(image)
        files: list[Path] = []
        folders: list[Path] = []
        for item in self._exporters:
            paths = folders if item.in_folder else files
            paths += [item.folder / path for path in item.outputs(name)]
        return files, folders

    def shared(self) -> list[Path]:
        """Return the files of all images together, which are added to."""
        return [item.folder / path for item in self._exporters for path in item.shared]

    @property
    def needing_pixels(self) -> list[str]:
        """The formats that draw the image itself."""
        return [item.name for item in self._exporters if item.reads_pixels]

    def check(self, image: str | Path) -> None:
        """Refuse an image that one of the formats cannot hold, before it is segmented.

        Raises:
            InputError: It cannot.
        """
        name = self._name(image)
        for item in self._exporters:
            item.check(name)

    def add(self, image: str | Path, pixels: UInt8Array | None, result: Result) -> list[str]:
        """Write the result of an image in all formats.

        Args:
            image: Path of the image.
            pixels: (H, W, 3) uint8 RGB; None for a raster that is not in memory.
            result: What was found in it.

        Returns:
            What the formats cannot hold, one line each.

        Raises:
            OSError: A file cannot be written.
        """
        name = self._name(image)
        return [note for item in self._exporters for note in item.add(name, pixels, result)]

    def has(self, image: str | Path) -> bool:
        """Return whether all formats have an image's result, from this run or an earlier one."""
        name = self._name(image)
        return all(item.has(name) for item in self._exporters)

    def close(self) -> None:
        """Write whatever is still pending."""
        for item in self._exporters:
            item.close()
        if self._own_files is not None:
            self._own_files.close()

    def __enter__(self) -> Exports:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _name(self, image: str | Path) -> str:
        """Return an image's path below the root, with slashes."""
        try:
            return _absolute(image).relative_to(self._root).as_posix()
        except ValueError as error:
            raise InputError(
                f"{str(image)!r} is not below {str(self._root)!r}; give the folder that holds all "
                "images"
            ) from error


def write_cutout(folder: Path, picture: Path, pixels: UInt8Array, result: Result) -> Path:
    """Write the region that all masks cover together as one PNG, transparent around it."""
    covered = np.zeros(result.image_size, np.bool_)
    for mask in result.compact_masks:
        there = cut(covered, mask.box)
        there |= mask.part()
    path = folder / f"{slug(picture.stem)}-cutout.png"
    height, width = result.image_size
    cutout(pixels, (0, 0, width, height), covered).save(path, compress_level=3)
    return path


def write_format(
    name: str, folder: Path, picture: Path, pixels: UInt8Array, result: Result
) -> Path:
    """Write a result as one file: the format's own, or a ZIP if the format has several.

    Args:
        name: One of FORMATS.
        folder: Where to write.
        picture: Path of the image; only its name matters.
        pixels: (H, W, 3) uint8 RGB.
        result: What was found in it.

    Raises:
        InputError: There is no such format.
    """
    inside = folder / name
    with exporter_class(name)(inside) as exporter:
        exporter.add(picture.name, pixels, result)
    written = [path for path in inside.rglob("*") if path.is_file()]
    stem = f"{slug(picture.stem)}-{name}"
    if len(written) == 1:
        return written[0].rename(folder / f"{stem}{written[0].suffix}")
    return _pack(inside, folder / f"{stem}.zip")


def write_zip(folder: Path, picture: Path, pixels: UInt8Array, result: Result) -> Path:
    """Write a ZIP of the image as it was segmented, the overlay, and every format.

    Those of rasters are there if the file says where on Earth it lies.
    """
    stem = slug(picture.stem)
    inside = folder / stem
    inside.mkdir()
    photograph = inside / f"{stem}.png"
    Image.fromarray(pixels).save(photograph, compress_level=1)
    Image.fromarray(draw_overlay(pixels, result)).save(inside / "overlay.png", compress_level=1)
    with Exports(list(FORMATS), inside, [photograph], root=inside) as exports:
        notes = exports.add(photograph, pixels, result)
    for name in GEO_FORMATS if has_place(picture) else ():
        with exporter_class(name)(inside / name) as exporter:
            exporter.origins = {photograph.name: str(picture)}
            notes += exporter.add(photograph.name, None, result)
    if notes:
        (inside / NOTES_FILE).write_text("\n".join(notes) + "\n", encoding="utf-8")
    return _pack(inside, folder / f"{stem}.zip")


def _absolute(path: str | Path) -> Path:
    # Not resolve(): a link to a photograph is an image of that name and place.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _common_folder(images: Sequence[str | Path]) -> Path:
    folders = [_absolute(image).parent for image in images]
    try:
        return Path(os.path.commonpath(folders)) if folders else Path.cwd()
    except ValueError as error:
        raise InputError(
            "images on different drives cannot be exported together; export each drive separately"
        ) from error


def _check_outputs(kind: type[Exporter], names: Sequence[str]) -> None:
    """Refuse images that would overwrite each other's files, as those of one stem do."""
    seen: dict[str, str] = {}
    for name in names:
        for path in kind.outputs(name):
            # Regardless of case, which some file systems ignore.
            other = seen.setdefault(path.casefold(), name)
            if other != name:
                raise InputError(
                    f"{kind.name}: {other!r} and {name!r} would be written to the same files; "
                    "rename one of them or export them to different folders"
                )


def _pack(inside: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(inside.rglob("*")):
            if path.name == MANIFEST_FILE:
                continue
            archive.write(path, path.relative_to(inside.parent))
    return target
