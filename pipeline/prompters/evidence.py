"""How surely a phrase's or an example's object is in an image, on one scale."""

from __future__ import annotations

import math

# A presence nearer to 0 or 1 than this counts as this near.
_CERTAIN = 1e-4


def evidence_of(presence: float, least: float) -> float:
    """How far a presence lies above or below the least that passes, in log-odds."""
    return _log_odds(presence) - _log_odds(least)


def _log_odds(share: float) -> float:
    inside = min(max(share, _CERTAIN), 1 - _CERTAIN)
    return math.log(inside / (1 - inside))
