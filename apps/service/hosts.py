"""Whom a server answers: requests under its own names, from its own page or from no page at all.

A foreign site's page can make a browser send requests, and can make its own name point here; both
are told by the headers Host, Origin and Sec-Fetch-Site.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
# Sent with every answer.
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Addresses that mean all of this machine's.
_ANY_ADDRESS = ("0.0.0.0", "::", "")


class Hosts:
    """The names of a server.

    Args:
        host: Address that the server listens on.
        allowed: Further names under which it is reached, such as a reverse proxy's.
    """

    def __init__(self, host: str, allowed: Sequence[str] = ()) -> None:
        self.allowed = frozenset(map(_plain, allowed))
        names = {*LOCAL_HOSTS, *self.allowed}
        # Everyone may be reached by its number: only a name can be made to point elsewhere.
        self._any_number = _plain(host) in _ANY_ADDRESS
        names.add(socket.gethostname().lower() if self._any_number else _plain(host))
        self.names = frozenset(names)

    def refuse(self, headers: Headers, method: str) -> str | None:
        """Return why a request is not answered; None if it is."""
        host = headers.get("host", "")
        name = _plain(_without_port(host))
        if not self.has(name):
            return (
                f"the app does not answer to the host name {name[:100]!a}; if it is the app's "
                "own, start it with --allow-host NAME"
            )
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site")
        foreign = origin is not None and not self._is_own(origin, host)
        if foreign or (site == "cross-site" and origin is None and method == "POST"):
            return "another site's page may not use the app"
        return None

    def has(self, name: str) -> bool:
        """Whether a host name, without a port, is one of the server's."""
        name = _plain(name)
        return name in self.names or (self._any_number and _is_number(name))

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether an Origin header is that of the server's own page."""
        try:
            parts = urlsplit(origin)
            name = _plain(parts.hostname or "")
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):
            return False
        return name in self.allowed or parts.netloc.lower() == host.lower()


def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host) if host.startswith("[") or host.count(":") == 1 else host


def _plain(host: str) -> str:
    return host.strip().lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
