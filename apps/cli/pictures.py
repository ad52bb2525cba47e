"""The images that a command is given: files, folders, patterns, standard input, URLs."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ...models.errors import InputError
from ..console import printable
from ..image_names import ENDINGS, has_ending, natural_key
from ..wording import count
from .folders import DEFAULT_OUT, Search, absolute
from .sources import (
    STANDARD_INPUT,
    Fetched,
    Frame,
    Source,
    StandardInput,
    check_url,
    is_url,
    path_of_url,
)

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.raster import Raster


@dataclass
class Pictures:
    """The images to segment.

    Attributes:
        paths: Paths of the images, in the order given; those in a folder in natural order. What is
            not a file by itself has a path that no file needs to have.
        names: For each, the path of its own files below the run's folder, with slashes.
        root: Folder that holds all of them.
        opened: Whether a folder or a pattern was given.
        unreadable: Folders below the given ones that cannot be listed, and why.
        sources: Where the pixels come from, by path, if not from that file.
        windows: Whether TIFFs are read in windows.
    """

    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    root: Path = field(default_factory=Path)
    opened: bool = False
    unreadable: list[tuple[str, OSError]] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    windows: bool = False

    @property
    def several(self) -> bool:
        """Whether this is a run: several images, or a folder, even of one image."""
        return self.opened or len(self.paths) > 1

    @property
    def files(self) -> list[str]:
        """The files that are read."""
        found = (self.sources[path].file if path in self.sources else path for path in self.paths)
        return [path for path in dict.fromkeys(found) if path is not None]

    def load(self, path: str) -> UInt8Array | Raster:
        """Return an image, (H, W, 3) uint8 RGB, read-only, so that the pipeline needs no copy.

        Where TIFFs are read in windows, return the raster.

        Raises:
            InputError: It cannot be read.
        """
        from ...pipeline.images import load_image

        if self._is_raster(path):
            from ...pipeline.raster import Raster

            return Raster(path)
        source = self.sources.get(path)
        pixels = load_image(path) if source is None else source.load()
        pixels.flags.writeable = False
        return pixels

    def describe(self, path: str) -> dict[str, object]:
        """Return what an image's record says of where it is from."""
        source = self.sources.get(path)
        told = {"image": path} if source is None else source.describe()
        return {
            key: printable(value) if isinstance(value, str) else value
            for key, value in told.items()
        }

    def left_out(self, path: str) -> str:
        """Return what of an image's file is not segmented: "2 further pages are left out ..."."""
        if path in self.sources or self._is_raster(path):  # a raster's pages are overviews
            return ""
        number, kind = _frames(path)
        if number == 1:
            return ""
        left = count(number - 1, f"further {kind}")
        return f"{left} {'is' if number == 2 else 'are'} left out; --frames segments all"

    def _is_raster(self, path: str) -> bool:
        from ...pipeline.raster import is_raster

        return self.windows and path not in self.sources and is_raster(path)


def find_pictures(
    given: Sequence[str],
    out: Path | None,
    *,
    allow_urls: bool = False,
    frames: bool = False,
    windows: bool = False,
) -> Pictures:
    """Search folders for images; files are taken as they are, whether they exist or not.

    An image in a single folder is named by its path below it; with several folders, the folder's
    name comes before it. An image that was given itself is named by its file name, one that matches
    a pattern by its path below the pattern's fixed part.

    Args:
        given: Images, folders, patterns such as "photos/*.jpg", URLs, and "-" for standard input.
        out: Where files are written; it is not searched.
        allow_urls: Whether URLs may be fetched.
        frames: Whether each page or frame of a file is an image of its own.
        windows: Whether TIFFs are read in windows.

    Raises:
        InputError: A folder has no images, nothing matches a pattern, or a URL may not be fetched.
        OSError: A folder cannot be listed.
    """
    found = Pictures(windows=windows)
    roots = [root for path in given for root in _add(found, path, len(given), out, allow_urls)]
    if frames:
        _split(found)
    _check_distinct(found)
    try:
        found.root = Path(os.path.commonpath(roots))
    except ValueError:  # different drives of Windows
        found.root = roots[0]
    return found


def refuse_phrases(given: Sequence[str], phrases: Sequence[str], option: str) -> None:
    """Refuse words in the place of images, as in "--text cat dog", which the shell hands on so.

    Raises:
        InputError: A word is neither an image nor a folder, and phrases were given.
    """
    for word in given:
        if re.fullmatch(r"[^\W_][\w' -]*", word) and phrases and not os.path.lexists(word):
            raise InputError(
                f"{word!r} is not an image or a folder; give each phrase its own {option}: "
                f"{option} {_quoted(phrases[-1])} {option} {_quoted(word)}"
            )


def _quoted(phrase: str) -> str:
    return f'"{phrase}"' if " " in phrase else phrase


def _add(
    found: Pictures, path: str, among: int, out: Path | None, allow_urls: bool
) -> Iterator[Path]:
    """Add what one argument means; yield folders that hold it."""
    if not path.strip():
        raise InputError("an image's path is empty; name an image or a folder")
    if path == STANDARD_INPUT:
        if any(isinstance(source, StandardInput) for source in found.sources.values()):
            raise InputError("- is given twice, but standard input holds one image")
        yield _add_source(found, "stdin", StandardInput())
    elif _is_dir(path):
        yield _add_folder(found, path, among, out)
    elif _exists(path):
        yield _add_file(found, path)
    elif is_url(path):
        check_url(path, allow_urls)
        yield _add_source(found, path_of_url(path), Fetched(path))
    elif glob.has_magic(path):
        yield from _add_pattern(found, path, out)
    else:
        yield _add_file(found, path)


def _add_file(found: Pictures, path: str) -> Path:
    found.paths.append(path)
    found.names.append(Path(path).name)
    return absolute(path).parent


def _add_source(found: Pictures, path: str, source: Source) -> Path:
    found.paths.append(path)
    found.names.append(PurePosixPath(path).name)
    found.sources[path] = source
    return absolute(path).parent


def _add_folder(found: Pictures, path: str, among: int, out: Path | None) -> Path:
    found.opened = True
    prefix = f"{absolute(path).name}/" if among > 1 else ""
    before = len(found.paths)
    for name in Search(Path(path), out, found.unreadable).names():
        found.paths.append(str(Path(path) / name))
        found.names.append(prefix + name)
    if len(found.paths) == before:
        raise InputError(
            f"{path!r} holds no images, and neither do folders below it; "
            f"images are files that end in {', '.join(ENDINGS)}"
        )
    return absolute(path)


def _add_pattern(found: Pictures, pattern: str, out: Path | None) -> Iterator[Path]:
    """Add the images that match a pattern, which the shell did not expand."""
    found.opened = True
    ours = absolute(DEFAULT_OUT if out is None else out)
    matches = sorted(glob.glob(pattern, recursive=True), key=natural_key)  # noqa: PTH207
    files = [path for path in dict.fromkeys(matches) if Path(path).is_file()]
    images = [
        path
        for path in files
        if has_ending(Path(path).name)
        and DEFAULT_OUT not in Path(path).parts
        and not absolute(path).is_relative_to(ours)
    ]
    if not images:
        told = count(len(files), "file matches", "files match") if files else "nothing matches"
        none = ", none of which is an image" if files else ""
        raise InputError(
            f"{told} {pattern!r}{none}; check the pattern (* within a folder, ** through folders)"
        )
    fixed = Path()
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed /= part
    for path in images:
        found.paths.append(path)
        found.names.append(Path(path).relative_to(fixed).as_posix())
    yield absolute(fixed)


def _split(found: Pictures) -> None:
    """Replace files of several pages or frames by these."""
    paths, names = [], []
    for path, name in zip(found.paths, found.names, strict=True):
        number, kind = (1, "") if path in found.sources else _frames(path)
        if number == 1:
            paths.append(path)
            names.append(name)
            continue
        for i in range(number):
            of = f"{kind}{i + 1}"
            one = Path(path)
            paths.append(str(one.with_name(f"{one.stem}-{of}{one.suffix}")))
            found.sources[paths[-1]] = Frame(path, i)
            place = PurePosixPath(name)
            names.append(str(place.with_name(f"{place.stem}-{of}{place.suffix}")))
    found.paths, found.names = paths, names


def _check_distinct(found: Pictures) -> None:
    """Refuse a file that is called like what is not a file by itself."""
    numbers = Counter(found.paths)
    for path in found.sources:
        if numbers[path] > 1 and _exists(path):
            raise InputError(
                f"{path!r} would be called like another image of this run; rename the file"
            )


def _frames(path: str) -> tuple[int, str]:
    """Return how many pages or frames a file has, and what they are; 1 if it cannot be read."""
    from ...pipeline.images import open_picture

    try:
        with open_picture(Path(path), path) as image:
            return int(getattr(image, "n_frames", 1)), "page" if image.format == "TIFF" else "frame"
    except Exception:  # whether it can be read is told elsewhere
        return 1, ""


def _is_dir(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # too long, or no path: told when it is read
        return False


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:
        return False
