"""The page: its layout, and what each way of asking does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from ...models.errors import InputError
from . import views
from .actions import (
    Draft,
    add_mark,
    everything_request,
    open_picture,
    plainly,
    reference_requests,
    tell,
    text_request,
)
from .api import add_endpoints
from .desk import Desk, read_numbers, search
from .downloads import add_downloads
from .edits import wire_edits
from .engine import Engine
from .example import wire_example
from .lanes import cancelling, in_browser, quickly, slowly
from .request import MarkHistory, Request, Setup
from .restore import wire_restore
from .results import STAGE, ResultView, Thresholds, Updates, least_presence
from .sheet import Sheet
from .shelf import Shelf
from .stage import set_data
from .tabs import Controls, describe_preset, make_controls
from .thresholds import wire_thresholds

STYLE = Path(__file__).with_name("page.css")
_TITLE = (
    '<div class="title"><h1>promptseg</h1>'
    "<p>Type, show or click what you want, and get ranked masks.</p></div>"
)


def make_page(engine: Engine, setup: Setup, *, keep_seconds: int) -> gr.Blocks:
    """Return the app.

    Args:
        engine: Answers requests.
        setup: The models selected at first.
        keep_seconds: How long uploads, files made for download, and what was done are kept.
    """
    every = min(600, keep_seconds)
    page = gr.Blocks(
        title="promptseg",
        analytics_enabled=False,
        delete_cache=(every, keep_seconds),
        fill_width=True,
    )
    with page:
        gr.HTML(_TITLE)
        with gr.Row(elem_id="halves"):
            with gr.Column(scale=4, min_width=320, elem_id="left"):
                controls = make_controls(setup)
            with gr.Column(scale=7, min_width=320, elem_id="right"):
                view = ResultView(engine)
                desk = Desk(engine, Shelf(keep_seconds), controls, view)
                add_downloads(desk)
        _wire_pictures(desk)
        wire_example(engine, controls.reference)
        searches = [*_wire_text(desk), _wire_reference(desk), _wire_everything(desk)]
        cancelling(view.cancel, searches, _cancelled, [view.headline])
        _wire_clicks(desk)
        wire_edits(desk)
        wire_thresholds(desk)
        _wire_choices(controls)
        wire_restore(page, desk)
        add_endpoints(engine, setup)
    return page


def _cancelled() -> str:
    return views.message("Cancelled.")


def _wire_pictures(desk: Desk) -> None:
    picture = desk.controls.picture

    @plainly
    def change(
        key: str, chosen: Any, min_score: float, top_k: float, part: str, value: str | None
    ) -> Updates:
        thresholds = Thresholds(min_score, top_k)
        there = Path(value) if value else None
        if desk.sheet(key).picture == there:
            # The page has shown the sheet's own picture, or a picture that could not be read was
            # taken away: nothing changes.
            return {desk.key: key}
        if value is None:
            return desk.take(key, lambda _: Sheet(), thresholds)
        photo, words = open_picture(desk.engine, value)
        if photo is None:
            updates = desk.take(key, lambda _: Sheet(), thresholds)
            failed = views.message(views.as_html(words), "error")
            return {**updates, desk.view.headline: failed, picture: None}
        updates = desk.take(key, lambda _: Sheet(there), thresholds, photo=photo)
        if words:
            updates[desk.view.headline] = views.message(views.as_html(words))
        return {name: value for name, value in updates.items() if name is not picture}

    quickly(
        picture.change,
        change,
        [*desk.inputs, picture],
        [desk.key, *desk.outputs],
        latest=True,
    )


def _wire_text(desk: Desk) -> list[Any]:
    controls, view = desk.controls, desk.view
    text, models = controls.text, controls.models

    @plainly
    def find(
        key: str,
        chosen: Any,
        min_score: float,
        top_k: float,
        part: str,
        preset: str,
        device: str,
        picture: str | None,
        phrases: str,
        negatives: str,
        own_presence: bool,
        min_presence: float,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        least = least_presence(own_presence, min_presence)
        request = text_request(Setup(preset, device), picture, phrases, negatives, least)
        return _find(desk, key, chosen, (min_score, top_k), picture, (request,), bar)

    inputs = [*desk.inputs, models.preset, models.device, controls.picture]
    inputs += [text.phrases, text.negatives, *view.presence]
    return [
        slowly(event, find, inputs, desk.outputs, view.headline)
        for event in (text.find.click, text.phrases.submit, text.negatives.submit)
    ]


def _wire_reference(desk: Desk) -> Any:
    controls, view = desk.controls, desk.view
    tab, models = controls.reference, controls.models

    @plainly
    def find(
        key: str,
        chosen: Any,
        min_score: float,
        top_k: float,
        part: str,
        preset: str,
        device: str,
        picture: str | None,
        example: str | None,
        draft: Draft,
        mask: str | None,
        label: str | None,
        more: list[str] | None,
        own_presence: bool,
        min_presence: float,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        least = least_presence(own_presence, min_presence)
        requests = reference_requests(
            Setup(preset, device), picture, example, draft, mask, label, more, least
        )
        return _find(desk, key, chosen, (min_score, top_k), picture, requests, bar)

    inputs = [*desk.inputs, models.preset, models.device, controls.picture, tab.picture]
    inputs += [tab.draft, tab.mask, tab.label, tab.more, *view.presence]
    return slowly(tab.find.click, find, inputs, desk.outputs, view.headline)


def _wire_everything(desk: Desk) -> Any:
    controls, view = desk.controls, desk.view

    @plainly
    def find(
        key: str,
        chosen: Any,
        min_score: float,
        top_k: float,
        part: str,
        preset: str,
        device: str,
        picture: str | None,
        points: float,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        request = everything_request(Setup(preset, device), picture, points)
        return _find(desk, key, chosen, (min_score, top_k), picture, (request,), bar)

    inputs = [*desk.inputs, controls.models.preset, controls.models.device, controls.picture]
    tab = controls.everything
    return slowly(tab.find.click, find, [*inputs, tab.points_per_side], desk.outputs, view.headline)


def _find(
    desk: Desk,
    key: str,
    chosen: Any,
    ranking: tuple[float, float],
    picture: str | None,
    requests: tuple[Request, ...],
    bar: gr.Progress,
) -> Updates:
    """Search, and show what was found."""
    thresholds = Thresholds(*ranking)
    before = desk.sheet(key).picture
    answers = desk.view.find(requests, thresholds, tell(bar))

    def step(sheet: Sheet) -> Sheet:
        if sheet.picture != before:
            raise InputError("the picture was changed during the search; search again")
        return search(sheet, Path(picture) if picture else None, requests)

    return desk.take(key, step, thresholds, read_numbers(chosen), answers=answers)


def _wire_clicks(desk: Desk) -> None:
    tab, models, stage = desk.controls.click, desk.controls.models, desk.view.stage

    def answer(
        key: str, chosen: Any, ranking: tuple[float, float], marks: MarkHistory, setup: Setup
    ) -> Updates:
        thresholds = Thresholds(*ranking)
        marked = desk.sheet(key).mark(marks, setup)
        request = marked.shown.request
        answers = None
        if request is not None and request.is_answerable:
            answers = desk.view.find((request,), thresholds, _quiet)
        return desk.take(
            key, lambda sheet: sheet.mark(marks, setup), thresholds, read_numbers(chosen),
            answers=answers,
        )  # fmt: skip

    @plainly
    def mark(
        key: str,
        chosen: Any,
        min_score: float,
        top_k: float,
        part: str,
        preset: str,
        device: str,
        event: gr.EventData,
    ) -> Updates:
        marks = add_mark(desk.sheet(key).marks, event)
        return answer(key, chosen, (min_score, top_k), marks, Setup(preset, device))

    @plainly
    def clear(
        key: str,
        chosen: Any,
        min_score: float,
        top_k: float,
        part: str,
        preset: str,
        device: str,
    ) -> Updates:
        return answer(key, chosen, (min_score, top_k), MarkHistory(), Setup(preset, device))

    inputs = [*desk.inputs, models.preset, models.device]
    quickly(stage.marked, mark, inputs, desk.outputs)
    quickly(tab.clear.click, clear, inputs, desk.outputs)
    in_browser(tab.tool.change, tab.tool, set_data(STAGE, "tool"))


def _wire_choices(controls: Controls) -> None:
    controls.models.preset.change(
        describe_preset,
        [controls.models.preset],
        [controls.models.note],
        show_progress="hidden",
        api_visibility="private",
    )
    # What the pointer does on the stage depends on the tab: mark, edit, or only show and choose.
    controls.tabs.select(
        None,
        None,
        None,
        js=f"""() => setTimeout(() => {{
            const open = (id) => document.querySelector(id)?.checkVisibility() ?? false;
            const mode = open('#click-tool') ? 'mark' : open('#edit-tool') ? 'edit' : 'view';
            document.querySelector('#{STAGE} .stage').dataset.mode = mode;
        }}, 50)""",
        api_visibility="private",
    )


def _quiet(what: str) -> None:
    """Report nothing: clicks are answered too quickly for progress."""
