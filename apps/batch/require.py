"""Says what to install where Ray or Arrow is missing."""

from __future__ import annotations

from importlib.util import find_spec

from ...models.errors import InputError

_NEEDED = ("ray", "pyarrow", "fsspec")


def require_ray() -> None:
    """Refuse to go on without Ray and Arrow, which only this part of promptseg needs.

    Raises:
        InputError: They are not installed.
    """
    if any(find_spec(name) is None for name in _NEEDED):
        raise InputError("batches need Ray Data; run: pip install 'promptseg[ray]'")
