"""Annotated pictures in COCO's two layouts: instances and panoptic JSON.

Source: Lin et al. 2014, "Microsoft COCO", and Kirillov et al. 2019, "Panoptic Segmentation"; the
layouts are described at https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from msgspec import UNSET, Raw
from numpy.typing import NDArray
from PIL import Image

from ...models.errors import InputError
from ...models.foreign import decode_json, read_regular
from .coco_entries import (
    CocoCategory,
    CocoFile,
    CocoImage,
    CocoInstance,
    CocoLayout,
    CocoSegmentInfo,
    CocoSegments,
    Key,
)
from .pictures import (
    BoolMask,
    Collection,
    Skipped,
    Target,
    Truth,
    check_masks,
    is_file,
)
from .shapes import Shape, read_shape

_LARGEST_FILE = 2**32
_LARGEST_PNG = 2**28
_LONGEST_SHOWN = 200
# The id of unlabelled pixels in a panoptic PNG.
_UNLABELLED = 0
# Endings of COCO's merged stuff: "wall-other-merged" is a wall.
_MERGED = re.compile(r"(-(other|merged|stuff))+$")

_Entry = TypeVar("_Entry", CocoImage, CocoCategory)


@dataclass(frozen=True)
class Segment:
    """One annotated thing or piece of stuff.

    Attributes:
        label: Class name.
        thing: False for stuff such as sky.
        crowd: Whether it is many objects annotated as one.
        shape: Polygons or run lengths, or the id in the panoptic PNG.
    """

    label: str
    thing: bool
    crowd: bool
    shape: Shape | int


@dataclass(frozen=True, eq=False)
class CocoPicture:
    """A picture of a COCO file; see :class:`~promptseg.apps.evaluation.pictures.Picture`.

    Attributes:
        name: Source and path in the COCO file.
        image_path: The photograph.
        source: Stem of the COCO file.
        size: (H, W) according to the COCO file.
        segments: Everything annotated.
        panoptic_path: PNG of segment ids; None if the segments have their own shapes.
        unreadable: Labels of annotations whose shape cannot be read.
    """

    name: str
    image_path: Path
    source: str
    size: tuple[int, int]
    segments: tuple[Segment, ...]
    panoptic_path: Path | None
    unreadable: frozenset[str] = frozenset()

    @property
    def files(self) -> tuple[Path, ...]:
        """The photograph, and the panoptic PNG if there is one."""
        return (self.image_path, *([] if self.panoptic_path is None else [self.panoptic_path]))

    @property
    def labels(self) -> frozenset[str]:
        """Labels of all segments, crowds and stuff included, and of those that cannot be read."""
        return self.unreadable.union(segment.label for segment in self.segments)

    def load_truth(self) -> Truth:
        """Read the masks. Pixels that only a crowd covers, or that are unlabelled, are void.

        Raises:
            InputError: The PNG cannot be read, or differs from the picture in size; or the masks
                are too many for their size.
        """
        check_masks(self.name, self.size, len(self.segments))
        ids = None
        if self.panoptic_path is not None:
            ids = _read_panoptic_png(self.panoptic_path, self.name, self.size)
        masks = [self._mask(segment.shape, ids) for segment in self.segments]
        void = np.zeros(self.size, np.bool_) if ids is None else ids == _UNLABELLED
        known = np.zeros(self.size, np.bool_)
        objects: list[Target] = []
        classes: dict[str, BoolMask] = {}
        for segment, mask in zip(self.segments, masks, strict=True):
            if segment.crowd:
                void |= mask
                continue
            known |= mask
            objects.append(Target(segment.label, mask, segment.thing))
            if segment.thing:
                before = classes.get(segment.label)
                classes[segment.label] = mask if before is None else before | mask
        return Truth(
            valid=~void | known,
            objects=tuple(objects),
            classes=tuple(Target(label, mask) for label, mask in classes.items()),
        )

    def _mask(self, shape: Shape | int, ids: NDArray[np.uint32] | None) -> BoolMask:
        if not isinstance(shape, int):
            return shape.draw()
        mask: BoolMask = np.asarray(ids == shape)
        return mask


def read_coco(path: Path, images: Path | None = None, panoptic: Path | None = None) -> Collection:
    """Read a COCO instances or panoptic file; no picture is opened yet.

    Wrong entries are skipped; see :class:`~promptseg.apps.evaluation.pictures.Skipped`.

    Args:
        path: The JSON file.
        images: Folder of the photographs; searched for near the file by default.
        panoptic: Folder of the panoptic PNGs; searched for near the file by default.

    Raises:
        InputError: The file is not in COCO's layout, has no entry that can be read, or the folders
            cannot be found.
    """
    if not path.exists():
        raise InputError(
            f"{str(path)!r} does not exist; give a folder with index.jsonl or a COCO JSON file"
        )
    content = read_regular(path, repr(str(path)), limit=_LARGEST_FILE)
    return _Reader(path, decode_json(content, CocoFile, str(path))).read(images, panoptic)


@dataclass
class _Found:
    """What belongs to a picture."""

    size: tuple[int, int]
    segments: list[Segment] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    png: str = ""


class _Reader:
    """Puts a file's entries together.

    Args:
        path: The file, for names and messages.
        file: Its content.
    """

    def __init__(self, path: Path, file: CocoFile) -> None:
        self.path = path
        self.skipped = Skipped()
        self._entries = file.annotations
        self._categories = self._by_id(CocoCategory, file.categories, "category")
        self._images = self._by_id(CocoImage, file.images, "image")
        self._found = {
            key: _Found((int(image.height), int(image.width)))
            for key, image in self._images.items()
        }

    def read(self, images: Path | None, panoptic: Path | None) -> Collection:
        """Return the pictures; the arguments and errors are those of :func:`read_coco`."""
        is_panoptic = _is_panoptic(self._entries)
        self._read_annotations(is_panoptic)
        keys = [key for key, found in self._found.items() if found.png or not is_panoptic]
        if not keys:
            raise InputError(f"{str(self.path)!r} has no pictures")
        first = self._images[keys[0]].file_name
        folder = _find_folder("photographs", "--images", images, self.path, first)
        png_folder = None
        if is_panoptic:
            png = self._found[keys[0]].png
            png_folder = _find_folder("panoptic PNGs", "--panoptic", panoptic, self.path, png)
        # A path is a name unless another entry has it as well.
        uses = Counter(self._images[key].file_name for key in keys)
        pictures = []
        for key in keys:
            found, file_name = self._found[key], self._images[key].file_name
            suffix = f" (id {key})" if uses[file_name] > 1 else ""
            pictures.append(
                CocoPicture(
                    name=f"{self.path.stem}/{_with_slashes(file_name)}{suffix}",
                    image_path=_below(folder, file_name),
                    source=self.path.stem,
                    size=found.size,
                    segments=tuple(found.segments),
                    panoptic_path=None if png_folder is None else _below(png_folder, found.png),
                    unreadable=frozenset(found.unreadable),
                )
            )
        categories = self._categories.values()
        vocabulary = tuple(sorted({_label(entry) for entry in categories if entry.isthing}))
        groups = {_label(e): e.supercategory for e in categories if e.supercategory}
        return Collection(tuple(pictures), {self.path.stem: vocabulary}, groups, self.skipped)

    def _by_id(self, kind: type[_Entry], entries: Sequence[Raw], what: str) -> dict[Key, _Entry]:
        """The entries that can be read, by id."""
        found: dict[Key, _Entry] = {}
        for number, content in enumerate(entries, start=1):
            name = f"{self.path.name}: {what} {number}"
            try:
                entry = decode_json(bytes(content), kind, name)
                if entry.id in found:
                    raise InputError(f"{name}: id: {entry.id!r} is that of an earlier {what}")
                found[entry.id] = entry
            except InputError as error:
                self.skipped.add(error)
        if entries and not found:
            raise InputError(self.skipped.named[-1])
        return found

    def _read_annotations(self, is_panoptic: bool) -> None:
        """Add to each picture what is annotated on it; annotations of no picture do not count."""
        add = self._add_segments if is_panoptic else self._add_instance
        first: InputError | None = None
        read = 0
        for number, content in enumerate(self._entries, start=1):
            try:
                add(bytes(content), f"{self.path.name}: annotation {number}")
                read += 1
            except InputError as error:
                first = first or error
                self.skipped.add(error)
        if first is not None and not read:
            raise first

    def _add_instance(self, content: bytes, name: str) -> None:
        entry = decode_json(content, CocoInstance, name)
        found = self._found.get(entry.image_id)
        if found is None:
            return
        category = self._category(entry.category_id, name)
        label = _label(category)
        try:
            shape = read_shape(bytes(entry.segmentation), found.size, f"{name}: segmentation")
        except InputError:
            found.unreadable.add(label)
            raise
        segment = Segment(label, bool(category.isthing), bool(entry.iscrowd), shape)
        found.segments.append(segment)

    def _add_segments(self, content: bytes, name: str) -> None:
        entry = decode_json(content, CocoSegments, name)
        found = self._found.get(entry.image_id)
        if found is None:
            return
        found.png = entry.file_name
        for number, item in enumerate(entry.segments_info, start=1):
            part = f"{name}: segment {number}"
            try:
                info = decode_json(bytes(item), CocoSegmentInfo, part)
                category = self._category(info.category_id, part)
            except InputError as error:
                self.skipped.add(error)
                continue
            label, thing = _label(category), bool(category.isthing)
            found.segments.append(Segment(label, thing, bool(info.iscrowd), info.id))

    def _category(self, key: Key, name: str) -> CocoCategory:
        if key not in self._categories:
            raise InputError(f"{name}: category_id: there is no category {key!r}")
        return self._categories[key]


def _is_panoptic(annotations: Sequence[Raw]) -> bool:
    """Whether the first annotation that tells has the segments of a picture."""
    for content in annotations:
        try:
            layout = decode_json(bytes(content), CocoLayout, "annotation")
        except InputError:
            continue
        return layout.segments_info is not UNSET
    return False


def _label(category: CocoCategory) -> str:
    return category.name if category.isthing else _MERGED.sub("", category.name)


def _with_slashes(name: str) -> str:
    return name.replace("\\", "/")


def _below(folder: Path, name: str) -> Path:
    """The path of a file, which may have been written with backslashes."""
    if "\\" in name and not is_file(folder / name):
        return folder / _with_slashes(name)
    return folder / name


def _find_folder(what: str, option: str, given: Path | None, path: Path, first: str) -> Path:
    """Return the folder that has the first picture, trying where COCO's files usually are."""
    # annotations/instances_val2017.json, val2017/ beside annotations/ or beside the file, and
    # annotations/panoptic_val2017/ for the PNGs.
    split = path.stem.rpartition("_")[2]
    near = [path.parent, path.parent / path.stem, path.parent / split, path.parent / "images",
            path.parent.parent / split, path.parent.parent / "images"]  # fmt: skip
    folders = near if given is None else [given]
    for folder in folders:
        if is_file(_below(folder, first)):
            return folder
    looked = ", ".join(repr(str(folder)) for folder in dict.fromkeys(folders))
    raise InputError(
        f"the {what} of {str(path)!r} are missing: no {first[:_LONGEST_SHOWN]!r} in {looked}; "
        f"give their folder with {option}"
    )


def _read_panoptic_png(path: Path, name: str, size: tuple[int, int]) -> NDArray[np.uint32]:
    """Return the (H, W) segment ids: red + 256 * green + 256 ** 2 * blue."""
    what = f"the panoptic PNG {str(path)!r}"
    content = read_regular(path, what, limit=_LARGEST_PNG)
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            found = image.height, image.width
            colors = np.asarray(image.convert("RGB")) if found == size else None
    except MemoryError:
        raise
    except Exception as error:  # a decoder may raise anything on damaged data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{what} cannot be read: {reason}") from error
    if colors is None:
        raise InputError(
            f"{name}: {str(path)!r} is {found[0]} x {found[1]} pixels, but the COCO file says "
            f"{size[0]} x {size[1]} (H x W); give the files that belong to it"
        )
    ids: NDArray[np.uint32] = colors[..., 0] + (colors[..., 1].astype(np.uint32) << 8)
    ids += colors[..., 2].astype(np.uint32) << 16
    return ids
