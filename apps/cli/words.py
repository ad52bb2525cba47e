"""What `promptseg models words` tells. It imports torch: import it inside functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...models.pocket.conse import Relative
from ...models.pocket.grounder import LEAST_LIKE, TRUST_RANGE
from ..wording import count

# Least numbers of pictures of the groups of words.
_GROUPS = (100, 20, 5, 1)
# A similarity at which a phrase is the word itself, but for rounding.
_SAME = 0.995


def describe_taught(taught: Sequence[tuple[str, int]]) -> list[str]:
    """Describe the words that a model was taught, in groups by how many pictures show each.

    Args:
        taught: Words with their numbers of pictures, most pictures first.
    """
    lines = []
    most: float = math.inf
    for least in _GROUPS:
        words = [word for word, pictures in taught if least <= pictures < most]
        if words:
            upto = " pictures or more" if most == math.inf else f" to {most - 1:g} pictures"
            lines += [f"By {least}{upto}:", "  " + ", ".join(words)]
        most = least
    return [*lines, "All other words go by the names of ImageNet's 1000 classes."]


def describe_relatives(phrase: str, taught: Relative, named: Relative) -> str:
    """Describe what a phrase is taken for.

    Args:
        phrase: The phrase.
        taught: The word most like it that was taught.
        named: The name of an ImageNet class that is most like it.
    """
    pictures = count(taught.pictures or 0, "picture")
    by_taught = f"'{taught.word}' ({taught.similarity:.2f}), taught by {pictures}"
    by_name = f"ImageNet's '{named.word}' ({named.similarity:.2f})"
    if max(taught.similarity, named.similarity) < LEAST_LIKE:
        return f"{phrase}: no word like it is known; the nearest are {by_taught}, and {by_name}"
    if taught.similarity >= _SAME:
        return f"{phrase}: taught by {pictures}"
    if taught.similarity <= TRUST_RANGE[0]:
        return f"{phrase}: taken for {by_name}"
    return f"{phrase}: taken for {by_taught}, and for {by_name}"
