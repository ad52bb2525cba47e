"""Reading foreign files: only regular ones, of bounded size, their hashes, and typed JSON."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import TypeVar

import msgspec

from .errors import InputError

T = TypeVar("T")

_HASHED_AT_ONCE = 2**20

# "... - at `$.regions[0].label`", where msgspec says that a value is wrong.
_PLACE = re.compile(r"(?s)(.*) - at `(?:key in )?\$\.?(.*)`")


def read_regular(path: Path, what: str, *, limit: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: Path of the file.
        what: What errors call it, such as "the concept 'mug.safetensors'".
        limit: Maximum size in bytes.

    Raises:
        InputError: It is missing, not a regular file (a folder, a pipe, a device), larger than
            the limit, or may not be read.
    """
    try:
        # Without waiting: opening a pipe that nobody writes to would never end.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{what} does not exist; check the path") from error
    except PermissionError as error:
        raise InputError(f"{what} may not be read; check its permissions") from error
    except ValueError as error:  # a null byte
        raise InputError(f"{what} is not a path; check it") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(f"{what} is too long for a file name; check the path") from error
        raise InputError(f"{what} cannot be opened ({error.strerror}); check the path") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise InputError(f"{what} is not a regular file; give the path of a file")
    with os.fdopen(descriptor, "rb") as stream:
        if status.st_size > limit:
            raise InputError(
                f"{what} has {status.st_size / 1e6:.0f} MB, more than the {limit / 1e6:.0f} MB "
                "that such a file may have"
            )
        try:
            return stream.read(limit + 1)
        except OSError as error:
            raise InputError(f"{what} cannot be read ({error.strerror})") from error


def hash_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, which is never in memory as a whole.

    Raises:
        OSError: It cannot be read.
    """
    digest, block = hashlib.sha256(), bytearray(_HASHED_AT_ONCE)
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(block):
            digest.update(memoryview(block)[:count])
    return digest.hexdigest()


def decode_json(content: bytes | str, kind: type[T], what: str) -> T:
    """Decode JSON into a type, every field checked.

    Numbers are finite, text is Unicode, and nesting is bounded; fields that the type does not
    have are ignored.

    Args:
        content: JSON in UTF-8, with or without a byte order mark.
        kind: A ``msgspec.Struct`` or any type that msgspec can check.
        what: What errors call it, such as "index.jsonl, line 3".

    Raises:
        InputError: It is not JSON, or not of that type; the message names the field.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    try:
        return msgspec.json.decode(content.removeprefix(b"\xef\xbb\xbf"), type=kind)
    except msgspec.ValidationError as error:
        found = _PLACE.fullmatch(str(error))
        text = str(error) if found is None else f"{found[2]}: {found[1]}"
        raise InputError(f"{what}: {text.replace('`', '')}") from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InputError(f"{what} is not valid JSON ({' '.join(str(error).split())})") from error
    except RecursionError as error:
        raise InputError(f"{what} is not valid JSON (it is nested too deeply)") from error
