"""What scores are worth: the mean IoU of masks with about the same score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 10
_SIDE = 300
_MARGIN = 50
_LARGEST_DOT = 9.0


@dataclass(frozen=True)
class ScoreBin:
    """Masks whose scores lie in an interval.

    Attributes:
        low: Its lower end, which belongs to it.
        high: Its upper end, which belongs to the next; the last one's, 1, to itself.
        count: Number of masks, at least 1.
        score: Their mean score.
        iou: Their mean IoU.
    """

    low: float
    high: float
    count: int
    score: float
    iou: float


def score_bins(scored: Sequence[tuple[float, float]]) -> list[ScoreBin]:
    """Return the tenths of the interval from 0 to 1 that have masks, lowest first.

    Args:
        scored: Score and IoU of each mask; scores beyond 0 or 1 count for the nearest tenth.
    """
    values = np.array(scored, np.float64).reshape(-1, 2)
    # Rounded, so that a float32 of 0.7 is not below 0.7.
    numbers = np.clip(np.floor(np.round(values[:, 0] * BINS, 6)), 0, BINS - 1)
    found = []
    for number in range(BINS):
        own = values[numbers == number]
        if len(own):
            score, iou = own.mean(axis=0).tolist()
            found.append(ScoreBin(number / BINS, (number + 1) / BINS, len(own), score, iou))
    return found


def calibration_error(bins: Sequence[ScoreBin]) -> float:
    """Return the gap between mean score and mean IoU, weighted by masks; there must be some.

    Source: the expected calibration error of Guo et al. 2017, "On Calibration of Modern Neural
    Networks", with the IoU in place of the accuracy.
    """
    total = sum(item.count for item in bins)
    return sum(item.count * abs(item.score - item.iou) for item in bins) / total


def draw_diagram(bins: Sequence[ScoreBin]) -> str:
    """Return an SVG: mean IoU against mean score, a dot's area in proportion to its masks.

    It takes its colours from the page, and has no text but numbers and the axes' names.
    """
    most = max(item.count for item in bins)

    def x(value: float) -> float:
        return round(_MARGIN + _SIDE * min(1.0, max(0.0, value)), 1)

    def y(value: float) -> float:
        return round(10 + _SIDE * (1 - min(1.0, max(0.0, value))), 1)

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts += [
            f'<path class="grid" d="M{x(tick)} {y(0)}V{y(1)}M{x(0)} {y(tick)}H{x(1)}"/>',
            f'<text x="{x(tick)}" y="{y(0) + 16}" text-anchor="middle">{tick:g}</text>',
            f'<text x="{x(0) - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>',
        ]
    line = " ".join(f"{x(item.score)},{y(item.iou)}" for item in bins)
    parts += [
        f'<path class="ideal" d="M{x(0)} {y(0)}L{x(1)} {y(1)}"/>',
        f'<polyline class="curve" points="{line}"/>',
    ]
    for item in bins:
        radius = max(2.0, _LARGEST_DOT * (item.count / most) ** 0.5)
        parts.append(f'<circle cx="{x(item.score)}" cy="{y(item.iou)}" r="{radius:.1f}"/>')
    middle = 10 + _SIDE / 2
    parts += [
        f'<text x="{x(0.5)}" y="{y(0) + 34}" text-anchor="middle">score</text>',
        f'<text x="11" y="{middle}" text-anchor="middle" transform="rotate(-90 11 {middle})">'
        "IoU</text>",
    ]
    size = f"0 0 {_MARGIN + _SIDE + 15} {_SIDE + 50}"
    label = "mean IoU against mean score; the table below has the numbers"
    return f'<svg viewBox="{size}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
