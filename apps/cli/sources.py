"""Images that are not a file each: standard input, a URL, one page or frame of a file."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from ...models.errors import InputError

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array

STANDARD_INPUT = "-"
# Of standard input, and of what is fetched.
MOST_BYTES = 100_000_000
MOST_SECONDS = 60.0
_BLOCK = 1 << 16
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?=://)")


class Source(Protocol):
    """Where the pixels of an image come from."""

    @property
    def file(self) -> str | None:
        """The file that is read; None if there is none."""

    def load(self) -> UInt8Array:
        """Return the image, (H, W, 3) uint8 RGB.

        Raises:
            InputError: It cannot be read.
        """

    def describe(self) -> dict[str, object]:
        """Return what the image's record says of it."""


@dataclass(frozen=True)
class Frame:
    """A page or frame of a file.

    Attributes:
        file: The file.
        number: Which one, from 0.
    """

    file: str
    number: int

    def load(self) -> UInt8Array:
        from ...pipeline.images import load_image

        return load_image(self.file, frame=self.number)

    def describe(self) -> dict[str, object]:
        return {"image": self.file, "frame": self.number}


@dataclass(frozen=True)
class StandardInput:
    """The image that standard input holds."""

    file: str | None = None

    def load(self) -> UInt8Array:
        from ...pipeline.images import load_image

        if sys.stdin.isatty():
            raise InputError("- reads an image from standard input; pipe one into it")
        content = sys.stdin.buffer.read(MOST_BYTES + 1)
        _check_size("standard input", len(content))
        if not content:
            raise InputError("standard input is empty; pipe an image into it")
        with _called("standard input"):
            return load_image(content)

    def describe(self) -> dict[str, object]:
        return {"image": STANDARD_INPUT}


@dataclass(frozen=True)
class Fetched:
    """An image that is fetched when its turn comes.

    Attributes:
        url: Its address, http or https.
    """

    url: str
    file: str | None = None

    def load(self) -> UInt8Array:
        from ...pipeline.images import load_image

        content = fetch(self.url)
        with _called(repr(self.url)):
            return load_image(content)

    def describe(self) -> dict[str, object]:
        return {"image": self.url}


@contextmanager
def _called(name: str) -> Iterator[None]:
    """Give errors about an image's content its name."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace("the image", name, 1)) from error


def is_url(text: str) -> bool:
    """Return whether a text begins like a URL."""
    return _SCHEME.match(text) is not None


def check_url(url: str, allowed: bool) -> None:
    """Refuse a URL that may not be fetched.

    Raises:
        InputError: URLs are not allowed, or it is neither http nor https.
    """
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[0].lower() not in ("http", "https"):
        raise InputError(f"{url!r} cannot be fetched: only http and https are; download it first")
    if not allowed:
        raise InputError(f"{url!r} is a URL; --allow-urls fetches it, or download it first")


def path_of_url(url: str) -> str:
    """Return a path that stands for a URL: its host and path, and a digest of its query."""
    parts = urlsplit(url)
    path = PurePosixPath(unquote(parts.path))
    pieces = [re.sub(r"[^\w.-]", "_", piece) for piece in path.parts if piece.strip("/.")]
    if parts.query:
        digest = hashlib.sha256(parts.query.encode("utf-8", "replace")).hexdigest()[:8]
        last = PurePosixPath(pieces.pop() if pieces else "image")
        pieces.append(f"{last.stem}-{digest}{last.suffix}")
    host = re.sub(r"[^\w.-]", "_", parts.netloc.rpartition("@")[2]) or "host"
    return "/".join([host, *(pieces or ["image"])])


def fetch(url: str, *, most: int = MOST_BYTES, seconds: float = MOST_SECONDS) -> bytes:
    """Return what an http or https URL holds, redirections within these followed.

    Args:
        url: The URL.
        most: Maximum number of bytes.
        seconds: Maximum time for all of it.

    Raises:
        InputError: It cannot be fetched, or is more than the limits allow.
    """
    answer: list[bytes | Exception] = []

    def run() -> None:
        try:
            answer.append(_fetch(url, most, seconds))
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            answer.append(error)

    # In a thread, since a server may send a byte of its headers at a time for ever.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    found = answer[0] if answer else TimeoutError()
    if isinstance(found, bytes):
        return found
    if isinstance(found, InputError):
        raise found
    if isinstance(found, TimeoutError):
        raise InputError(f"{url!r} took longer than {seconds:g} s; download it first") from found
    if isinstance(found, (OSError, HTTPException, ValueError)):
        reason = found.reason if isinstance(found, urllib.error.URLError) else found
        if isinstance(found, urllib.error.HTTPError):
            reason = f"{found.code} {found.reason}"
        raise InputError(f"{url!r} cannot be fetched ({reason}); check the address") from found
    raise found


def _fetch(url: str, most: int, seconds: float) -> bytes:
    until = time.monotonic() + seconds
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"User-Agent": "promptseg"})
    content = b""
    with opener.open(request, timeout=seconds) as stream:
        while block := stream.read(_BLOCK):
            content += block
            _check_size(repr(url), len(content), most)
            if time.monotonic() > until:
                raise TimeoutError
    return content


def _check_size(what: str, size: int, most: int = MOST_BYTES) -> None:
    if size > most:
        raise InputError(f"{what} has more than {most / 1e6:g} MB; give a smaller image")
