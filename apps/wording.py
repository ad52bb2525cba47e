"""Numbers, sizes and plain sentences about results, as every part of the apps words them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..pipeline.result import RejectedMask, Result

_LONGEST_PHRASE = 60


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 mask", "3 masks"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def describe_size(size: int) -> str:
    """Return a number of bytes as people write it, such as "375 MB" or "1.8 GB"."""
    if size >= 999_500_000:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 999_500 else f"{size / 1e3:.0f} kB"


def describe_figure(value: float | None) -> str:
    """Return a count as it is, another figure to three places, and nothing for none."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def figure_names(groups: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the names of all groups' figures in their order."""
    # The groups with the most figures first, since these have the whole order.
    longest = sorted(groups.values(), key=len, reverse=True)
    return list(dict.fromkeys(name for group in longest for name in group))


def shorten(phrase: str) -> str:
    """Return a phrase on one line, cut to 60 characters."""
    line = " ".join(phrase.split())
    return line if len(line) <= _LONGEST_PHRASE else line[: _LONGEST_PHRASE - 3] + "..."


def describe_missing(result: Result, phrases: Sequence[str], hint: str) -> list[str]:
    """Return one line for each phrase without a mask, with the reason where it is known.

    Args:
        result: What was found.
        phrases: What was asked for.
        hint: How to look for what seems absent, with {} for the presence that is enough.
    """
    lines = []
    for phrase in phrases:
        if phrase in result.labels:
            continue
        line = f"nothing here that matches '{shorten(phrase)}'"
        found = main_reason(result, phrase)
        if found is not None:
            line = f"{line}: {found.reason}"
            if found.enough:
                line = f"{line}; {hint.format(found.enough)}"
        lines.append(line)
    if not phrases and len(result) == 0:
        lines.append("nothing here: no mask for the points and boxes given")
    return lines


def main_reason(result: Result, phrase: str) -> RejectedMask | None:
    """Return what says most about why a phrase has no mask: its presence, if it lacks that."""
    rejected = [item for item in result.rejected if item.label == phrase]
    absent = [item for item in rejected if item.presence is not None]
    return next(iter([*absent, *rejected]), None)


def describe_unseen(result: Result) -> str:
    """Return what could not be looked at, on one line; "" if everything was."""
    if not result.unseen:
        return ""
    first = result.unseen[0]
    place = ",".join(map(str, first.box))
    more = f", and {len(result.unseen) - 1} more" if len(result.unseen) > 1 else ""
    tiles = count(len(result.unseen), "tile")
    return f"{tiles} could not be looked at: {place}{more} ({first.reason})"
