"""What is asked of an image: phrases, examples, points and boxes, read and checked once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..models.errors import InputError
from .checks import Numbers, set_field
from .marks import Marks
from .prompters.reference.examples import (
    LABEL,
    EncodedReference,
    Reference,
    ReferenceQuery,
    read_references,
)

Phrases = str | Sequence[str] | None


@dataclass(frozen=True, eq=False, init=False)
class Query:
    """What to look for, checked as far as it can be without the image.

    Args:
        text: One or several phrases; each is looked for on its own.
        negative_text: Masks that lie on what these phrases name are dropped.
        reference: One or several examples of what to look for, encoded or not; those of one
            label are examples of the same thing. With text, an example goes with the phrase that
            it is labelled with, or with the only one.
        negative_reference: Examples of what it is not, such as lookalikes. With a reference,
            masks that are more like them are dropped; without, those that lie on what they find.
        points: (N, 2) in pixels of the image, (x, y); or one point, (2,).
        point_labels: (N,): 1 foreground, 0 background; all foreground by default.
        boxes: (B, 4) XYXY in pixels of the image; or one box, (4,).

    Attributes:
        text: The phrases, stripped, no two the same.
        negative_text: Likewise.
        reference: The examples.
        negative_reference: Likewise.
        marks: The points and boxes.

    Raises:
        InputError: Something is of the wrong type or shape, or makes no sense.
    """

    text: tuple[str, ...]
    negative_text: tuple[str, ...]
    reference: tuple[Reference | EncodedReference, ...]
    negative_reference: tuple[Reference | EncodedReference, ...]
    marks: Marks

    def __init__(
        self,
        text: Phrases = None,
        *,
        negative_text: Phrases = None,
        reference: ReferenceQuery | None = None,
        negative_reference: ReferenceQuery | None = None,
        points: Numbers | None = None,
        point_labels: Numbers | None = None,
        boxes: Numbers | None = None,
    ) -> None:
        set_field(self, "text", _read_phrases("text", text))
        set_field(self, "negative_text", _read_phrases("negative_text", negative_text))
        set_field(self, "reference", read_references(reference))
        set_field(
            self,
            "negative_reference",
            read_references(negative_reference, "negative_reference"),
        )
        set_field(self, "marks", Marks.read(points, point_labels, boxes))

    @property
    def finds(self) -> bool:
        """Whether phrases or examples say what to look for, so that marks only choose."""
        return bool(self.text or self.reference)

    def showing(
        self,
        reference: Sequence[Reference | EncodedReference],
        negative_reference: Sequence[Reference | EncodedReference] = (),
    ) -> Query:
        """Return the same query with other examples."""
        return Query(
            self.text,
            negative_text=self.negative_text,
            reference=tuple(reference) or None,
            negative_reference=tuple(negative_reference) or None,
            points=self.marks.points,
            point_labels=self.marks.point_labels,
            boxes=self.marks.boxes,
        )

    def check_fits(self, size: tuple[int, int]) -> None:
        """Check the query against an image of ``size`` (H, W).

        Raises:
            InputError: A mark lies outside the image, or nothing says what to look for.
        """
        self.marks.check_inside(size)
        if not (self.finds or self.marks):
            raise InputError("say what to look for: give text, a reference, points or boxes")


def pair(
    phrases: Sequence[str], references: Sequence[EncodedReference]
) -> tuple[dict[str, EncodedReference], list[EncodedReference]]:
    """Return the examples that go with a phrase, by phrase and labelled with it, and the others.

    An example goes with the phrase that it is labelled with, and one without a label with a lone
    phrase; others are looked for beside the phrases.

    Raises:
        InputError: It is not clear which phrase an example goes with.
    """
    if not phrases:
        return {}, list(references)
    pairs, others = {}, []
    for reference in references:
        phrase = reference.label
        if phrase == LABEL and phrase not in phrases:
            if len(phrases) > 1:
                raise InputError(
                    "with several phrases, label an example with the one that it shows: "
                    f"{', '.join(map(repr, phrases))}"
                )
            phrase = phrases[0]
        if phrase not in phrases:
            others.append(reference)
        elif phrase in pairs:
            raise InputError(f"give all examples of {phrase!r} that label")
        else:
            pairs[phrase] = replace(reference, label=phrase)
    return pairs, others


def _read_phrases(name: str, value: Phrases) -> tuple[str, ...]:
    """Checked phrases without surrounding space and repetitions, in their order."""
    if value is None:
        return ()
    if not isinstance(value, Iterable):
        raise InputError(f"{name} must be text or a list of texts, got {value!r}")
    phrases = [value] if isinstance(value, str) else list(value)
    for phrase in phrases:
        if not isinstance(phrase, str):
            raise InputError(f"{name} must be text or a list of texts, got {phrase!r}")
        if not phrase.strip():
            raise InputError(f"{name}: the text is empty; name what to look for")
        try:
            phrase.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{name}: {phrase!r} is not valid Unicode text") from error
    return tuple(dict.fromkeys(phrase.strip() for phrase in phrases))
