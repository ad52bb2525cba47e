"""Fetches images of tasks: from the configured Label Studio, a local folder or the task itself.

No other host is ever asked, whatever a task says.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

import httpx

from ...models.errors import InputError
from ...models.foreign import read_regular
from ..service.encoded import decode_file, is_data_url
from ..service.limits import MAX_FILE_BYTES

_SECONDS = 30.0
_LOCAL_FILES = "/data/local-files/"
_DEFAULT_PORTS = {"http": 80, "https": 443}
# A personal access token, which is exchanged for a short-lived one; others are sent as they are.
_PERSONAL = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


class TaskImages:
    """Fetches images by what a task says of them.

    Args:
        url: Address of Label Studio; None if no image is fetched.
        token: A user's access token there.
        local_files: Folder that Label Studio serves as local files (its
            ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``); None if there is none.

    Raises:
        InputError: The address is no address, or the folder is not there.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, local_files: Path | None = None
    ) -> None:
        if url is not None and _origin(url) is None:
            raise InputError(f"{url!r} is not an address such as http://localhost:8080")
        if local_files is not None and not local_files.is_dir():
            raise InputError(f"{str(local_files)!r} is not a folder; give the one of local files")
        self.url = url
        self._token = token
        self._root = None if local_files is None else local_files.resolve()

    def fetch(self, source: str) -> bytes:
        """Return the content of an image file.

        Args:
            source: A path below Label Studio's address, an address on it, or a data URL.

        Raises:
            InputError: It is elsewhere, too large, or cannot be fetched.
        """
        if is_data_url(source):
            return decode_file(source)
        try:
            urlsplit(source)
        except ValueError as error:
            raise InputError(
                f"{source[:100]!r} is no address; only images of Label Studio itself are fetched"
            ) from error
        local = self._local_path(source)
        if local is not None:
            return read_regular(local, f"the image {local.name!r}", limit=MAX_FILE_BYTES)
        if self.url is None:
            raise InputError(
                f"{source[:100]!r} has to be fetched; start the backend with --url, the address of "
                "Label Studio"
            )
        address = urljoin(self.url.rstrip("/") + "/", source)
        if _origin(address) != _origin(self.url):
            raise InputError(
                f"the image is at {source[:100]!r}, not on {self.url}; only images of Label Studio "
                "itself are fetched"
            )
        return self._get(address)

    def _local_path(self, source: str) -> Path | None:
        """Return the file that a path of Label Studio's local files means; None if it is none."""
        parts = urlsplit(source)
        if self._root is None or parts.path != _LOCAL_FILES:
            return None
        if parts.netloc and (self.url is None or _origin(source) != _origin(self.url)):
            return None
        name = parse_qs(parts.query).get("d", [""])[0]
        path = (self._root / unquote(name).lstrip("/")).resolve()
        if "\0" in name or not path.is_relative_to(self._root):
            raise InputError(f"{name[:100]!r} is not below the folder of local files")
        return path

    def _get(self, address: str) -> bytes:
        try:
            # Redirects would lead to other hosts, and so would proxies of the environment.
            with httpx.Client(timeout=_SECONDS, trust_env=False, follow_redirects=False) as client:
                headers = self._authorization(client)
                with client.stream("GET", address, headers=headers) as answer:
                    if answer.status_code != 200:
                        raise InputError(_refused(address, answer.status_code))
                    content = bytearray()
                    for part in answer.iter_bytes():
                        content += part
                        if len(content) > MAX_FILE_BYTES:
                            raise InputError(
                                f"the image at {address[:200]!r} has more than "
                                f"{MAX_FILE_BYTES / 1e6:.0f} MB"
                            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise InputError(f"{address[:200]!r} cannot be fetched ({error})") from error
        return bytes(content)

    def _authorization(self, client: httpx.Client) -> dict[str, str]:
        if not self._token:
            return {}
        if not _PERSONAL.fullmatch(self._token):
            return {"Authorization": f"Token {self._token}"}
        address = urljoin(str(self.url).rstrip("/") + "/", "api/token/refresh")
        answer = client.post(address, json={"refresh": self._token})
        if answer.status_code != 200:
            raise InputError(_refused(address, answer.status_code))
        try:
            return {"Authorization": f"Bearer {answer.json()['access']}"}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{address!r} gave no access token") from error


def _refused(address: str, status: int) -> str:
    words = f"{address[:200]!r} answers with status {status}"
    if status in (401, 403):
        return f"{words}; give a user's access token: --token, or LABEL_STUDIO_API_KEY"
    if 300 <= status < 400:
        return f"{words}, a redirection to elsewhere, which is not followed"
    return words


def _origin(url: str) -> tuple[str, str, int] | None:
    """Return an address's scheme, host and port; None if it is no http address."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, port
