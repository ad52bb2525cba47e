"""The rows of each task, as a file of rows must have them to be gone on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec

from .tasks.base import Row
from .tasks.boxes import BoxTask
from .tasks.everything import EverythingTask
from .tasks.points import PointTask
from .tasks.reference import ReferenceTask
from .tasks.text import PRESENT, TextTask

_Number = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]  # which leaves out NaN
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**32)]


class _Object(msgspec.Struct, forbid_unknown_fields=True):
    label: str
    object: _Count
    area: _Number


class _Box(_Object):
    iou: _Number
    boundary: _Number
    predicted: _Number


class _Clicks(msgspec.Struct, forbid_unknown_fields=True):
    ious: Annotated[list[_Number], msgspec.Meta(min_length=3, max_length=3)]
    predicted: Annotated[list[_Number], msgspec.Meta(min_length=3, max_length=3)]
    boundary: _Number
    pipeline: _Number
    background: _Count
    covered: _Count
    single: _Number
    single_predicted: _Number = msgspec.field(name="single predicted")


class _Points(_Object):
    one: _Clicks = msgspec.field(name="1")
    two: _Clicks = msgspec.field(name="2")
    three: _Clicks = msgspec.field(name="3")
    five: _Clicks = msgspec.field(name="5")


class _Scored(msgspec.Struct, forbid_unknown_fields=True):
    iou: _Number
    score: _Number
    iou_prediction: _Number
    stability: _Number
    prompt: _Number


class _Phrase(msgspec.Struct, forbid_unknown_fields=True):
    label: str
    kind: Literal["present", "random", "sibling"]
    presence: _Number
    found: bool
    masks: list[_Scored]
    found_ungated: bool = msgspec.field(name="found ungated")


class _PresentPhrase(_Phrase):
    area: _Number
    iou: _Number
    boundary: _Number
    pointed: bool
    objects: list[_Number]


class _Pair(msgspec.Struct, forbid_unknown_fields=True):
    label: str
    references: Annotated[list[str], msgspec.Meta(min_length=1)]
    present: bool
    found: bool


class _PresentPair(_Pair):
    area: _Number
    iou: _Number
    boundary: _Number


class _Found(_Object):
    iou: _Number


class _Everything(msgspec.Struct, forbid_unknown_fields=True):
    masks: _Count
    seconds: _Number


def _text_row(row: Mapping[str, Any]) -> type[msgspec.Struct]:
    return _PresentPhrase if row.get("kind") == PRESENT else _Phrase


def _reference_row(row: Mapping[str, Any]) -> type[msgspec.Struct]:
    return _PresentPair if row.get("present") is True else _Pair


def _everything_row(row: Mapping[str, Any]) -> type[msgspec.Struct]:
    return _Found if "label" in row else _Everything


_KINDS: Mapping[str, Callable[[Row], type[msgspec.Struct]]] = MappingProxyType(
    {
        BoxTask.name: lambda row: _Box,
        PointTask.name: lambda row: _Points,
        TextTask.name: _text_row,
        ReferenceTask.name: _reference_row,
        EverythingTask.name: _everything_row,
    }
)


class _Entry(msgspec.Struct):
    name: str
    rows: list[dict[str, Any]]


def read_entry(task: str, entry: object) -> tuple[str, list[Row]]:
    """Return the picture's name and its rows from a line of the file, every field checked.

    Args:
        task: Name of the task.
        entry: The line's JSON.

    Raises:
        ValueError: It is not an entry of this task; the message names the field.
    """
    try:
        found = msgspec.convert(entry, _Entry)
        for row in found.rows:
            msgspec.convert(row, _KINDS[task](row))
    except (msgspec.ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return found.name, found.rows
