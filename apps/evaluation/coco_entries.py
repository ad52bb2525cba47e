"""The entries of COCO's JSON files, as far as they are read; their fields are checked.

The layouts are described at https://cocodataset.org/#format-data.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .pictures import LARGEST_SIDE

Key: TypeAlias = int | str
_FilePath = Annotated[str, msgspec.Meta(min_length=1, max_length=4000, pattern=r"\A[^\0]+\Z")]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
_Side = Annotated[float, msgspec.Meta(ge=1, le=LARGEST_SIDE, multiple_of=1)]
_SegmentId = Annotated[int, msgspec.Meta(ge=0, lt=256**3)]


# Entries stay undecoded at first, so that a wrong one does not spoil the file.
class CocoFile(msgspec.Struct):
    """A file: its pictures, annotations and categories."""

    images: list[Raw]
    annotations: list[Raw]
    categories: list[Raw]


class CocoImage(msgspec.Struct):
    """A picture."""

    id: Key
    file_name: _FilePath
    height: _Side
    width: _Side


class CocoCategory(msgspec.Struct):
    """A class of things or stuff."""

    id: Key
    name: _Name
    isthing: bool | int = 1
    supercategory: str | None = None


class CocoLayout(msgspec.Struct):
    """Tells the layouts apart: an annotation of the panoptic one has the picture's segments."""

    segments_info: Raw | UnsetType = UNSET


class CocoInstance(msgspec.Struct):
    """An object of the instances layout."""

    image_id: Key
    category_id: Key
    segmentation: Raw = Raw(b"null")
    iscrowd: bool | int = 0


class CocoSegments(msgspec.Struct):
    """A picture's segments, in the panoptic layout."""

    image_id: Key
    file_name: _FilePath
    segments_info: list[Raw]


class CocoSegmentInfo(msgspec.Struct):
    """One segment of the panoptic layout."""

    id: _SegmentId
    category_id: Key
    iscrowd: bool | int = 0
