"""What collects objects and edits them: the buttons below the stage, the Edit tab, and strokes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ...models.errors import InputError
from . import views
from .actions import plainly
from .collection import Collection, read_color
from .desk import Desk, read_numbers
from .lanes import in_browser, quickly
from .painting import Stroke
from .results import STAGE, Thresholds, Updates
from .sheet import History, Sheet, collect
from .stage import set_data

# Tells the stage that what it shows of a stroke is no longer needed.
_ANSWERED = f"""() => {{
    document.querySelector('#{STAGE} .stage').dispatchEvent(new Event('answered'));
}}"""
# From a collection, the chosen numbers and what a component says to the next collection.
_Edit = Callable[[Collection, list[int], Any], Collection]


def wire_edits(desk: Desk) -> None:
    """Wire everything that collects objects or edits them."""
    tab = desk.controls.edit
    _wire_history(desk)
    _wire_choice(desk)
    stage = desk.view.stage
    stroked = quickly(stage.stroked, _stroke_handler(desk), desk.inputs, desk.outputs)
    stroked.then(None, None, None, js=_ANSWERED, api_visibility="private")
    quickly(stage.lacking, _resend_handler(desk), [desk.key], [stage])
    for event, own, edit in (
        (tab.label.submit, tab.label, Collection.rename),
        (tab.color.release, tab.color, _recolor),
        (tab.color.blur, tab.color, _recolor),  # after a colour was typed
        (tab.hide.click, None, lambda objects, chosen, _: objects.hide(chosen)),
        (tab.merge.click, None, lambda objects, chosen, _: objects.merge(chosen)),
        (tab.delete.click, None, lambda objects, chosen, _: objects.delete(chosen)),
        (stage.deleted, None, lambda objects, chosen, _: objects.delete(chosen)),
    ):
        inputs = [*desk.inputs, *([own] if own is not None else [])]
        quickly(event, _edit_handler(desk, edit), inputs, desk.outputs)
    for component, name in ((tab.tool, "edit"), (tab.brush, "brush")):
        in_browser(component.change, component, set_data(STAGE, name))


def _recolor(objects: Collection, chosen: list[int], color: str) -> Collection:
    """Return the collection with a colour, unless the picker only shows that of the first."""
    some = objects.pick(chosen)
    if not some or read_color(color) == some[0].color:
        return objects
    return objects.recolor(chosen, color)


def _wire_history(desk: Desk) -> None:
    view = desk.view

    @plainly
    def add(
        key: str, chosen: Any, min_score: float, top_k: float, part: str, label: str | None
    ) -> Updates:
        thresholds = Thresholds(min_score, top_k, part)
        seen = desk.sheet(key)
        found = view.chosen(seen, thresholds)

        def step(sheet: Sheet) -> Sheet:
            if found is None or sheet.shown != seen.shown:
                raise InputError("there is nothing to add yet; find or click something first")
            return collect(sheet, found, label or "")

        updates = desk.take(key, step, Thresholds(min_score, top_k))
        added = views.added(desk.sheet(key).objects, 0 if found is None else len(found))
        return {**updates, view.headline: added, view.add_label: ""}

    def mover(move: Callable[[History], History]) -> Callable[..., Updates]:
        @plainly
        def handler(key: str, chosen: Any, min_score: float, top_k: float, part: str) -> Updates:
            return desk.move(key, move, Thresholds(min_score, top_k), read_numbers(chosen))

        return handler

    quickly(view.add.click, add, [*desk.inputs, view.add_label], desk.outputs)
    quickly(view.add_label.submit, add, [*desk.inputs, view.add_label], desk.outputs)
    quickly(view.undo.click, mover(History.undo), desk.inputs, desk.outputs)
    quickly(view.redo.click, mover(History.redo), desk.inputs, desk.outputs)


def _wire_choice(desk: Desk) -> None:
    tab, stage = desk.controls.edit, desk.view.stage

    def show(key: str, numbers: list[int]) -> Updates:
        objects = desk.sheet(key).objects
        kept = [item.number for item in objects.pick(numbers)]
        return {**tab.draw(objects, kept), stage: gr.HTML(chosen=kept)}

    @plainly
    def choose(key: str, chosen: Any) -> Updates:
        updates = show(key, read_numbers(chosen))
        # The list shows it already, and perhaps what was ticked since.
        return {name: value for name, value in updates.items() if name is not tab.items}

    @plainly
    def point(key: str, chosen: Any, event: gr.EventData) -> Updates:
        """Choose the object that was pointed at, beside others or alone; or none."""
        data = event._data or {}
        before = read_numbers(chosen)
        if data.get("number") is None:
            return show(key, [])
        (number,) = read_numbers([data["number"]])
        if data.get("more"):
            return show(key, [n for n in (*before, number) if n != number or n not in before])
        return show(key, [] if before == [number] else [number])

    inputs = [desk.key, tab.items]
    outputs = [*tab.outputs, stage]
    without = [output for output in outputs if output is not tab.items]
    quickly(tab.items.input, choose, inputs, without, latest=True)
    quickly(stage.picked, point, inputs, outputs)


def _edit_handler(desk: Desk, edit: _Edit) -> Callable[..., Updates]:
    @plainly
    def handler(
        key: str, chosen: Any, min_score: float, top_k: float, part: str, *own: Any
    ) -> Updates:
        numbers = read_numbers(chosen)
        value = str(own[0] or "") if own else ""

        def step(sheet: Sheet) -> Sheet:
            return sheet.with_objects(edit(sheet.objects, numbers, value))

        return desk.take(key, step, Thresholds(min_score, top_k, part), numbers)

    return handler


def _resend_handler(desk: Desk) -> Callable[[str], Updates]:
    @plainly
    def resend(key: str) -> Updates:
        """Send all pictures of the objects again: an answer that had some did not arrive."""
        objects = desk.sheet(key).objects
        return {desk.view.stage: gr.HTML(objects=views.stage_objects(objects))}

    return resend


def _stroke_handler(desk: Desk) -> Callable[..., Updates]:
    @plainly
    def stroke(
        key: str, chosen: Any, min_score: float, top_k: float, part: str, event: gr.EventData
    ) -> Updates:
        data = event._data or {}
        numbers, drawn, erase = read_numbers(chosen), Stroke.read(data), data.get("erase") is True
        seen = desk.sheet(key)
        area = drawn.area(desk.size(seen))
        made = seen.objects.made + 1

        def step(sheet: Sheet) -> Sheet:
            if sheet.on_stage != seen.on_stage:
                raise InputError("the picture was changed meanwhile; paint again")
            return sheet.with_objects(sheet.objects.stroke(numbers, area, erase))

        # A new object is chosen, so that the next stroke goes on with it.
        kept = [*numbers, *([] if erase else [made])]
        return desk.take(key, step, Thresholds(min_score, top_k, part), kept)

    return stroke
