"""How the object in an example is marked: what the second stage of the page does."""

from __future__ import annotations

from typing import Any

import gradio as gr

from . import views
from .actions import Draft, add_mark, open_picture, plainly, read_painting
from .engine import Engine
from .lanes import in_browser, quickly
from .request import MarkHistory
from .results import Updates
from .stage import set_data
from .tabs import EXAMPLE_STAGE, ReferenceTab


def wire_example(engine: Engine, tab: ReferenceTab) -> None:
    """Wire the example's picture, its marks and its paint."""
    empty: dict[str, Any] = views.stage_masks(None)

    @plainly
    def change(value: str | None) -> Updates:
        if not value:
            return {tab.stage: gr.HTML(value=empty, photo=None), tab.draft: Draft()}
        photo, _ = open_picture(engine, value)
        updates = {tab.stage: gr.HTML(value=empty, photo=photo), tab.draft: Draft()}
        return updates if photo is not None else {**updates, tab.picture: None}

    @plainly
    def mark(draft: Draft, event: gr.EventData) -> Updates:
        # An example is one object: a mark replaces a painting, and clicks and a box each other.
        marks = add_mark(draft.marks, event)
        if marks.boxes:
            marks = MarkHistory(marks.steps[-1:])
        value = {**views.stage_masks(None, marks), "clear_paint": True}
        return {tab.stage: value, tab.draft: Draft(marks)}

    @plainly
    def paint(event: gr.EventData) -> Updates:
        draft = Draft(painted=read_painting(event))
        return {tab.stage: {**empty, "painted": True}, tab.draft: draft}

    def clear() -> Updates:
        return {tab.stage: {**empty, "clear_paint": True}, tab.draft: Draft()}

    drawn = [tab.stage, tab.draft]
    quickly(tab.picture.change, change, [tab.picture], [*drawn, tab.picture])
    quickly(tab.stage.marked, mark, [tab.draft], drawn)
    quickly(tab.stage.painted, paint, [], drawn)
    quickly(tab.clear.click, clear, [], drawn)
    in_browser(tab.tool.change, tab.tool, set_data(EXAMPLE_STAGE, "tool"))
    in_browser(tab.brush.change, tab.brush, set_data(EXAMPLE_STAGE, "brush"))
