"""What the app's guard lets through and what it refuses, before Gradio sees a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message

from promptseg.apps.web import guard
from promptseg.apps.web.guard import Guard

HOST = ("host", "127.0.0.1:7860")
JSON = ("content-type", "application/json")
FORM = ("content-type", "multipart/form-data; boundary=x")
Headers = Sequence[tuple[str, str]]


async def echo(request: Request) -> Response:
    try:
        body = await request.body()
    except MultiPartException as error:
        return JSONResponse(error.message, 413)
    return JSONResponse({"bytes": len(body)})


ECHO = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])


def finish(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end in a thread of its own: browser tests leave an event loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


class Answer:
    """What came back."""

    def __init__(self, messages: list[Message]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.decode(): text.decode() for name, text in messages[0]["headers"]}
        self.text = b"".join(message.get("body", b"") for message in messages[1:]).decode()


def send(
    path: str,
    body: bytes | list[bytes] | None = None,
    headers: Headers = (HOST, JSON),
    *,
    host: str = "127.0.0.1",
    allowed: Sequence[str] = (),
    broken: bool = False,
) -> Answer:
    """Send a request through the guard; a list is a body in chunks without a length."""
    raw = [(name.encode(), text.encode("latin-1")) for name, text in headers]
    chunks = body if isinstance(body, list) else [body or b""]
    if isinstance(body, bytes):
        raw.append((b"content-length", str(len(body)).encode()))
    elif body is not None:
        raw.append((b"transfer-encoding", b"chunked"))
    parts: list[Message] = [
        {"type": "http.request", "body": part, "more_body": broken or i < len(chunks) - 1}
        for i, part in enumerate(chunks)
    ]
    parts.append({"type": "http.disconnect"})
    told: list[Message] = []

    async def receive() -> Message:
        return parts.pop(0)

    async def tell(message: Message) -> None:
        told.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET" if body is None else "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": raw,
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 7860),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
    }
    finish(Guard(ECHO, host=host, allowed=allowed)(scope, receive, tell))
    return Answer(told)


@pytest.mark.parametrize(
    ("host", "options", "status"),
    [
        ("127.0.0.1:7860", {}, 200),
        ("localhost:7860", {}, 200),
        ("LOCALHOST", {}, 200),
        ("[::1]:7860", {}, 200),
        ("evil.example:7860", {}, 403),
        ("127.0.0.1.evil.example", {}, 403),
        ("192.168.0.9:7860", {}, 403),
        ("", {}, 403),
        ("seg.example", {"allowed": ["Seg.Example"]}, 200),
        ("evil.example", {"allowed": ["seg.example"]}, 403),
        ("192.168.0.9:7860", {"host": "192.168.0.9"}, 200),
        ("192.168.0.9:7860", {"host": "0.0.0.0"}, 200),
        ("[fe80::1]:7860", {"host": "::"}, 200),
        ("evil.example:7860", {"host": "0.0.0.0"}, 403),
    ],
)
def test_only_known_hosts_are_answered(host: str, options: dict[str, Any], status: int) -> None:
    answer = send("/", None, [("host", host)], **options)
    assert answer.status == status
    if status == 403:
        assert "--allow-host" in answer.text


@pytest.mark.parametrize(
    ("headers", "options", "status"),
    [
        ([], {}, 200),  # no page: curl, Python
        ([("origin", "http://127.0.0.1:7860")], {}, 200),
        ([("origin", "http://localhost:3000")], {}, 403),
        ([("origin", "https://evil.example")], {}, 403),
        ([("origin", "null")], {}, 403),
        ([("origin", "file://")], {}, 403),
        ([("origin", "http://[")], {}, 403),
        ([("sec-fetch-site", "cross-site")], {}, 403),
        ([("sec-fetch-site", "same-origin")], {}, 200),
        ([("origin", "https://seg.example")], {"allowed": ["seg.example"]}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join"])
def test_other_sites_pages_may_not_use_it(
    path: str, headers: Headers, options: dict[str, Any], status: int
) -> None:
    kind, body = (FORM, b"--x--") if path.endswith("upload") else (JSON, b"{}")
    assert send(path, body, [HOST, kind, *headers], **options).status == status


@pytest.mark.parametrize(
    ("file", "status"),
    [
        ({"path": "/tmp/a.png"}, 200),
        ({"path": "/tmp/a.png", "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/a.png"}, 200),
        ({"path": "/tmp/a.png", "url": "/gradio_api/file=/tmp/a.png"}, 200),
        ({"path": "http://intranet/a.png"}, 400),
        ({"path": " HTTPS://intranet/a.png"}, 400),
        ({"path": "ftp://intranet/a.png"}, 400),
        ({"path": "//intranet/a.png"}, 400),
        ({"path": "\\\\intranet\\a.png"}, 400),
        ({"path": "http://127.0.0.1:7860/a.png"}, 400),
        ({"path": "/tmp/a.png", "url": "http://intranet/a.png"}, 400),
        ({"path": "/tmp/a.png", "url": "http://["}, 400),
        ({"deep": [[{"in": {"path": "http://intranet/a.png"}}]]}, 400),
    ],
)
def test_no_address_reaches_what_would_look_it_up(file: dict[str, Any], status: int) -> None:
    body = json.dumps({"data": [{**file, "meta": {"_type": "gradio.FileData"}}]}).encode()
    answer = send("/gradio_api/call/segment_text", body)
    assert answer.status == status, answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://intranet/",
        "/gradio_api/file=http://intranet/a.png",
        "/gradio_api//file=https://intranet/a.png",
        "/gradio_api/%66ile=https://intranet/a.png",
        "/gradio_api/process_recording",
        "/gradio_api/component_server",
        "/monitoring",
    ],
)
def test_routes_that_the_app_does_not_use_are_closed(path: str) -> None:
    assert send(path, None, [HOST]).status == 404


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", [HOST], 200),
        (b'{"data": [1, 1.5]}', [HOST, JSON], 200),
        ([b'{"data"', b": []}"], [HOST, JSON], 200),
        (b"{}", [HOST], 415),
        (b"{}", [HOST, ("content-type", "text/plain")], 415),
        (b'{"data": ', [HOST, JSON], 400),
        (b'{"data": [NaN]}', [HOST, JSON], 400),
        (b'{"data": [1e999]}', [HOST, JSON], 400),
        (b"\xff", [HOST, JSON], 400),
        (b"[" * 100_000, [HOST, JSON], 400),
        (b"1" * (guard.MAX_JSON_BYTES + 1), [HOST, JSON], 413),
        ([b"1" * 100_000] * (guard.MAX_JSON_BYTES // 100_000 + 1), [HOST, JSON], 413),
    ],
    ids=range(12),
)
def test_bodies_are_checked_before_they_are_used(
    body: bytes | list[bytes], headers: Headers, status: int
) -> None:
    answer = send("/gradio_api/queue/join", body, headers)
    assert answer.status == status, answer.text
    if status == 200:
        whole = body if isinstance(body, bytes) else b"".join(body)
        assert json.loads(answer.text)["bytes"] == len(whole)
    assert len(answer.text) < 200


def test_an_upload_is_bounded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_UPLOAD_BYTES", 1000)
    assert send("/gradio_api/upload", b"x" * 1000, [HOST, FORM]).status == 200
    assert send("/gradio_api/upload", b"x" * 1001, [HOST, FORM]).status == 413
    # Without a length it is counted, and its parser is told, which removes its files.
    assert send("/gradio_api/upload", [b"x" * 100] * 11, [HOST, FORM]).status == 413
    assert send("/gradio_api/upload", [b"x" * 100], [HOST, FORM], broken=True).text == (
        '"the upload broke off"'
    )
    assert send("/gradio_api/upload", b"{}", [HOST, JSON]).status == 415


@pytest.mark.parametrize("path", ["/", "/gradio_api/file=/tmp/a.html", "/monitoring"])
def test_all_answers_have_the_headers_that_browsers_obey(path: str) -> None:
    headers = send(path, None, [HOST]).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'; sandbox" in policy if "file=" in path else "'self'" in policy
    assert "http" not in policy


def test_the_app_has_no_connections_but_requests() -> None:
    def never(*_: object) -> Any:
        raise AssertionError("it was let through")

    call: Callable[..., Any] = Guard(never, host="127.0.0.1")
    finish(call({"type": "websocket", "path": "/"}, never, never))
