"""Annotated pictures as measurements see them, whatever file layout they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...models.errors import InputError

BoolMask = NDArray[np.bool_]

# Objects that cover less than this share of their picture do not count in any measurement.
MIN_AREA = 0.01


@dataclass(frozen=True, eq=False)
class Target:
    """Something to be found.

    Attributes:
        label: Class name.
        mask: (H, W) bool.
    """

    label: str
    mask: BoolMask

    @property
    def area(self) -> float:
        """Share of the picture."""
        return float(self.mask.mean())


@dataclass(frozen=True, eq=False)
class Truth:
    """The true masks of a picture.

    Attributes:
        valid: (H, W) bool; false where a pixel counts neither for nor against a prediction.
        objects: What a box or a click can mean.
        classes: What can be asked for by name or by example: one region per class.
    """

    valid: BoolMask
    objects: tuple[Target, ...]
    classes: tuple[Target, ...]


class Picture(Protocol):
    """An annotated photograph, of any layout."""

    @property
    def name(self) -> str:
        """Unique in its data set."""

    @property
    def source(self) -> str:
        """The group that its figures are reported in."""

    @property
    def image_path(self) -> Path:
        """The photograph."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that :meth:`load_truth` and the photograph need."""

    @property
    def labels(self) -> frozenset[str]:
        """Everything known to be in it, including stuff, small things and crowds."""

    def load_truth(self) -> Truth:
        """Read the masks, small objects included.

        Raises:
            InputError: The masks cannot be read.
        """


@dataclass(frozen=True)
class Collection:
    """Pictures and what is known of their labels.

    Attributes:
        pictures: The pictures to measure.
        vocabulary: The labels that phrases are drawn from, by source; from all pictures of the
            source, measured or not.
        supercategories: The data's own grouping of labels; empty if it has none.
    """

    pictures: tuple[Picture, ...]
    vocabulary: Mapping[str, tuple[str, ...]]
    supercategories: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def large(targets: Iterable[Target]) -> list[Target]:
    """Those that cover at least ``MIN_AREA`` of their picture."""
    return [target for target in targets if target.area >= MIN_AREA]


def check_pictures(pictures: Iterable[Picture], remedy: str) -> None:
    """Refuse pictures that share a name, and pictures whose files are missing.

    Args:
        pictures: The pictures to measure.
        remedy: What to do if files are missing.

    Raises:
        InputError: Names the first picture that is wrong.
    """
    names: set[str] = set()
    missing: list[Path] = []
    for picture in pictures:
        if picture.name in names:
            raise InputError(f"{picture.name!r} is the name of two pictures; rename one of them")
        names.add(picture.name)
        missing += [path for path in picture.files if not path.is_file()]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{str(missing[0])!r} does not exist{more}; {remedy}")
