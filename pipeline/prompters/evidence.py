"""Evidence that an object is in an image, on one scale for phrases and examples."""

from __future__ import annotations

import math

from ...models.errors import InputError

# Presences are clipped to this distance from 0 and 1.
_CERTAIN = 1e-4


def evidence_of(presence: float, least: float) -> float:
    """Return how far a presence lies above or below the least that passes, in log-odds."""
    return _log_odds(presence) - _log_odds(least)


def raised(least: float, by: float) -> float:
    """Return the presence that lies `by` log-odds above a least one; 0 lets all pass as before."""
    if least <= 0.0 or by == 0.0:
        return least
    return 1 / (1 + math.exp(-(_log_odds(least) + by)))


def why_absent(presence: float, least: float, name: str = "presence") -> str:
    """Return why an object of too little presence is taken to be absent; "" if it is not."""
    return f"{name} {presence:.2f} below {least:.2f}" if presence < least else ""


def check_least(name: str, value: float) -> None:
    """Raise InputError for a least presence that is not in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} must be between 0 and 1, not {value!r}")


def _log_odds(share: float) -> float:
    inside = min(max(share, _CERTAIN), 1 - _CERTAIN)
    return math.log(inside / (1 - inside))
