"""Reads the bodies of requests within limits, before anything is made of them."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.types import Message, Receive


class RefusedBody(Exception):
    """A body that is not accepted.

    Attributes:
        status: The HTTP status that says so.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


async def read_json(headers: Headers, receive: Receive, most: int) -> tuple[Any, Receive]:
    """Read a JSON body; return what it holds, and what gives the body once more.

    Numbers are finite, and nesting is bounded.

    Args:
        headers: Of the request.
        receive: Of the request.
        most: Bytes that it may have.

    Raises:
        RefusedBody: It is no JSON, too large, or broke off.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedBody(415, "send JSON, with the header Content-Type: application/json")
    too_large = RefusedBody(413, f"the request has more than {most} bytes")
    if length(headers) > most:
        raise too_large
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise RefusedBody(400, "the request broke off")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most:
            raise too_large
    try:
        data = json.loads(body, parse_float=_finite, parse_constant=_finite) if body else None
    except (ValueError, RecursionError) as error:
        raise RefusedBody(400, "the request is not valid JSON") from error
    return data, _replayed(bytes(body), receive)


def counted(receive: Receive, most: int) -> Receive:
    """Count an upload's bytes; its parser removes the files when this raises.

    Raises:
        MultiPartException: When the upload broke off, or has more than ``most`` bytes.
    """
    total = 0
    complete = False

    async def count() -> Message:
        nonlocal total, complete
        message = await receive()
        if complete:
            return message
        if message["type"] != "http.request":
            raise MultiPartException("the upload broke off")
        total += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if total > most:
            raise MultiPartException(f"the upload exceeds the maximum allowed size of {most} bytes")
        return message

    return count


def check_upload(headers: Headers, most: int) -> None:
    """Check the headers of an upload.

    Raises:
        RefusedBody: It is no form, or too large.
    """
    if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise RefusedBody(415, "upload files as multipart/form-data")
    if length(headers) > most:
        raise RefusedBody(413, f"the upload has more than {most} bytes")


def has_body(headers: Headers) -> bool:
    """Whether a request says that it has a body."""
    return length(headers) > 0 or "transfer-encoding" in headers


def length(headers: Headers) -> int:
    """Return the length of a body in bytes, as its header says; 0 if it does not."""
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already, then whatever else comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number
