"""The objects that a user has collected on one picture, as one value, and its edits.

Every edit returns a new collection; nothing is changed in place, so that a history of collections
shares what they have in common.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from ...models.errors import InputError
from ...pipeline.compact_mask import CompactMask
from ...pipeline.drawing import PALETTE
from ...pipeline.result import Result
from ..service.limits import MAX_LABEL, MAX_OBJECTS, check_text
from .painting import difference, union

DEFAULT_LABEL = "object"
# What the page's colour picker gives: "#RRGGBB", or "rgba(r, g, b, a)" with fractions.
_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_RGB = re.compile(r"rgba?\(\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*(?:,\s*[\d.]+\s*)?\)")


@dataclass(frozen=True)
class Scores:
    """The scores of a mask as it was found; all are 1 for what was painted by hand.

    Attributes:
        score: The combined one.
        iou: The IoU token's estimate.
        stability: In [0, 1].
        prompt: How well the prompt matched.
    """

    score: float = 1.0
    iou: float = 1.0
    stability: float = 1.0
    prompt: float = 1.0


@dataclass(frozen=True)
class CollectedObject:
    """One object of a collection.

    Attributes:
        number: What it is known by; of one collection, never given twice.
        label: What it is called.
        color: "#RRGGBB".
        mask: Its pixels.
        origin: How it was found: "phrase", "example", "clicks", "everything" or "painted".
        scores: Of the mask as it was found.
        edited: Whether the mask was changed since.
        hidden: Whether it is left out of the picture on the page.
    """

    number: int
    label: str
    color: str
    mask: CompactMask
    origin: str
    scores: Scores = Scores()
    edited: bool = False
    hidden: bool = False


@dataclass(frozen=True)
class Collection:
    """Objects in the order in which they were added.

    Attributes:
        objects: The objects.
        made: How many were ever added; the next one has the number ``made + 1``.
    """

    objects: tuple[CollectedObject, ...] = ()
    made: int = 0

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the objects."""
        return [item.number for item in self.objects]

    def pick(self, numbers: Iterable[int]) -> list[CollectedObject]:
        """Return the objects with these numbers; those that are gone are left out."""
        wanted = set(numbers)
        return [item for item in self.objects if item.number in wanted]

    def add(
        self,
        masks: Sequence[CompactMask],
        labels: Sequence[str],
        scores: Sequence[Scores],
        origin: str,
    ) -> Collection:
        """Return the collection with further objects; empty masks are left out.

        Raises:
            InputError: They are too many, or a label is too long.
        """
        added: list[CollectedObject] = []
        for mask, label, score in zip(masks, labels, scores, strict=True):
            if mask.area:
                number = self.made + len(added) + 1
                name = read_label(label) or DEFAULT_LABEL
                color = color_of(number)
                added.append(CollectedObject(number, name, color, mask, origin, score))
        if len(self) + len(added) > MAX_OBJECTS:
            raise InputError(
                f"{len(self) + len(added)} objects are too many; collect at most {MAX_OBJECTS}"
            )
        return Collection((*self.objects, *added), self.made + len(added))

    def rename(self, numbers: Sequence[int], label: str) -> Collection:
        """Return the collection with another label for some objects.

        Raises:
            InputError: None is there, or the label is empty or too long.
        """
        name = read_label(label)
        if not name:
            raise InputError("a label cannot be empty")
        return self._with(replace(item, label=name) for item in self._some(numbers))

    def recolor(self, numbers: Sequence[int], color: str) -> Collection:
        """Return the collection with another colour for some objects.

        Raises:
            InputError: None is there, or it is not a colour.
        """
        value = read_color(color)
        return self._with(replace(item, color=value) for item in self._some(numbers))

    def hide(self, numbers: Sequence[int]) -> Collection:
        """Return the collection with some objects hidden, or shown again if all of them are.

        Raises:
            InputError: None is there.
        """
        some = self._some(numbers)
        hidden = not all(item.hidden for item in some)
        return self._with(replace(item, hidden=hidden) for item in some)

    def delete(self, numbers: Sequence[int]) -> Collection:
        """Return the collection without some objects.

        Raises:
            InputError: None is there.
        """
        gone = {item.number for item in self._some(numbers)}
        left = tuple(item for item in self.objects if item.number not in gone)
        return replace(self, objects=left)

    def merge(self, numbers: Sequence[int]) -> Collection:
        """Return the collection with some objects made one: the first, with all their pixels.

        Raises:
            InputError: There are fewer than two.
        """
        some = self.pick(numbers)
        if len(some) < 2:
            raise InputError("choose two or more objects to merge")
        first, *others = some
        whole = replace(first, mask=union([item.mask for item in some]), edited=True)
        return self._with([whole]).delete([item.number for item in others])

    def stroke(self, numbers: Sequence[int], area: CompactMask, erase: bool) -> Collection:
        """Return the collection after a brush stroke over some pixels.

        Args:
            numbers: The object that gets or loses the pixels; without one a new object is made.
                An object that has no pixels left goes.
            area: The pixels.
            erase: Whether they are taken away.

        Raises:
            InputError: Several objects are chosen, or none to erase from.
        """
        some = self.pick(numbers)
        if len(some) > 1:
            raise InputError("choose one object to paint on")
        if not some:
            if erase:
                raise InputError("choose the object to erase from")
            return self.add([area], [DEFAULT_LABEL], [Scores()], "painted")
        (item,) = some
        mask = difference(item.mask, area) if erase else union([item.mask, area])
        if mask == item.mask:
            return self
        if not mask.area:
            return self.delete([item.number])
        edited = item.origin != "painted"
        return self._with([replace(item, mask=mask, edited=edited)])

    def to_result(self, size: tuple[int, int]) -> Result:
        """Return the objects, hidden ones included, as a result for an export.

        Args:
            size: (H, W) of the picture.
        """
        rows = [astuple(item.scores) for item in self.objects]
        scores = np.array(rows, np.float32).reshape(-1, 4)
        return Result(
            image_size=size,
            compact_masks=tuple(item.mask for item in self.objects),
            labels=[item.label for item in self.objects],
            scores=scores[:, 0],
            iou_predictions=scores[:, 1],
            stability_scores=scores[:, 2],
            prompt_scores=scores[:, 3],
        )

    def _some(self, numbers: Sequence[int]) -> list[CollectedObject]:
        some = self.pick(numbers)
        if not some:
            raise InputError("choose an object first")
        return some

    def _with(self, changed: Iterable[CollectedObject]) -> Collection:
        new = {item.number: item for item in changed}
        return replace(self, objects=tuple(new.get(item.number, item) for item in self.objects))


def color_of(number: int) -> str:
    """Return the colour that an object has at first."""
    return PALETTE[(number - 1) % len(PALETTE)]


def read_label(text: str) -> str:
    """Return a label on one line; it may be empty.

    Raises:
        InputError: It is too long.
    """
    return " ".join(check_text("the label", text, MAX_LABEL).split())


def read_color(text: str) -> str:
    """Return a colour as "#RRGGBB".

    Raises:
        InputError: It is not a colour.
    """
    if _HEX.fullmatch(text):
        return text.upper()
    found = _RGB.fullmatch(text)
    try:
        channels = [round(float(value)) for value in found.groups()] if found else []
    except (OverflowError, ValueError):
        channels = []
    if not channels or max(channels) > 255:
        raise InputError(f"{text[:30]!r} is not a colour; give one as #RRGGBB")
    return "#" + "".join(f"{value:02X}" for value in channels)
