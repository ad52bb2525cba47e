"""One page's components as a whole: shows the sheet that the server keeps for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from ...models.errors import InputError, PromptsegError
from ..service.limits import MAX_OBJECTS
from . import views
from .collection import Collection
from .engine import Engine
from .request import Request
from .results import Answers, ResultView, Thresholds, Updates
from .sheet import History, Sheet, Shown
from .shelf import Shelf
from .tabs import Controls

Step = Callable[[Sheet], Sheet]


class Desk:
    """Takes steps for a page and shows what they change; create it inside a Blocks context.

    Args:
        engine: Answers requests.
        shelf: Keeps what was done.
        controls: The left half of the page.
        view: The right half.
    """

    def __init__(self, engine: Engine, shelf: Shelf, controls: Controls, view: ResultView) -> None:
        self.engine = engine
        self.shelf = shelf
        self.controls = controls
        self.view = view
        self.key = gr.State("")

    @property
    def inputs(self) -> list[Any]:
        """The inputs of :meth:`take`: the page's key, the chosen objects and the thresholds."""
        return [self.key, self.controls.edit.items, *self.view.thresholds]

    @property
    def outputs(self) -> list[Any]:
        """The components that a step may change."""
        view = self.view
        own = [self.controls.picture, view.undo, view.redo, view.add_label]
        return [*view.outputs, *self.controls.edit.outputs, *own]

    def sheet(self, key: str) -> Sheet:
        """Return a page's sheet.

        Raises:
            InputError: It is no longer kept.
        """
        return self.shelf.get(key).present

    def size(self, sheet: Sheet) -> tuple[int, int]:
        """Return (H, W) of the picture on the stage.

        Raises:
            InputError: There is none, or it is no longer on the server.
        """
        if sheet.on_stage is None:
            raise InputError("upload a picture first")
        if len(sheet.objects):
            return sheet.objects.objects[0].mask.size
        height, width = self.engine.read(sheet.on_stage).shape[:2]
        return height, width

    def take(
        self,
        key: str,
        step: Step,
        thresholds: Thresholds,
        chosen: Sequence[int] = (),
        *,
        answers: Answers | None = None,
        photo: dict[str, Any] | None = None,
    ) -> Updates:
        """Take a step, and return what it changes on the page.

        Args:
            key: The page's key.
            step: Returns the next sheet.
            thresholds: Which masks of its answer to show.
            chosen: Numbers of the objects that are chosen afterwards.
            answers: The sheet's answers, if they were just computed.
            photo: The picture on the stage, if it was just read.

        Raises:
            InputError: The step is refused.
        """
        return self._change(
            key,
            lambda history: history.do(step(history.present)),
            thresholds,
            chosen,
            answers,
            photo,
        )

    def move(
        self,
        key: str,
        move: Callable[[History], History],
        thresholds: Thresholds,
        chosen: Sequence[int] = (),
    ) -> Updates:
        """Undo or redo a step, or look at another answer; return what that changes on the page.

        Raises:
            InputError: The sheet is no longer kept.
        """
        return self._change(key, move, thresholds, chosen)

    def draw(
        self,
        history: History,
        thresholds: Thresholds,
        chosen: Sequence[int] = (),
        *,
        before: Sheet | None = None,
        answers: Answers | None = None,
        photo: dict[str, Any] | None = None,
        answered: bool = True,
    ) -> Updates:
        """Return updates that show a history's present.

        Args:
            history: The history.
            thresholds: Which masks of its answer to show.
            chosen: Numbers of the chosen objects.
            before: What the page shows; None if it shows nothing yet.
            answers: The answers, if they were just computed.
            photo: The picture on the stage, if it was just read.
            answered: Whether to show the answer, too.
        """
        sheet = history.present
        _keep(sheet)
        updates: Updates = {
            self.view.undo: gr.Button(interactive=bool(history.past)),
            self.view.redo: gr.Button(interactive=bool(history.future)),
        }
        stage: dict[str, Any] = {}
        moved = before is None or before.on_stage != sheet.on_stage
        if moved:
            stage["photo"] = photo or self._photo(sheet)
        if before is None or before.picture != sheet.picture:
            there = sheet.picture is not None and sheet.picture.is_file()
            updates[self.controls.picture] = str(sheet.picture) if there else None
        if not answered:
            stage["value"] = views.stage_masks(None, sheet.marks)
        elif before is None or moved or answers is not None or before.shown != sheet.shown:
            shown, stage["value"] = self.view.draw(sheet, thresholds, answers=answers)
            updates |= shown
            if before is None or before.shown.requests != sheet.shown.requests:
                updates[self.view.pictures] = self.view.thumbnails(sheet, answers)
        if moved or before is None or before.objects != sheet.objects:
            seen = Collection() if moved or before is None else before.objects
            stage["objects"] = views.stage_objects(sheet.objects, seen)
        stage["chosen"] = [item.number for item in sheet.objects.pick(chosen)]
        updates |= self.controls.edit.draw(sheet.objects, stage["chosen"])
        updates[self.view.stage] = gr.HTML(**stage)
        return updates

    def _change(
        self,
        key: str,
        change: Callable[[History], History],
        thresholds: Thresholds,
        chosen: Sequence[int],
        answers: Answers | None = None,
        photo: dict[str, Any] | None = None,
    ) -> Updates:
        before = Sheet()

        def remember(history: History) -> History:
            nonlocal before
            before = history.present
            return change(history)

        after = self.shelf.change(key, remember)
        return self.draw(after, thresholds, chosen, before=before, answers=answers, photo=photo)

    def _photo(self, sheet: Sheet) -> dict[str, Any] | None:
        """Return the picture on the stage; None if there is none, or if it was deleted."""
        if sheet.on_stage is None:
            return None
        try:
            return views.stage_photo(self.engine.read(sheet.on_stage), sheet.on_stage.name)
        except PromptsegError:
            return None


def _keep(sheet: Sheet) -> None:
    """Make a sheet's pictures young, so that they are deleted no earlier than the sheet itself."""
    for path in {sheet.picture, sheet.on_stage, *sheet.collections} - {None}:
        with contextlib.suppress(OSError):
            os.utime(str(path))


def read_numbers(chosen: Any) -> list[int]:
    """Return the numbers of chosen objects from what the browser sent.

    Raises:
        InputError: They are no numbers, or too many.
    """
    if chosen is None:
        return []
    if not isinstance(chosen, list) or len(chosen) > MAX_OBJECTS:
        raise InputError("the chosen objects could not be read; choose them again")
    try:
        return [int(str(number)[:12]) for number in chosen]
    except ValueError as error:
        raise InputError("the chosen objects could not be read; choose them again") from error


def search(sheet: Sheet, picture: Path | None, requests: tuple[Request, ...]) -> Sheet:
    """Return the sheet with the answers of a search.

    Args:
        sheet: The sheet.
        picture: The uploaded picture, which the sheet may not have heard of yet.
        requests: What was searched.
    """
    if picture != sheet.picture:
        sheet = Sheet(picture)
    return replace(sheet, shown=Shown(requests))
