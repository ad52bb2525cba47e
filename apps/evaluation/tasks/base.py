"""The base class of the tasks, and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ....models.errors import InputError
from ....pipeline.checks import UInt8Array
from ....pipeline.images import load_image
from ....pipeline.pipeline import Pipeline
from ..pictures import BoolMask, Collection, Picture, Truth

# Of a picture or an object, JSON-able.
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Settings of a measurement.

    Attributes:
        pairs: At most this many pairs of pictures per class, in the task "reference"; None for
            all.
        shots: Examples per pair, in that task.
    """

    pairs: int | None = None
    shots: int = 1


@dataclass(frozen=True, eq=False)
class Shown:
    """A prediction to look at.

    Attributes:
        caption: One line.
        image: (H, W, 3) uint8 RGB.
        prediction: (H, W) bool.
        target: (H, W) bool, or None where nothing should have been found.
        box: The box of the query, XYXY, or None.
        clicks: The clicks of the query, (x, y, label).
        example: Picture (h, w, 3) and mask (h, w) of the query's example, or None.
    """

    caption: str
    image: UInt8Array
    prediction: BoolMask
    target: BoolMask | None
    box: tuple[float, float, float, float] | None = None
    clicks: tuple[tuple[float, float, int], ...] = ()
    example: tuple[UInt8Array, BoolMask] | None = None


class Task(ABC):
    """Something that can be measured, one picture at a time.

    Args:
        pipe: What is measured.
        collection: The pictures, and what can be asked for.
        settings: Settings of the task.
    """

    name: ClassVar[str]

    def __init__(self, pipe: Pipeline, collection: Collection, settings: Settings) -> None:
        self.pipe = pipe
        self.collection = collection
        self.settings = settings

    @abstractmethod
    def measure(self, picture: Picture) -> list[Row]:
        """Rows of a picture; those with a "label" also count for their class.

        Raises:
            InputError: The picture or its masks cannot be read, or do not fit together.
        """

    @abstractmethod
    def figures(self, rows: Sequence[Row]) -> dict[str, float]:
        """Figures of all rows or of one source's, leaving out those that no row bears on."""

    def class_figures(self, rows: Sequence[Row]) -> dict[str, float]:
        """Figures of the rows of one class."""
        return self.figures(rows)

    def scored(self, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """Score and IoU of each mask that has both; none for a task without scores."""
        return []

    def depends_on(self) -> dict[str, str]:
        """What a picture's rows depend on besides the picture."""
        return {}

    @abstractmethod
    def worst(self, rows: Sequence[Row], count: int) -> list[Row]:
        """At most ``count`` rows that went wrong, worst first."""

    @abstractmethod
    def show(self, picture: Picture, rows: Sequence[Row]) -> list[Shown]:
        """Predict again for some rows of a picture, to show them."""


def open_picture(picture: Picture) -> tuple[UInt8Array, Truth]:
    """Read a photograph and its masks.

    Raises:
        InputError: They cannot be read, or differ in size.
    """
    image = load_image(picture.image_path)
    # Before masks of that size are made, if it is known.
    _check_size(picture, image, picture.size or image.shape[:2])
    truth = picture.load_truth()
    _check_size(picture, image, truth.valid.shape)
    return image, truth


def _check_size(picture: Picture, image: UInt8Array, size: tuple[int, ...]) -> None:
    if image.shape[:2] != size:
        raise InputError(
            f"{picture.name}: the photograph is {image.shape[0]} x {image.shape[1]} pixels (H x W) "
            f"once upright, its masks are {size[0]} x {size[1]}; "
            "give masks of the photograph's size"
        )


def union(masks: BoolMask) -> BoolMask:
    """Return the (H, W) union of (N, H, W) masks; N may be 0."""
    joined: BoolMask = np.logical_or.reduce(masks, axis=0)
    return joined


def mean(values: Iterable[float]) -> float:
    """Mean of one or more values."""
    return float(np.mean(list(values)))


def lowest_iou(rows: Iterable[Row], count: int) -> list[Row]:
    """Rows of the lowest "iou", those of the largest "area" first among equals."""
    return sorted(rows, key=lambda row: (row["iou"], -row["area"]))[:count]
