"""Options that say what to look for: their values are parsed here and checked by `Query`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ...models.errors import InputError

if TYPE_CHECKING:
    from ...pipeline.query import Query

Text = Annotated[
    list[str] | None,
    typer.Option("--text", "-t", help="What to look for; repeat it for several phrases."),
]
Negative = Annotated[
    list[str] | None,
    typer.Option("--negative", help="What it must not be: masks of it are dropped."),
]
Points = Annotated[
    list[str] | None,
    typer.Option(
        "--point",
        metavar="X,Y[,LABEL]",
        help="A point on the object; with label 0, on the background.",
    ),
]
Boxes = Annotated[
    list[str] | None,
    typer.Option("--box", metavar="X0,Y0,X1,Y1", help="A box around the object, in pixels."),
]
TopK = Annotated[
    int | None, typer.Option("--top-k", min=1, help="At most this many masks per phrase.")
]
MinScore = Annotated[
    float | None, typer.Option("--min-score", min=0.0, max=1.0, help="Lowest score of a mask.")
]
MinPresence = Annotated[
    float | None,
    typer.Option(
        "--min-presence",
        help="How sure it must be, from 0 to 1, that what --text or an example means is in the "
        "image at all; 0 tries it anyway. Default: the preset's threshold.",
    ),
]
NoOverlap = Annotated[
    bool, typer.Option("--no-overlap", help="Give each pixel to the best mask that covers it.")
]

# What the fields of a query are called on the command line.
_OPTIONS = {
    "text": "--text",
    "negative_text": "--negative",
    "points": "--point",
    "point_labels": "--point: LABEL",
    "boxes": "--box",
    "min_presence": "--min-presence",
}


@dataclass(frozen=True)
class RankingOptions:
    """Which of the masks found are kept; None leaves a value to the preset.

    Attributes:
        top_k: Most masks for each phrase.
        min_score: Lowest score.
        no_overlap: Whether each pixel goes to one mask only.

    Raises:
        InputError: The score is not a number.
    """

    top_k: int | None = None
    min_score: float | None = None
    no_overlap: bool = False

    def __post_init__(self) -> None:
        if self.min_score is not None and math.isnan(self.min_score):
            raise InputError("--min-score: nan is not a number")


def read_query(
    text: Iterable[str] | None,
    negative: Iterable[str] | None,
    point: Iterable[str] | None,
    box: Iterable[str] | None,
    min_presence: float | None,
) -> Query:
    """Build the query from the values of the options but for examples.

    Raises:
        InputError: A value makes no sense; the message names the option.
    """
    from ...pipeline.query import Query

    clicks = [_read_labelled_click(value) for value in point or ()]
    boxes = [read_box("--box", value) for value in box or ()]
    try:
        return Query(
            None if text is None else list(text),
            negative_text=None if negative is None else list(negative),
            points=[(x, y) for x, y, _ in clicks] if clicks else None,
            point_labels=[label for _, _, label in clicks] if clicks else None,
            boxes=boxes or None,
            min_presence=min_presence,
        )
    except InputError as error:
        raise _with_option(error) from error


def read_click(option: str, value: str) -> tuple[float, float]:
    """Parse X,Y.

    Raises:
        InputError: It is something else.
    """
    x, y = _read_numbers(option, value, (2,), "X,Y")
    return x, y


def read_box(option: str, value: str) -> tuple[float, float, float, float]:
    """Parse X0,Y0,X1,Y1.

    Raises:
        InputError: It is something else.
    """
    x0, y0, x1, y1 = _read_numbers(option, value, (4,), "X0,Y0,X1,Y1")
    return x0, y0, x1, y1


def _read_labelled_click(value: str) -> tuple[float, float, float]:
    x, y, *label = _read_numbers("--point", value, (2, 3), "X,Y or X,Y,LABEL")
    return x, y, label[0] if label else 1.0


def _read_numbers(option: str, value: str, wanted: tuple[int, ...], form: str) -> list[float]:
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in wanted:
        raise InputError(f"{option}: {value!r} is not {form} in pixels")
    return numbers


def _with_option(error: InputError) -> InputError:
    """Return the error of a query with the option in place of the field that it names."""
    message = str(error)
    for field, option in _OPTIONS.items():
        if re.match(rf"{field}\b", message):
            return InputError(option + message[len(field) :])
    return error
