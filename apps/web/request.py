"""What a user asks for, as one value: it says all that an answer depends on.

Nothing of a user's is kept but such values. Answers are computed from them and cached by them, so
that one user cannot get another's answer, and what the cache let go is computed again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...models.errors import InputError

MAX_PHRASES = 50
_SEPARATORS = re.compile(r"[,;\n]")

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Setup:
    """The models to ask.

    Attributes:
        preset: Their name.
        device: Where they run.
    """

    preset: str = "pocket"
    device: str = "cpu"


@dataclass(frozen=True)
class Marks:
    """Clicks and boxes, in pixels of the picture, in the order they were made.

    Attributes:
        points: (x, y).
        labels: One for each point: 1 foreground, 0 background.
        boxes: XYXY.
        order: For each mark whether it is a box; what undo goes by.
    """

    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()
    order: tuple[bool, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.points or self.boxes)

    @property
    def lone_click(self) -> bool:
        """Whether it is one foreground point alone, which may mean a whole or a part."""
        return self.labels == (1,) and not self.boxes

    @property
    def can_answer(self) -> bool:
        """Whether there is something in the foreground."""
        return bool(1 in self.labels or self.boxes)

    def with_point(self, x: float, y: float, label: int) -> Marks:
        """Return the marks and one click more."""
        return replace(
            self,
            points=(*self.points, (x, y)),
            labels=(*self.labels, label),
            order=(*self.order, False),
        )

    def with_box(self, box: Box) -> Marks:
        """Return the marks and one box more, its corners put in order."""
        x0, y0, x1, y1 = box
        tidy = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
        return replace(self, boxes=(*self.boxes, tidy), order=(*self.order, True))

    def without_last(self) -> Marks:
        """Return the marks without the latest."""
        if not self.order:
            return self
        order = self.order[:-1]
        if self.order[-1]:
            return replace(self, boxes=self.boxes[:-1], order=order)
        return replace(self, points=self.points[:-1], labels=self.labels[:-1], order=order)


NO_MARKS = Marks()


@dataclass(frozen=True)
class Example:
    """A picture that shows what to look for.

    Attributes:
        picture: The file.
        mask: A file with the object's mask, or None.
        painted: The object as painted: a PNG's bytes, of any size; or None.
        marks: Clicks on the object, or a box around it, if there is no mask.
        label: What it is called.
    """

    picture: Path
    mask: Path | None = None
    painted: bytes | None = field(default=None, repr=False)
    marks: Marks = NO_MARKS
    label: str = "reference"


@dataclass(frozen=True)
class Request:
    """A query on one picture. One of phrases, example, marks and everything is asked.

    Attributes:
        setup: The models.
        picture: The file.
        phrases: What to look for.
        negatives: What it must not be.
        example: What shows what to look for.
        marks: Clicks and boxes.
        everything: Whether to find masks all over the picture.
        points_per_side: Clicks of the grid for that; None leaves it to the preset.
    """

    setup: Setup
    picture: Path
    phrases: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    example: Example | None = None
    marks: Marks = NO_MARKS
    everything: bool = False
    points_per_side: int | None = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """Labels that a mask was asked for; none for clicks and everything."""
        if self.example is not None:
            return (self.example.label,)
        return self.phrases


def read_phrases(text: str | None) -> tuple[str, ...]:
    """Return the phrases of a text, one a line or separated by commas.

    Raises:
        InputError: There are too many.
    """
    parts = (" ".join(part.split()) for part in _SEPARATORS.split(text or ""))
    phrases = tuple(dict.fromkeys(part for part in parts if part))
    if len(phrases) > MAX_PHRASES:
        raise InputError(f"{len(phrases)} phrases are too many at once; give at most {MAX_PHRASES}")
    return phrases
