"""The base class of the exporters, and how classes are numbered and files are named."""

from __future__ import annotations

import io
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from PIL import Image

from ...models.errors import InputError
from ...pipeline.files import remove_leftovers
from ..console import printable
from .manifest import Files

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.result import Result


class Exporter(ABC):
    """Writes the results of many images into a folder, one complete image after the other.

    Files from earlier runs in the same folder are kept, and so are the numbers of their classes.
    Adding an image again replaces its earlier result.

    Args:
        folder: Where to write; created when needed.
        labels: Classes to number first, in this order: everything that is looked for, so that
            the numbers do not depend on what is found. Others follow as they are found.
        images: Folder that the names of the images are relative to, for formats that refer to
            the image files; None if there are none.
        files: Writes the files; by default it replaces what is there.

    Raises:
        InputError: An existing file cannot be added to.
        OSError: A file cannot be read.
    """

    # Name in FORMATS.
    name: ClassVar[str]
    # Whether an image gets a folder of files.
    in_folder: ClassVar[bool] = False
    # Whether it needs the image's pixels.
    reads_pixels: ClassVar[bool] = False
    # Files of all images, which are added to.
    shared: ClassVar[tuple[str, ...]] = ()
    # Pixels that polygons may deviate from the mask's, for formats that have polygons.
    simplify: float = 0.0

    def __init__(
        self,
        folder: Path,
        labels: Sequence[str] = (),
        images: Path | None = None,
        files: Files | None = None,
    ) -> None:
        for place, _, _ in os.walk(folder):
            remove_leftovers(Path(place))
        self.folder = folder
        self.labels = ClassNames(labels)
        self.images = images
        self.files = Files() if files is None else files
        # Where the files of images are whose names are not paths below that folder.
        self.origins: Mapping[str, str] = {}

    @classmethod
    @abstractmethod
    def outputs(cls, name: str) -> list[str]:
        """Return the files that an image gets, or the folder of them: paths below the format's."""

    @abstractmethod
    def add(self, name: str, image: UInt8Array | None, result: Result) -> list[str]:
        """Write the result of an image.

        Args:
            name: The image's path below its folder, with slashes: "holiday/beach.jpg".
            image: (H, W, 3) uint8 RGB; None for a raster that is not in memory, which formats
                that need pixels do not take.
            result: What was found in it; it may be empty.

        Returns:
            What the format cannot hold, one line each.

        Raises:
            InputError: The name is not a path below the folder.
            OSError: A file cannot be written.
        """

    def check(self, name: str) -> None:  # noqa: B027 - most formats take all images
        """Refuse an image that the format cannot hold, before it is segmented.

        Raises:
            InputError: It cannot; the message says what to do.
        """

    @abstractmethod
    def has(self, name: str) -> bool:
        """Return whether an image's result has been written, by this run or an earlier one."""

    def source(self, name: str) -> str:
        """Return the image's path, by which later runs know whose answer a file is."""
        if name in self.origins:
            return self.origins[name]
        return name if self.images is None else os.path.join(self.images, name)  # noqa: PTH118

    def close(self) -> None:  # noqa: B027 - most formats have nothing left to write
        """Write whatever is still pending."""

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ClassNames:
    """Names of classes and their numbers, which never change.

    Args:
        names: The first names, numbered from 0.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self.numbers_of(names)

    def numbers_of(self, labels: Iterable[str]) -> list[int]:
        """Return the number of each label; new labels get the next numbers."""
        found = []
        for label in labels:
            name = class_name(label)
            if name not in self._numbers:
                self._numbers[name] = len(self.names)
                self.names.append(name)
            found.append(self._numbers[name])
        return found


def class_name(label: str) -> str:
    """Return a label as a name on one line; "object" if nothing is left of it."""
    # Control characters cannot be in YAML or a list of lines.
    visible = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", printable(label))
    return " ".join(visible.split()) or "object"


def stem(name: str) -> str:
    """Return an image's name without its ending: the path of its files below a folder.

    Raises:
        InputError: The name is not a path below a folder.
    """
    path = PurePosixPath(name)
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise InputError(f"{name!r} is not the path of an image below a folder")
    return str(path.with_suffix(""))


def to_png(image: Image.Image) -> bytes:
    """Return an image as the content of a PNG file."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()
