"""What a measurement needs of a picture, wherever its masks come from."""

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

# Objects of less than this share of their picture do not count in any measurement.
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
        classes: Regions of the classes that can be asked for by name or by example, a class one.
    """

    valid: BoolMask
    objects: tuple[Target, ...]
    classes: tuple[Target, ...]


class Picture(Protocol):
    """A photograph with region masks, of any layout."""

    @property
    def name(self) -> str:
        """Unique in its data."""

    @property
    def source(self) -> str:
        """What figures are grouped by."""

    @property
    def image_path(self) -> Path:
        """The photograph."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that :meth:`load_truth` and the photograph need."""

    @property
    def labels(self) -> frozenset[str]:
        """All that is known to be in it: stuff, small things and crowds as well."""

    def load_truth(self) -> Truth:
        """Read the masks, small objects included.

        Raises:
            InputError: The masks cannot be read.
        """


@dataclass(frozen=True)
class Collection:
    """Pictures and what is known of their labels.

    Attributes:
        pictures: To be measured.
        vocabulary: The labels that phrases are drawn from, by source; of all pictures of the
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
    """Refuse pictures of one name, and pictures whose files are not there.

    Args:
        pictures: To be measured.
        remedy: What helps if files are missing.

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
