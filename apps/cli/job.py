"""What a command does with every image, and where its results go."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...models.errors import InputError
from ..exports import FORMATS, GEO_FORMATS, POLYGON_FORMATS
from ..exports.lock import FolderGoneError
from .folders import DEFAULT_OUT

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.raster import Raster
    from ...pipeline.result import Result

# If an image's files cannot be written for one of these reasons, neither can the next one's.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)

_MOST_SIMPLIFIED = 100

Progress = Callable[[int, int], None]
Segment = Callable[["UInt8Array | Raster", Progress | None], "Result"]


class Job(Protocol):
    """What a command does with every image."""

    # Title of the progress bar for a single image; empty for none.
    progress_title: str

    def settings(self) -> Mapping[str, object]:
        """Return everything that results depend on, JSON-able."""

    def record(self) -> Mapping[str, object]:
        """Return what the record of every image says of the query, JSON-able."""

    def inputs(self) -> list[str]:
        """Return the files that are read beside the images."""

    def labels(self) -> list[str]:
        """Return what is looked for; this may read files of the query."""

    def prepare(self) -> Segment:
        """Load what is needed; return the function that segments an image, (H, W, 3) uint8.

        With tiles, also a raster.
        """

    def drawn(self, result: Result) -> Result:
        """Return a result as the overlay and the mask files show it."""


@dataclass(frozen=True)
class RunOptions:
    """Where results go.

    Attributes:
        preset: Named in the records.
        out: Folder for files; None for the default one.
        as_json: Print JSON alone, and write files only if they are asked for.
        formats: Names of FORMATS, in place of the overlay, the masks and result.json.
        resume: Skip images that are done.
        overwrite: Also replace files that no earlier run wrote.
        simplify: Pixels that polygons may deviate from the mask; 0 keeps them exact.
        frames: Segment every page and frame of a file.
        allow_urls: Fetch images that are given by their URL.
        tiles: "auto" or the (height, width) of tiles that images are looked at in; None for none.

    Raises:
        InputError: They make no sense.
    """

    preset: str
    out: Path | None = None
    as_json: bool = False
    formats: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False
    simplify: float = 0.0
    frames: bool = False
    allow_urls: bool = False
    tiles: str | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.out is not None and os.path.lexists(self.out) and not self.out.is_dir():
            raise InputError(f"--out: {str(self.out)!r} is a file; give a folder")
        for name in self.formats:
            if name not in (*FORMATS, *GEO_FORMATS):
                known = ", ".join((*FORMATS, *GEO_FORMATS))
                raise InputError(f"--format: there is no {name!r}; use one of {known}")
        if set(self.formats) & set(GEO_FORMATS):
            from ...pipeline.raster import require_geo

            require_geo("rasterio", "pyogrio")
        if not 0 <= self.simplify <= _MOST_SIMPLIFIED:
            raise InputError(
                f"--simplify must be from 0 to {_MOST_SIMPLIFIED} pixels, not {self.simplify:g}"
            )
        if self.simplify and not set(self.formats) & set(POLYGON_FORMATS):
            raise InputError(
                f"--simplify is for polygons; give --format {', '.join(POLYGON_FORMATS)}"
            )
        if self.resume and not self.writes:
            raise InputError("--resume: no files are written to resume from; give --out")

    @property
    def writes(self) -> bool:
        """Whether files are written."""
        return self.out is not None or bool(self.formats) or not self.as_json

    @property
    def base(self) -> Path:
        """Folder of the run."""
        return Path(DEFAULT_OUT) if self.out is None else self.out


class Stop(Exception):
    """No further image can be done."""

    def __init__(self, image: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.image = image
        self.cause = cause


@contextmanager
def writing(image: str, *, needed: bool = False) -> Iterator[None]:
    """Stop the run if no other image's files could be written either, or all need this one."""
    try:
        yield
    except FolderGoneError as error:
        raise Stop(image, error) from error
    except OSError as error:
        if needed or error.errno in _NO_ROOM:
            raise Stop(image, error) from error
        raise
