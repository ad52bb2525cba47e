"""Refuses requests that a browser was tricked into, that are too large or that name other servers.

It stands before Gradio's own routes and answers in plain text. What comes through has a known host,
comes from the app's own page or from no page at all, and holds no address to be looked up.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .asker import listening
from .limits import MAX_JSON_BYTES, MAX_UPLOAD_BYTES

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
# Addresses that mean all of this machine's.
_ANY_ADDRESS = ("0.0.0.0", "::", "")
_UPLOAD = "/gradio_api/upload"
# Connections that carry answers: of an event, or of a session that the query names.
_ANSWERS = re.compile(r"/gradio_api/(?:call/(?:v2/)?[^/]+/([^/]+)|queue/data)")
# Parts of Gradio that the app does not use.
_CLOSED = re.compile(
    r"/gradio_api/(proxy=|process_recording|(undo-)?vibe-|component_server|custom_component|stream"
    r"|deep_link|run-history|runs|file=\s*[a-z][a-z0-9+.-]+:/)"
    r"|/(monitoring|login|svelte|custom_component)",
    re.IGNORECASE,
)
_URL = re.compile(r"\s*([a-z][a-z0-9+.-]+:)?[/\\]{2}", re.IGNORECASE)
# Scripts come from the app alone. Gradio's page has some inline, and it compiles the JavaScript of
# events; attributes such as onerror, which markup in a label would bring along, it does not use.
_PAGE_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "script-src-attr 'none'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
# Of uploads and downloads: even a page among them could do nothing.
_FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware that checks each request before the app sees it.

    Args:
        app: The app.
        host: Address that the server listens on.
        allowed: Further names under which the app is reached, such as a reverse proxy's.
    """

    def __init__(self, app: ASGIApp, *, host: str, allowed: Sequence[str] = ()) -> None:
        self.app = app
        self.allowed = frozenset(map(_plain_host, allowed))
        names = {*LOCAL_HOSTS, *self.allowed}
        # Everyone may be reached by its number: only a name can be made to point elsewhere.
        self.any_number = _plain_host(host) in _ANY_ADDRESS
        names.add(socket.gethostname().lower() if self.any_number else _plain_host(host))
        self.names = frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # the app has no other connections
        sent = _with_headers(scope["path"], send)
        headers = Headers(scope=scope)
        answer = self._refuse(scope, headers)
        if answer is None and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            if scope["path"].rstrip("/") == _UPLOAD:
                answer = _refuse_upload(headers)
                receive = _counted(receive)
            elif "content-type" in headers or _has_body(headers):
                receive, answer = await self._read_json(headers, receive)
        key = _answers_of(scope)
        with listening(key) if key else contextlib.nullcontext():
            await (answer or self.app)(scope, receive, sent)
        if key and not scope["path"].endswith("/data"):
            _forget(scope, key)

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        name = _plain_host(_without_port(host))
        if name not in self.names and not (self.any_number and _is_number(name)):
            return _no(
                403,
                f"the app does not answer to the host name {_brief(name)}; if it is the app's own, "
                "start it with --allow-host NAME",
            )
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site")
        foreign = origin is not None and not self._is_own(origin, host)
        if foreign or (site == "cross-site" and origin is None and scope["method"] == "POST"):
            return _no(403, "another site's page may not use the app")
        path = re.sub("/{2,}", "/", unquote(scope["path"]))
        if _CLOSED.match(path):
            return _no(404, "there is nothing here")
        return None

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether an Origin header is that of the app's page."""
        try:
            parts = urlsplit(origin)
            name = _plain_host(parts.hostname or "")
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return False
        return name in self.allowed or parts.netloc.lower() == host.lower()

    async def _read_json(
        self, headers: Headers, receive: Receive
    ) -> tuple[Receive, Response | None]:
        """Read a JSON body; return what gives it to the app, or why it is refused."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return receive, _no(415, "send JSON, with the header Content-Type: application/json")
        too_large = _no(413, f"the request has more than {MAX_JSON_BYTES} bytes")
        if _length(headers) > MAX_JSON_BYTES:
            return receive, too_large
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return receive, _no(400, "the request broke off")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MAX_JSON_BYTES:
                return receive, too_large
        try:
            data = json.loads(body, parse_float=_finite, parse_constant=_finite) if body else None
        except (ValueError, RecursionError):
            return receive, _no(400, "the request is not valid JSON")
        if any(map(self._is_foreign, _addresses(data))):
            return receive, _no(
                400, "a file's path is an address of another server; upload the file instead"
            )
        return _replayed(bytes(body), receive), None

    def _is_foreign(self, item: tuple[str, str]) -> bool:
        key, text = item
        if not _URL.match(text):
            return False
        if key == "path":
            return True
        # The page sends its own address of a file along with the path; nobody looks it up.
        try:
            name = _plain_host(urlsplit(text.strip()).hostname or "")
        except ValueError:
            return True
        return name not in self.names and not (self.any_number and _is_number(name))


def _with_headers(path: str, send: Send) -> Send:
    policy = _FILE_POLICY if path.startswith("/gradio_api/file") else _PAGE_POLICY

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers["Content-Security-Policy"] = policy
        await send(message)

    return sent


def _answers_of(scope: Scope) -> str:
    """Return the event or the session whose answers a connection carries, or nothing."""
    found = _ANSWERS.fullmatch(scope["path"])
    if found is None:
        return ""
    return found[1] or QueryParams(scope["query_string"]).get("session_hash", "")


def _forget(scope: Scope, event: str) -> None:
    """Let go of what Gradio keeps of a program's request, as if it were a page's session."""
    holder = getattr(scope.get("app"), "state_holder", None)
    if holder is not None:
        with holder.lock:
            holder.session_data.pop(event, None)
            holder.time_last_used.pop(event, None)


def _refuse_upload(headers: Headers) -> Response | None:
    if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return _no(415, "upload files as multipart/form-data")
    if _length(headers) > MAX_UPLOAD_BYTES:
        return _no(413, f"the upload has more than {MAX_UPLOAD_BYTES} bytes")
    return None


def _counted(receive: Receive) -> Receive:
    """Count an upload's bytes; its parser removes the files when this raises."""
    total = 0
    complete = False

    async def counted() -> Message:
        nonlocal total, complete
        message = await receive()
        if complete:
            return message
        if message["type"] != "http.request":
            raise MultiPartException("the upload broke off")
        total += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if total > MAX_UPLOAD_BYTES:
            raise MultiPartException(
                f"the upload exceeds the maximum allowed size of {MAX_UPLOAD_BYTES} bytes"
            )
        return message

    return counted


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


def _addresses(data: Any) -> Iterator[tuple[str, str]]:
    """Yield each path and each URL of the files in JSON."""
    todo: list[Any] = [data]
    while todo:
        item = todo.pop()
        values: Iterable[Any] = ()
        if isinstance(item, Mapping):
            values = item.values()
            for key in ("path", "url"):
                if isinstance(item.get(key), str):
                    yield key, item[key]
        elif isinstance(item, list):
            values = item
        todo.extend(value for value in values if isinstance(value, (dict, list)))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _has_body(headers: Headers) -> bool:
    return _length(headers) > 0 or "transfer-encoding" in headers


def _length(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host) if host.startswith("[") or host.count(":") == 1 else host


def _plain_host(host: str) -> str:
    return host.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _brief(text: str) -> str:
    return ascii(text[:100])


def _no(status: int, words: str) -> Response:
    return PlainTextResponse(f"{words}\n", status)
