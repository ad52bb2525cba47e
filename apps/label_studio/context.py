"""What a user has just marked in Label Studio: clicks, boxes and a text, as a query."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from ...models.errors import InputError
from ..service.limits import MAX_MARKS, MAX_TEXT, check_text

# What the pipeline calls the mask of a box.
_BOX = re.compile(r"box(?: (\d+))?")


class Value(BaseModel):
    """What is read of a mark: per cent of the image, the labels, or a text."""

    model_config = ConfigDict(allow_inf_nan=False)

    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    rotation: float = 0
    keypointlabels: list[str] = []
    rectanglelabels: list[str] = []
    labels: list[str] = []
    text: list[str] | str = []


class Mark(BaseModel):
    """What is read of a mark's region."""

    type: str
    is_positive: bool | None = True
    value: Value


class Context(BaseModel):
    """What is read of a context."""

    result: list[Mark] = Field(default_factory=list, max_length=MAX_MARKS)


@dataclass
class Marked:
    """Marks in pixels.

    Attributes:
        points: (x, y).
        point_labels: 1 or 0 for each.
        boxes: XYXY.
        texts: Phrases.
        point_names: Labels of the foreground points.
        box_names: The label of each box, "" if it has none.
    """

    points: list[tuple[float, float]] = field(default_factory=list)
    point_labels: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    point_names: list[str] = field(default_factory=list)
    box_names: list[str] = field(default_factory=list)


def read_marks(context: Context, size: tuple[int, int]) -> Marked:
    """Return the marks of a context on an image of ``size`` (H, W).

    Raises:
        InputError: A mark lacks its place, or a rectangle is rotated.
    """
    marked = Marked()
    for mark in context.result:
        value = mark.value
        names = value.keypointlabels or value.rectanglelabels or value.labels
        name = names[0] if names else ""
        if mark.type.startswith("keypoint"):
            marked.points.append(_point(value.x, value.y, size))
            marked.point_labels.append(0 if mark.is_positive is False else 1)
            if mark.is_positive is not False and name:
                marked.point_names.append(name)
        elif mark.type.startswith("rectangle"):
            if value.width is None or value.height is None or value.x is None or value.y is None:
                raise InputError("a rectangle lacks x, y, width or height")
            if value.rotation:
                raise InputError("a rectangle is rotated; draw one along the image's sides")
            corner = _point(value.x, value.y, size)
            opposite = _point(value.x + value.width, value.y + value.height, size)
            marked.boxes.append((*corner, *opposite))
            marked.box_names.append(name)
        elif mark.type == "textarea":
            texts = [value.text] if isinstance(value.text, str) else value.text
            marked.texts += [check_text("the text", text, MAX_TEXT) for text in texts if text]
    return marked


def name_masks(found: Sequence[str], marked: Marked, labels: Sequence[str]) -> list[str]:
    """Return the project's label for each mask of a query by marks.

    Args:
        found: What the pipeline calls the masks: "point", "box", "box 2", or a phrase.
        marked: The marks.
        labels: The project's labels; the first is taken where a mark has none.
    """
    first = next(iter(labels), "object")
    any_name = next(iter(marked.point_names or filter(None, marked.box_names)), first)
    named = []
    for label in found:
        box = None if marked.texts else _BOX.fullmatch(label)
        name = marked.box_names[int(box[1] or 1) - 1] if box else ""
        named.append(name or any_name)
    return named


def _point(x: float | None, y: float | None, size: tuple[int, int]) -> tuple[float, float]:
    """Return a place in pixels, within the image."""
    if x is None or y is None:
        raise InputError("a mark lacks x or y")
    height, width = size
    return min(max(x / 100 * width, 0), width), min(max(y / 100 * height, 0), height)
