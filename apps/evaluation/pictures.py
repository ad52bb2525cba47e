"""Annotated pictures as measurements see them, whatever file layout they come from."""

from __future__ import annotations

import stat
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
# Sides and pixels of the largest picture that any file may claim; the pixels are those that Pillow
# opens at most.
LARGEST_SIDE = 2**17
MOST_PIXELS = 178_956_970
# All true masks of a picture together, one byte per pixel.
_MOST_BYTES = 2**32
# What is skipped is counted, and so many are named.
_NAMED = 20


@dataclass(frozen=True, eq=False)
class Target:
    """Something to be found.

    Attributes:
        label: Class name.
        mask: (H, W) bool.
        single: It is one object, not a region in which several may touch.
    """

    label: str
    mask: BoolMask
    single: bool = True

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
    def size(self) -> tuple[int, int] | None:
        """(H, W) that the data claim for the photograph; None if they say nothing."""

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


@dataclass
class Skipped:
    """What could not be read and was left out.

    Attributes:
        count: How many rows or pictures.
        named: What is wrong with each of the first, one line each.
    """

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, reason: object) -> None:
        """Count one more."""
        self.count += 1
        if len(self.named) < _NAMED:
            self.named.append(" ".join(str(reason).split()))


@dataclass(frozen=True)
class Collection:
    """Pictures and what is known of their labels.

    Attributes:
        pictures: The pictures to measure.
        vocabulary: The labels that phrases are drawn from, by source; from all pictures of the
            source, measured or not.
        supercategories: The data's own grouping of labels; empty if it has none.
        skipped: Rows of the data that could not be read; measuring adds pictures that cannot be.
    """

    pictures: tuple[Picture, ...]
    vocabulary: Mapping[str, tuple[str, ...]]
    supercategories: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    skipped: Skipped = field(default_factory=Skipped, compare=False)


def large(targets: Iterable[Target], least: float = MIN_AREA) -> list[Target]:
    """Those that cover at least a share of their picture."""
    return [target for target in targets if target.area >= least]


def check_masks(name: str, size: tuple[int, int], count: int) -> None:
    """Refuse a picture whose true masks would not fit in memory.

    Raises:
        InputError: It has too many pixels, or too many masks for them.
    """
    pixels = size[0] * size[1]
    if pixels > MOST_PIXELS:
        raise InputError(f"{name}: a picture of {size[0]} x {size[1]} pixels is too large")
    if pixels * count > _MOST_BYTES:
        raise InputError(f"{name}: {count} masks of {size[0]} x {size[1]} pixels are too many")


def check_pictures(pictures: Iterable[Picture], remedy: str) -> None:
    """Refuse pictures that share a name, and pictures whose files are missing or no files.

    Args:
        pictures: The pictures to measure.
        remedy: What to do if files are missing.

    Raises:
        InputError: Names the first picture that is wrong.
    """
    names: set[str] = set()
    wrong: list[tuple[Path, str]] = []
    for picture in pictures:
        if picture.name in names:
            raise InputError(f"{picture.name!r} is the name of two pictures; rename one of them")
        names.add(picture.name)
        wrong += [(path, fault) for path in picture.files if (fault := _fault(path))]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise InputError(f"{str(wrong[0][0])!r} {wrong[0][1]}{more}; {remedy}")


def _fault(path: Path) -> str:
    """What makes a path no file that can be opened; "" if it is one."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "may not be read"
    except (OSError, ValueError):  # also names that no file can have
        return "does not exist"
    return "" if stat.S_ISREG(mode) else "is not a regular file"


def is_file(path: Path) -> bool:
    """Whether a path, of any characters and length, is a file."""
    return not _fault(path)
