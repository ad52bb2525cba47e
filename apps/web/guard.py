"""Refuses requests that a browser was tricked into, that are too large or that name other servers.

It stands before Gradio's own routes and answers in plain text. What comes through has a known host,
comes from the app's own page or from no page at all, and holds no address to be looked up.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..service.bodies import RefusedBody, check_upload, counted, has_body, read_json
from ..service.hosts import SAFE_HEADERS, Hosts
from ..service.limits import MAX_JSON_BYTES, MAX_UPLOAD_BYTES
from .asker import listening

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


class Guard:
    """ASGI middleware that checks each request before the app sees it.

    Args:
        app: The app.
        host: Address that the server listens on.
        allowed: Further names under which the app is reached, such as a reverse proxy's.
    """

    def __init__(self, app: ASGIApp, *, host: str, allowed: Sequence[str] = ()) -> None:
        self.app = app
        self.hosts = Hosts(host, allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # the app has no other connections
        sent = _with_headers(scope["path"], send)
        answer: Response | None = None
        try:
            receive = await self._check(scope, Headers(scope=scope), receive)
        except RefusedBody as refused:
            answer = PlainTextResponse(f"{refused}\n", refused.status)
        key = _answers_of(scope)
        with listening(key) if key else contextlib.nullcontext():
            await (answer or self.app)(scope, receive, sent)
        if key and not scope["path"].endswith("/data"):
            _forget(scope, key)

    async def _check(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Return what gives the app the request's body, or raise RefusedBody."""
        refused = self.hosts.refuse(headers, scope["method"])
        if refused is not None:
            raise RefusedBody(403, refused)
        if _CLOSED.match(re.sub("/{2,}", "/", unquote(scope["path"]))):
            raise RefusedBody(404, "there is nothing here")
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        if scope["path"].rstrip("/") == _UPLOAD:
            check_upload(headers, MAX_UPLOAD_BYTES)
            return counted(receive, MAX_UPLOAD_BYTES)
        if "content-type" not in headers and not has_body(headers):
            return receive
        data, receive = await read_json(headers, receive, MAX_JSON_BYTES)
        if any(map(self._is_foreign, _addresses(data))):
            raise RefusedBody(
                400, "a file's path is an address of another server; upload the file instead"
            )
        return receive

    def _is_foreign(self, item: tuple[str, str]) -> bool:
        key, text = item
        if not _URL.match(text):
            return False
        if key == "path":
            return True
        # The page sends its own address of a file along with the path; nobody looks it up.
        try:
            return not self.hosts.has(urlsplit(text.strip()).hostname or "")
        except ValueError:
            return True


def _with_headers(path: str, send: Send) -> Send:
    policy = _FILE_POLICY if path.startswith("/gradio_api/file") else _PAGE_POLICY

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(SAFE_HEADERS)
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
