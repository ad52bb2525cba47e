"""What a user asks for, as one hashable value that holds everything an answer depends on.

Answers are computed from a request and cached under it, so no user can see another's answer, and an
answer that the cache dropped is computed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...pipeline.prompters.reference.examples import Reference
from ...pipeline.query import Query, split_phrases
from ..service.limits import (
    MAX_LABEL,
    MAX_MARKS,
    MAX_PHRASES,
    MAX_TEXT,
    check_count,
    check_grid,
    check_phrases,
    check_text,
)

Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Setup:
    """Which models answer, and where.

    Attributes:
        preset: Name of the preset.
        device: Device to run it on.
    """

    preset: str = "pocket"
    device: str = "cpu"


@dataclass(frozen=True)
class Click:
    """A point with its label.

    Attributes:
        point: (x, y) in pixels of the picture.
        label: 1 foreground, 0 background.
    """

    point: Point
    label: int


@dataclass(frozen=True)
class MarkHistory:
    """The clicks and boxes on a picture, in the order they were made, so that they can be undone.

    Attributes:
        steps: Clicks, and boxes XYXY in pixels of the picture.
    """

    steps: tuple[Click | Box, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks alone."""
        return tuple(step for step in self.steps if isinstance(step, Click))

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The boxes alone."""
        return tuple(step for step in self.steps if not isinstance(step, Click))

    @property
    def is_lone_click(self) -> bool:
        """Whether it is one foreground click, which can mean a whole object or a part of it."""
        return len(self.steps) == 1 and [click.label for click in self.clicks] == [1]

    @property
    def has_foreground(self) -> bool:
        """Whether anything marks an object; background clicks alone do not."""
        return bool(self.boxes) or any(click.label == 1 for click in self.clicks)

    def add_click(self, point: Point, label: int) -> MarkHistory:
        """Return the history with one more click."""
        return MarkHistory((*self.steps, Click(point, label)))

    def add_box(self, corner: Point, opposite: Point) -> MarkHistory:
        """Return the history with a box between two opposite corners."""
        (x0, y0), (x1, y1) = corner, opposite
        box = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
        return MarkHistory((*self.steps, box))

    def undo(self) -> MarkHistory:
        """Return the history without its latest step."""
        return MarkHistory(self.steps[:-1])


NO_MARKS = MarkHistory()


@dataclass(frozen=True)
class Example:
    """A picture that shows what to look for. The first given of mask, painting and marks counts.

    Attributes:
        picture: The file.
        mask: File with the object's mask.
        painted: The object as painted on the page: a PNG of any size.
        marks: Clicks on the object, or a box around it.
        label: What to call it.
    """

    picture: Path
    mask: Path | None = None
    painted: bytes | None = field(default=None, repr=False)
    marks: MarkHistory = NO_MARKS
    label: str = "reference"


@dataclass(frozen=True)
class Request:
    """One question about one picture: by phrases, an example, marks, or everything.

    Attributes:
        setup: The models.
        picture: The file.
        phrases: What to look for.
        negatives: Phrases for what should be left out.
        example: What to look for, as a picture.
        marks: Clicks and boxes.
        everything: Whether to segment the whole picture.
        points_per_side: Grid size for that; None for the preset's own.
        min_presence: Least presence of what phrases and the example mean; None for the preset's.
    """

    setup: Setup
    picture: Path
    phrases: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    example: Example | None = None
    marks: MarkHistory = NO_MARKS
    everything: bool = False
    points_per_side: int | None = None
    min_presence: float | None = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """The labels asked for; empty for marks and everything."""
        if self.example is not None:
            return (self.example.label,)
        return self.phrases

    @property
    def origin(self) -> str:
        """How its masks are found: "example", "phrase", "everything" or "clicks"."""
        if self.example is not None:
            return "example"
        if self.phrases:
            return "phrase"
        return "everything" if self.everything else "clicks"

    @property
    def is_answerable(self) -> bool:
        """Whether there is anything to look for; background clicks alone mark no object."""
        return self.origin != "clicks" or self.marks.has_foreground

    def check(self) -> None:
        """Check everything that needs no file.

        Raises:
            InputError: There is too much of something.
        """
        check_phrases("phrases", self.phrases)
        check_phrases("negatives", self.negatives)
        marks = [self.marks]
        if self.example is not None:
            check_text("the label", self.example.label, MAX_LABEL)
            marks.append(self.example.marks)
        for history in marks:
            check_count("points and boxes", len(history.steps), MAX_MARKS)
        if self.points_per_side is not None:
            check_grid(self.points_per_side)

    def query(self, reference: Reference | None = None) -> Query:
        """Return the pipeline's query.

        Args:
            reference: The example, once it has been read.

        Raises:
            InputError: A phrase or a mark is not usable.
        """
        clicks = self.marks.clicks
        return Query(
            self.phrases,
            negative_text=self.negatives,
            reference=reference,
            points=[click.point for click in clicks],
            point_labels=[click.label for click in clicks],
            boxes=self.marks.boxes,
            min_presence=self.min_presence,
        )


def read_phrases(text: str | None) -> tuple[str, ...]:
    """Return the phrases in a text, which commas, semicolons or line breaks separate.

    Raises:
        InputError: There are too many, or the text is too long.
    """
    phrases = split_phrases(check_text("the text", text or "", MAX_TEXT))
    check_count("phrases", len(phrases), MAX_PHRASES)
    return phrases


def read_label(text: str | None) -> str:
    """Return what an example is called.

    Raises:
        InputError: The label is too long.
    """
    label = " ".join(check_text("the label", text or "", MAX_LABEL).split())
    return label or "reference"
