"""What the command line asks of every image: phrases, points and boxes, read and checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...models.errors import InputError


@dataclass(frozen=True)
class Query:
    """What to look for in every image.

    Attributes:
        text: Phrases, no two the same.
        negative_text: Phrases whose masks drop others.
        points: (x, y) in pixels.
        point_labels: 1 or 0 for each point.
        boxes: XYXY in pixels.
        top_k: Most masks for each phrase; None leaves it to the preset.
        min_score: Least score; None leaves it to the preset.
        no_overlap: Whether each pixel goes to one mask only.
    """

    text: tuple[str, ...]
    negative_text: tuple[str, ...]
    points: tuple[tuple[float, float], ...]
    point_labels: tuple[int, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    top_k: int | None
    min_score: float | None
    no_overlap: bool = False


def read_query(
    text: list[str] | None,
    negative: list[str] | None,
    point: list[str] | None,
    box: list[str] | None,
    top_k: int | None,
    min_score: float | None,
    *,
    no_overlap: bool = False,
    shown: bool = False,
) -> Query:
    """Check the options that say what to look for.

    Args:
        text: As given, like all that follows.
        negative: Phrases.
        point: X,Y or X,Y,LABEL.
        box: X0,Y0,X1,Y1.
        top_k: A number.
        min_score: A number.
        no_overlap: A switch.
        shown: Whether references show what to look for, so that nothing else need be given.

    Raises:
        InputError: An option makes no sense; the message shows the right form.
    """
    phrases = tuple(phrase.strip() for phrase in text or ())
    negatives = tuple(phrase.strip() for phrase in negative or ())
    for hint, given in (("--text", phrases), ("--negative", negatives)):
        if "" in given:
            raise InputError(f"{hint}: the text is empty; name what to look for")
        for phrase in given:
            _check_unicode(hint, phrase)
    clicks = [_read_point(value) for value in point or ()]
    boxes = tuple(read_box("--box", value) for value in box or ())
    if not (phrases or clicks or boxes or shown):
        raise InputError(
            "say what to look for: give --text, --reference, --concept, --point or --box"
        )
    if min_score is not None and math.isnan(min_score):
        raise InputError("--min-score: nan is not a number")
    return Query(
        text=tuple(dict.fromkeys(phrases)),
        negative_text=tuple(dict.fromkeys(negatives)),
        points=tuple((x, y) for x, y, _ in clicks),
        point_labels=tuple(label for _, _, label in clicks),
        boxes=boxes,
        top_k=top_k,
        min_score=min_score,
        no_overlap=no_overlap,
    )


def _check_unicode(hint: str, phrase: str) -> None:
    """Refuse bytes that are not UTF-8, which Python hands on as lone surrogates."""
    try:
        phrase.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = phrase.encode("utf-8", "backslashreplace").decode("utf-8")
        raise InputError(f"{hint}: '{shown}' is not valid UTF-8 text; type it again") from error


def _read_point(value: str) -> tuple[float, float, int]:
    parts = value.split(",")
    coordinates = _read_numbers("--point", value, parts[:2], wanted=2, form="X,Y or X,Y,LABEL")
    label = parts[2].strip() if len(parts) == 3 else "1"
    if len(parts) > 3 or label not in ("0", "1"):
        raise InputError(
            f"--point: {value!r} is not X,Y or X,Y,LABEL with label 1 (object) or 0 (background)"
        )
    return coordinates[0], coordinates[1], int(label)


def read_click(hint: str, value: str) -> tuple[float, float]:
    """Read X,Y.

    Raises:
        InputError: It is something else; the message begins with the hint.
    """
    x, y = _read_numbers(hint, value, value.split(","), wanted=2, form="X,Y")
    return x, y


def read_box(hint: str, value: str) -> tuple[float, float, float, float]:
    """Read X0,Y0,X1,Y1.

    Raises:
        InputError: It is something else; the message begins with the hint.
    """
    x0, y0, x1, y1 = _read_numbers(hint, value, value.split(","), wanted=4, form="X0,Y0,X1,Y1")
    if x0 >= x1 or y0 >= y1:
        raise InputError(
            f"{hint}: {value!r} is not X0,Y0,X1,Y1 with X0 < X1 and Y0 < Y1; "
            "give the top left corner first"
        )
    return x0, y0, x1, y1


def _read_numbers(
    hint: str, value: str, parts: list[str], *, wanted: int, form: str
) -> list[float]:
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != wanted or not all(math.isfinite(number) for number in numbers):
        raise InputError(f"{hint}: {value!r} is not {form} in pixels")
    return numbers
