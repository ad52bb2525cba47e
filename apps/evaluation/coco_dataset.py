"""Annotated pictures in COCO's two layouts: instances and panoptic JSON.

Source: Lin et al. 2014, "Microsoft COCO", and Kirillov et al. 2019, "Panoptic Segmentation"; the
layouts are described at https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...models.errors import InputError
from ..exports.coco_layout import decode_segmentation, is_panoptic
from .pictures import BoolMask, Collection, Target, Truth

# The id of unlabelled pixels in a panoptic PNG.
_UNLABELLED = 0
# Endings of COCO's merged stuff: "wall-other-merged" is a wall.
_MERGED = re.compile(r"(-(other|merged|stuff))+$")


@dataclass(frozen=True)
class Segment:
    """One annotated thing or piece of stuff.

    Attributes:
        label: Class name.
        thing: False for stuff such as sky.
        crowd: Whether it is many objects annotated as one.
        shape: COCO's polygons or run lengths, or the id in the panoptic PNG.
    """

    label: str
    thing: bool
    crowd: bool
    shape: object


@dataclass(frozen=True, eq=False)
class CocoPicture:
    """A picture of a COCO file; see :class:`~promptseg.apps.evaluation.pictures.Picture`.

    Attributes:
        image_path: The photograph.
        source: Stem of the COCO file.
        size: (H, W) according to the COCO file.
        segments: Everything annotated.
        panoptic_path: PNG of segment ids; None if the segments have their own shapes.
    """

    image_path: Path
    source: str
    size: tuple[int, int]
    segments: tuple[Segment, ...]
    panoptic_path: Path | None

    @property
    def name(self) -> str:
        """Source and file name."""
        return f"{self.source}/{self.image_path.name}"

    @property
    def files(self) -> tuple[Path, ...]:
        """The photograph, and the panoptic PNG if there is one."""
        return (self.image_path, *([] if self.panoptic_path is None else [self.panoptic_path]))

    @property
    def labels(self) -> frozenset[str]:
        """Labels of all segments, crowds and stuff included."""
        return frozenset(segment.label for segment in self.segments)

    def load_truth(self) -> Truth:
        """Read the masks. Pixels that only a crowd covers, or that are unlabelled, are void.

        Raises:
            InputError: A shape or the PNG cannot be read, or differs from the picture in size.
        """
        ids = None if self.panoptic_path is None else _read_panoptic_png(self.panoptic_path)
        if ids is not None and ids.shape != self.size:
            raise self._size_error(str(self.panoptic_path), ids.shape)
        masks = [self._mask(segment, ids) for segment in self.segments]
        void = np.zeros(self.size, np.bool_) if ids is None else ids == _UNLABELLED
        known = np.zeros(self.size, np.bool_)
        objects: list[Target] = []
        classes: dict[str, BoolMask] = {}
        for segment, mask in zip(self.segments, masks, strict=True):
            if segment.crowd:
                void |= mask
                continue
            known |= mask
            objects.append(Target(segment.label, mask))
            if segment.thing:
                before = classes.get(segment.label)
                classes[segment.label] = mask if before is None else before | mask
        return Truth(
            valid=~void | known,
            objects=tuple(objects),
            classes=tuple(Target(label, mask) for label, mask in classes.items()),
        )

    def _mask(self, segment: Segment, ids: NDArray[np.int64] | None) -> BoolMask:
        if ids is not None:
            mask: BoolMask = ids == segment.shape
            return mask
        try:
            return decode_segmentation(segment.shape, self.size)
        except InputError as error:
            raise InputError(f"{self.name}, {segment.label!r}: {error}") from error

    def _size_error(self, what: str, found: Sequence[int]) -> InputError:
        return InputError(
            f"{self.name}: {what!r} is {found[0]} x {found[1]} pixels, but the COCO file says "
            f"{self.size[0]} x {self.size[1]} (H x W); give the files that belong to it"
        )


def read_coco(path: Path, images: Path | None = None, panoptic: Path | None = None) -> Collection:
    """Read a COCO instances or panoptic file; no picture is opened yet.

    Args:
        path: The JSON file.
        images: Folder of the photographs; searched for near the file by default.
        panoptic: Folder of the panoptic PNGs; searched for near the file by default.

    Raises:
        InputError: The file is not in COCO's layout, or the folders cannot be found.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{str(path)!r} does not exist; give a folder with index.jsonl or a COCO JSON file"
        ) from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not JSON: {error}") from error
    try:
        return _read_content(content, path, images, panoptic)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{str(path)!r} is not in COCO's instances or panoptic layout: {error!r}"
        ) from error


def _read_content(
    content: Mapping[str, Any], path: Path, images: Path | None, panoptic: Path | None
) -> Collection:
    categories = {entry["id"]: entry for entry in content["categories"]}
    things = {key: bool(entry.get("isthing", 1)) for key, entry in categories.items()}
    labels = {key: _label(entry["name"], things[key]) for key, entry in categories.items()}
    by_image: dict[object, list[Segment]] = defaultdict(list)
    png_names: dict[object, str] = {}
    for annotation in content["annotations"]:
        key = annotation["image_id"]
        panoptic_entry = is_panoptic(annotation)
        for entry in annotation["segments_info"] if panoptic_entry else [annotation]:
            category = entry["category_id"]
            shape = entry["id"] if panoptic_entry else entry["segmentation"]
            crowd = bool(entry.get("iscrowd", 0))
            by_image[key].append(Segment(labels[category], things[category], crowd, shape))
        if panoptic_entry:
            png_names[key] = annotation["file_name"]
    entries = content["images"] if not png_names else [
        entry for entry in content["images"] if entry["id"] in png_names
    ]  # fmt: skip
    if not entries:
        raise InputError(f"{str(path)!r} has no pictures")
    folder = _find_folder("photographs", "--images", images, path, entries[0]["file_name"])
    png_folder = None
    if png_names:
        first = png_names[entries[0]["id"]]
        png_folder = _find_folder("panoptic PNGs", "--panoptic", panoptic, path, first)
    pictures = tuple(
        CocoPicture(
            image_path=folder / entry["file_name"],
            source=path.stem,
            size=(int(entry["height"]), int(entry["width"])),
            segments=tuple(by_image[entry["id"]]),
            panoptic_path=None if png_folder is None else png_folder / png_names[entry["id"]],
        )
        for entry in entries
    )
    vocabulary = tuple(sorted({labels[key] for key in categories if things[key]}))
    groups = {
        labels[key]: entry["supercategory"]
        for key, entry in categories.items()
        if entry.get("supercategory")
    }
    return Collection(pictures, {path.stem: vocabulary}, groups)


def _label(name: str, thing: bool) -> str:
    return name if thing else _MERGED.sub("", name)


def _find_folder(what: str, option: str, given: Path | None, path: Path, first: str) -> Path:
    """Return the folder that has the first picture, trying where COCO's files usually are."""
    # annotations/instances_val2017.json, val2017/ beside annotations/ or beside the file, and
    # annotations/panoptic_val2017/ for the PNGs.
    split = path.stem.rpartition("_")[2]
    near = [path.parent, path.parent / path.stem, path.parent / split, path.parent / "images",
            path.parent.parent / split, path.parent.parent / "images"]  # fmt: skip
    folders = near if given is None else [given]
    for folder in folders:
        if (folder / first).is_file():
            return folder
    looked = ", ".join(repr(str(folder)) for folder in dict.fromkeys(folders))
    raise InputError(
        f"the {what} of {str(path)!r} are missing: no {first!r} in {looked}; "
        f"give their folder with {option}"
    )


def _read_panoptic_png(path: Path) -> NDArray[np.int64]:
    """Return the (H, W) segment ids: red + 256 * green + 256 ** 2 * blue."""
    try:
        with Image.open(path) as image:
            colors = np.asarray(image.convert("RGB"), dtype=np.int64)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"the panoptic PNG {str(path)!r} cannot be read: {error}") from error
    ids: NDArray[np.int64] = colors @ np.array([1, 256, 256**2])
    return ids
