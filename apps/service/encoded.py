"""Files that are sent as text: base64, alone or in a data URL."""

from __future__ import annotations

import base64
import binascii
import re

from ...models.errors import InputError
from .limits import MAX_FILE_BYTES

_DATA_URL = re.compile(r"data:[\w/+.-]*;base64,")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_data_url(text: str) -> bool:
    """Whether a text is a data URL in base64."""
    return _DATA_URL.match(text) is not None


def decode_file(text: str) -> bytes:
    """Return the file that base64 or a data URL holds.

    Raises:
        InputError: It is neither, such as an address, which is never looked up; or it is too large.
    """
    if _ADDRESS.match(text):
        raise InputError("an address is not looked up; send the file itself")
    if len(text) > MAX_FILE_BYTES * 4 // 3 + 200:
        raise InputError(f"a file has more than {MAX_FILE_BYTES / 1e6:.0f} MB")
    data = text.partition(",")[2] if is_data_url(text) else text
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("not valid base64 of an image file") from error
