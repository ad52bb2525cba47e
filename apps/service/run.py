"""Runs a server until it is told to stop; requests that are being answered are finished first."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from ...models.errors import InputError

# Seconds that requests have to be finished once the server is told to stop.
STOP_SECONDS = 20
# Connections at a time; further ones get a 503.
MAX_CONNECTIONS = 200
# Seconds after which a silent connection is closed.
_KEEP_ALIVE = 30


def bind(host: str, port: int) -> socket.socket:
    """Take a port, without accepting connections yet.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.

    Raises:
        InputError: The port is taken, or the address does not belong to this machine.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"cannot listen on {host}:{port} ({' '.join(str(error).split())}); choose another "
            "--port or --host"
        ) from error
    return listener


def run(app: FastAPI, listener: socket.socket, started: Callable[[str], None]) -> None:
    """Serve an app until SIGINT or SIGTERM.

    Args:
        app: What to serve.
        listener: From :func:`bind`.
        started: Called with the URL once requests are accepted.
    """
    host, number = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        app,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=STOP_SECONDS,
        # Of a proxy that may write them; nothing here reads them.
        proxy_headers=False,
    )
    server = _Server(config, lambda: started(f"http://{shown}:{number}"))
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Tells when it has started."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()
