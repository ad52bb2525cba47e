"""What a user has done on the page, as one value, and its history.

Every step returns a new value; what is shown is computed from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...models.errors import InputError
from ...pipeline.result import Result
from ..service.limits import MAX_STEPS, MAX_WORK_BYTES
from .collection import DEFAULT_LABEL, Collection, Scores
from .request import NO_MARKS, MarkHistory, Request, Setup

# What a step weighs beside its masks and paintings, and an object beside its mask.
_SHEET_BYTES, _OBJECT_BYTES = 2_000, 400


@dataclass(frozen=True)
class Shown:
    """The answers on the page.

    Attributes:
        requests: One for each picture searched; empty before the first search.
        index: The request whose answer is on the stage.
    """

    requests: tuple[Request, ...] = ()
    index: int = 0

    @property
    def request(self) -> Request | None:
        """The request whose answer is on the stage."""
        return self.requests[self.index] if self.requests else None


@dataclass(frozen=True)
class Sheet:
    """A picture, what was asked of it, and what was collected.

    Attributes:
        picture: The file that was uploaded.
        shown: The answers.
        collections: The objects collected on each picture.
    """

    picture: Path | None = None
    shown: Shown = Shown()
    collections: Mapping[Path, Collection] = field(default_factory=dict)

    @property
    def on_stage(self) -> Path | None:
        """The picture on the stage: the one uploaded, or another one that was searched."""
        request = self.shown.request
        return self.picture if request is None else request.picture

    @property
    def objects(self) -> Collection:
        """The objects collected on the picture on the stage."""
        return self.collections.get(self.on_stage, Collection()) if self.on_stage else Collection()

    @property
    def marks(self) -> MarkHistory:
        """The clicks and boxes on the picture on the stage."""
        request = self.shown.request
        return NO_MARKS if request is None else request.marks

    def mark(self, marks: MarkHistory, setup: Setup) -> Sheet:
        """Return the sheet with other marks on the picture on the stage.

        Raises:
            InputError: There is no picture.
        """
        if self.on_stage is None:
            raise InputError("upload a picture first")
        if not marks and self.on_stage == self.picture:
            return replace(self, shown=Shown())
        # Of another picture that was searched, a request without marks keeps it on the stage.
        return replace(self, shown=Shown((Request(setup, self.on_stage, marks=marks),)))

    def with_objects(self, objects: Collection) -> Sheet:
        """Return the sheet with another collection for the picture on the stage.

        Raises:
            InputError: There is no picture.
        """
        if self.on_stage is None:
            raise InputError("upload a picture first")
        if objects == self.objects:
            return self
        return replace(self, collections={**self.collections, self.on_stage: objects})


@dataclass(frozen=True)
class History:
    """A sheet with the steps that led to it, so that they can be undone and redone.

    Attributes:
        present: The sheet.
        past: Earlier sheets, the latest last; at most MAX_STEPS.
        future: Sheets that were undone, the latest first.
    """

    present: Sheet = field(default_factory=Sheet)
    past: tuple[Sheet, ...] = ()
    future: tuple[Sheet, ...] = ()

    def do(self, sheet: Sheet) -> History:
        """Return the history with one more step; the oldest ones go if they take too much memory.

        Raises:
            InputError: The sheet alone takes too much memory.
        """
        if sheet == self.present:
            return self
        if weigh([sheet]) > MAX_WORK_BYTES:
            raise InputError(
                f"the objects take more than {MAX_WORK_BYTES // 2**20} MB; download them and "
                "delete some"
            )
        past = (*self.past, self.present)[-MAX_STEPS:]
        while past and weigh([*past, sheet]) > MAX_WORK_BYTES:
            past = past[1:]
        return History(sheet, past)

    def replace(self, sheet: Sheet) -> History:
        """Return the history with another present, which is no step of its own."""
        return replace(self, present=sheet)

    def undo(self) -> History:
        """Return the history before the latest step; unchanged if there is none."""
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (self.present, *self.future))

    def redo(self) -> History:
        """Return the history after the step that was undone; unchanged if there is none."""
        if not self.future:
            return self
        return History(self.future[0], (*self.past, self.present), self.future[1:])

    @property
    def sheets(self) -> Sequence[Sheet]:
        """All sheets."""
        return (*self.past, self.present, *self.future)


def weigh(sheets: Sequence[Sheet]) -> int:
    """Return about how many bytes sheets take; what they share counts once."""
    collections = {id(value): value for sheet in sheets for value in sheet.collections.values()}
    objects = {id(item): item for value in collections.values() for item in value.objects}
    masks = {id(item.mask): len(item.mask.counts) for item in objects.values()}
    requests = {id(item): item for sheet in sheets for item in sheet.shown.requests}
    painted = {
        id(item.example.painted): len(item.example.painted)
        for item in requests.values()
        if item.example is not None and item.example.painted is not None
    }
    own = _SHEET_BYTES * (len(sheets) + len(requests)) + _OBJECT_BYTES * len(objects)
    own += sum(8 * len(value) for value in collections.values())
    return own + sum(masks.values()) + sum(painted.values())


def collect(sheet: Sheet, found: Result, label: str) -> Sheet:
    """Return the sheet with the masks of its answer added to its objects, and no answer any more.

    Args:
        sheet: The sheet.
        found: Its answer.
        label: What to call the objects; empty for their phrases.

    Raises:
        InputError: There is nothing to add, or too much.
    """
    request = sheet.shown.request
    if request is None or not len(found):
        raise InputError("there is nothing to add yet; find or click something first")
    own = found.labels if request.wanted else [DEFAULT_LABEL] * len(found)
    columns = (found.scores, found.iou_predictions, found.stability_scores, found.prompt_scores)
    scores = [Scores(*map(float, row)) for row in zip(*columns, strict=True)]
    labels = [label.strip() or name for name in own]
    objects = sheet.objects.add(found.compact_masks, labels, scores, request.origin)
    return sheet.with_objects(objects).mark(NO_MARKS, request.setup)
