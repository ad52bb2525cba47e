"""Refuses requests of foreign sites and more bytes than the process may hold, before all routes."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .bodies import RefusedBody, length
from .errors import error_response
from .hosts import SAFE_HEADERS, Hosts
from .limits import MAX_BODY_BYTES, MAX_HELD_BYTES


class Gate:
    """ASGI middleware that checks each request before the app sees it.

    Args:
        app: The app.
        host: Address that the server listens on.
        allowed: Further names under which the app is reached.
        most: Bytes of one request's body.
        held: Bytes of the bodies of all requests that are being answered.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        allowed: Sequence[str] = (),
        most: int = MAX_BODY_BYTES,
        held: int = MAX_HELD_BYTES,
    ) -> None:
        self.app = app
        self.hosts = Hosts(host, allowed)
        self.most = most
        self.room = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # the app has no other connections
        headers = Headers(scope=scope)
        refused = self.hosts.refuse(headers, scope["method"])
        if refused is not None:
            await error_response(403, refused)(scope, receive, _safe(send))
        elif length(headers) > self.most:
            words = f"the request has more than {self.most} bytes"
            await error_response(413, words)(scope, receive, _safe(send))
        else:
            await self._hand_on(scope, receive, _safe(send))

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = 0

        async def held() -> Message:
            nonlocal taken
            message = await receive()
            size = len(message.get("body", b""))
            if size > self.room:
                raise RefusedBody(503, "too much is being sent at once; try again in a moment")
            self.room -= size
            taken += size
            return message

        try:
            await self.app(scope, held, send)
        finally:
            self.room += taken


def _safe(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(SAFE_HEADERS)
        await send(message)

    return sent
