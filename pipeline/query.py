"""What is asked of an image: phrases, examples, points and boxes, read and checked once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..models.errors import InputError
from .checks import Numbers, set_field
from .marks import Marks
from .prompters.evidence import check_least
from .prompters.reference.examples import (
    LABEL,
    EncodedReference,
    Reference,
    ReferenceQuery,
    read_references,
)

Phrases = str | Sequence[str] | None
_NEGATION = re.compile(r"(?:not|without)\s+(?:(?:a|an|the|any)\s+)?", re.IGNORECASE)
_SEPARATORS = re.compile(r"[,;\r\n]|\.+(?=\s|$)")


@dataclass(frozen=True, eq=False, init=False)
class Query:
    """What to look for, checked as far as it can be without the image.

    Args:
        text: One or several phrases, each found independently. One text may hold several, as
            :func:`split_phrases` reads them.
        negative_text: Masks that lie on what these phrases name are dropped.
        reference: One or several examples of what to look for, encoded or not; examples with the
            same label show the same thing. With text, an example belongs to the phrase that it is
            labelled with, or to the only phrase.
        negative_reference: Examples of what not to find, such as lookalikes. With a reference,
            masks that resemble these more than the reference are dropped; without one, masks that
            lie on what these examples find.
        points: (N, 2) in pixels of the image, (x, y); or one point, (2,).
        point_labels: (N,): 1 foreground, 0 background; all foreground by default.
        boxes: (B, 4) XYXY in pixels of the image; or one box, (4,).
        min_presence: How sure it must be, in [0, 1], that what text and references mean is in the
            image at all; 0 looks for it anyway. By default the preset's own threshold decides. It
            does not apply to negative text and references.

    Attributes:
        text: The phrases, stripped and without duplicates.
        negative_text: Likewise.
        reference: The examples.
        negative_reference: Likewise.
        marks: The points and boxes.
        min_presence: Minimum presence; None for the preset's own.

    Raises:
        InputError: An argument has the wrong type, shape or value.
    """

    text: tuple[str, ...]
    negative_text: tuple[str, ...]
    reference: tuple[Reference | EncodedReference, ...]
    negative_reference: tuple[Reference | EncodedReference, ...]
    marks: Marks
    min_presence: float | None

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
        min_presence: float | None = None,
    ) -> None:
        set_field(self, "text", _read_phrases("text", text))
        set_field(self, "negative_text", _read_phrases("negative_text", negative_text))
        for name, given in (
            ("reference", reference),
            ("negative_reference", negative_reference),
        ):
            set_field(self, name, () if given is None else read_references(given, name))
        set_field(self, "marks", Marks.read(points, point_labels, boxes))
        set_field(self, "min_presence", _read_presence(min_presence))

    @property
    def finds(self) -> bool:
        """Whether phrases or examples say what to look for; marks then only choose among masks."""
        return bool(self.text or self.reference)

    def with_references(
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
            min_presence=self.min_presence,
        )

    def unmarked(self) -> Query:
        """Return the same query without points and boxes."""
        return Query(
            self.text,
            negative_text=self.negative_text,
            reference=self.reference or None,
            negative_reference=self.negative_reference or None,
            min_presence=self.min_presence,
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
    """Split examples into those that belong to a phrase, by phrase, and the others.

    An example belongs to the phrase that it is labelled with, or, without a label, to the only
    phrase, with which it is then labelled. The others are queries of their own.

    Raises:
        InputError: It is not clear which phrase an example belongs to.
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
            raise InputError(
                f"some examples of {phrase!r} have no label; label all of them {phrase!r}"
            )
        else:
            pairs[phrase] = replace(reference, label=phrase)
    return pairs, others


def split_phrases(text: str) -> tuple[str, ...]:
    """Return the phrases of a text, without duplicates, in their order.

    Commas, semicolons, line breaks and full stops at the end of a word separate them, as detectors'
    captions and people's lists have them; of white space a single space is left.
    """
    parts = (" ".join(part.split()) for part in _SEPARATORS.split(text))
    return tuple(dict.fromkeys(part for part in parts if part))


def _read_presence(value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise InputError(f"min_presence must be a number between 0 and 1, not {value!r}")
    check_least("min_presence", value)
    return float(value)


def _read_phrases(name: str, value: Phrases) -> tuple[str, ...]:
    """Return checked phrases, without duplicates, in their order."""
    if value is None:
        return ()
    if not isinstance(value, Iterable):
        raise InputError(f"{name} must be text or a list of texts, got {value!r}")
    phrases: list[str] = []
    for text in [value] if isinstance(value, str) else list(value):
        if not isinstance(text, str):
            raise InputError(f"{name} must be text or a list of texts, got {text!r}")
        found = split_phrases(text)
        if not found:
            raise InputError(f"{name}: the text is empty; name what to look for")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{name}: {text!r} is not valid Unicode text") from error
        for phrase in found:
            negated = _NEGATION.match(phrase)
            if negated:
                raise InputError(
                    f"{phrase!r}: a phrase names what is there; give "
                    f"{phrase[negated.end() :]!r} as a negative phrase instead"
                )
        phrases += found
    return tuple(dict.fromkeys(phrases))
