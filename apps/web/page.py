"""The page: its layout, and what each button, click and slider does."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from . import views
from .actions import (
    Draft,
    add_mark,
    open_picture,
    plainly,
    read_painting,
    read_picture,
    reference_requests,
    tell,
    text_request,
)
from .api import add_endpoints
from .downloads import add_downloads
from .engine import Engine
from .request import MarkHistory, Request, Setup
from .results import READY, STAGE, ResultView, Updates, least_presence
from .stage import set_data
from .tabs import EXAMPLE_STAGE, Controls, describe_preset, make_controls
from .thresholds import wire_thresholds

STYLE = Path(__file__).with_name("page.css")
# Two lanes of the queue, with one request at a time in each, so that quick clicks do not wait for
# searches that take seconds.
MODELS, CLICKS = "models", "clicks"
# On a narrow screen the results are below the buttons.
_BRING_INTO_VIEW = """() => {
    if (window.innerWidth < 800)
        document.querySelector('#headline').scrollIntoView({behavior: 'smooth'});
}"""
_TITLE = (
    '<div class="title"><h1>promptseg</h1>'
    "<p>Type, show or click what you want, and get ranked masks.</p></div>"
)


def make_page(engine: Engine, setup: Setup, *, keep_seconds: int) -> gr.Blocks:
    """Return the app.

    Args:
        engine: Answers requests.
        setup: The models selected at first.
        keep_seconds: How long uploads and files made for download are kept.
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
                add_downloads(view)
        _wire_pictures(engine, controls, view)
        _wire_text(controls, view)
        _wire_reference(engine, controls, view)
        _wire_clicks(controls, view)
        _wire_everything(controls, view)
        wire_thresholds(view)
        _wire_choices(controls)
        add_endpoints(engine, setup)
    return page


def _wire_pictures(engine: Engine, controls: Controls, view: ResultView) -> None:
    marks = controls.click.marks

    @plainly
    def change(value: str | None) -> Updates:
        if not value:
            return {**view.clear(photo=True), marks: MarkHistory()}
        photo, words = open_picture(engine, value)
        if photo is None:
            # Clearing the upload calls this again, with None; that call keeps the headline.
            failed = views.message(_as_html(words), "error")
            return {**view.clear(failed, photo=True), marks: MarkHistory(), controls.picture: None}
        headline = views.message(_as_html(words)) if words else READY
        updates = view.clear(headline)
        updates[view.stage] = gr.HTML(value=views.stage_masks(None), photo=photo)
        return {**updates, marks: MarkHistory()}

    controls.picture.change(
        change,
        [controls.picture],
        [*view.outputs, marks, controls.picture],
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )


def _wire_text(controls: Controls, view: ResultView) -> None:
    text, models = controls.text, controls.models

    @plainly
    def find(
        preset: str,
        device: str,
        picture: str | None,
        phrases: str,
        negatives: str,
        own_presence: bool,
        min_presence: float,
        min_score: float,
        top_k: float,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        least = least_presence(own_presence, min_presence)
        request = text_request(Setup(preset, device), picture, phrases, negatives, least)
        return view.find((request,), min_score, top_k, tell(bar))

    inputs = [models.preset, models.device, controls.picture, text.phrases, text.negatives]
    inputs += [*view.presence, view.min_score, view.top_k]
    for event in (text.find.click, text.phrases.submit, text.negatives.submit):
        _slowly(event, find, inputs, view)


def _wire_reference(engine: Engine, controls: Controls, view: ResultView) -> None:
    tab, models = controls.reference, controls.models

    @plainly
    def change(value: str | None) -> Updates:
        empty = views.stage_masks(None)
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
        return {tab.stage: views.stage_masks(None), tab.draft: Draft(painted=read_painting(event))}

    def clear() -> Updates:
        value = {**views.stage_masks(None), "clear_paint": True}
        return {tab.stage: value, tab.draft: Draft()}

    @plainly
    def find(
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
        min_score: float,
        top_k: float,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        least = least_presence(own_presence, min_presence)
        requests = reference_requests(
            Setup(preset, device), picture, example, draft, mask, label, more, least
        )
        return view.find(requests, min_score, top_k, tell(bar))

    drawn = [tab.stage, tab.draft]
    _quickly(tab.picture.change, change, [tab.picture], [*drawn, tab.picture])
    _quickly(tab.stage.marked, mark, [tab.draft], drawn)
    _quickly(tab.stage.painted, paint, [], drawn)
    _quickly(tab.clear.click, clear, [], drawn)
    _in_browser(tab.tool.change, tab.tool, set_data(EXAMPLE_STAGE, "tool"))
    _in_browser(tab.brush.change, tab.brush, set_data(EXAMPLE_STAGE, "brush"))
    inputs = [models.preset, models.device, controls.picture, tab.picture, tab.draft, tab.mask]
    inputs += [tab.label, tab.more, *view.presence, view.min_score, view.top_k]
    _slowly(tab.find.click, find, inputs, view)


def _wire_clicks(controls: Controls, view: ResultView) -> None:
    tab, models = controls.click, controls.models

    def answer(
        marks: MarkHistory,
        preset: str,
        device: str,
        picture: str | None,
        min_score: float,
        top_k: float,
    ) -> Updates:
        path = read_picture(picture)
        if not marks.has_foreground:
            words = "Now click the object itself." if marks else "Click the object."
            return {
                **view.clear(views.message(words)),
                view.stage: views.stage_masks(None, marks),
                tab.marks: marks,
            }
        request = Request(Setup(preset, device), path, marks=marks)
        return {**view.find((request,), min_score, top_k, _quiet), tab.marks: marks}

    @plainly
    def mark(
        marks: MarkHistory,
        preset: str,
        device: str,
        picture: str | None,
        min_score: float,
        top_k: float,
        event: gr.EventData,
    ) -> Updates:
        return answer(add_mark(marks, event), preset, device, picture, min_score, top_k)

    @plainly
    def undo(
        marks: MarkHistory,
        preset: str,
        device: str,
        picture: str | None,
        min_score: float,
        top_k: float,
    ) -> Updates:
        return answer(marks.undo(), preset, device, picture, min_score, top_k)

    @plainly
    def clear(
        marks: MarkHistory,
        preset: str,
        device: str,
        picture: str | None,
        min_score: float,
        top_k: float,
    ) -> Updates:
        return answer(MarkHistory(), preset, device, picture, min_score, top_k)

    inputs = [
        tab.marks,
        models.preset,
        models.device,
        controls.picture,
        view.min_score,
        view.top_k,
    ]
    for event, handler in (
        (view.stage.marked, mark),
        (tab.undo.click, undo),
        (tab.clear.click, clear),
    ):
        event(
            handler,
            inputs,
            [*view.outputs, tab.marks],
            show_progress="hidden",
            trigger_mode="multiple",
            concurrency_id=CLICKS,
            concurrency_limit=1,
            api_visibility="private",
        )
    _in_browser(tab.tool.change, tab.tool, set_data(STAGE, "tool"))


def _wire_everything(controls: Controls, view: ResultView) -> None:
    tab, models = controls.everything, controls.models

    @plainly
    def find(
        preset: str,
        device: str,
        picture: str | None,
        points: float,
        min_score: float,
        top_k: float,
        bar: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Updates:
        request = Request(
            Setup(preset, device),
            read_picture(picture),
            everything=True,
            points_per_side=round(points) or None,
        )
        return view.find((request,), min_score, top_k, tell(bar))

    inputs = [models.preset, models.device, controls.picture, tab.points_per_side]
    _slowly(tab.find.click, find, [*inputs, view.min_score, view.top_k], view)


def _wire_choices(controls: Controls) -> None:
    controls.models.preset.change(
        describe_preset,
        [controls.models.preset],
        [controls.models.note],
        show_progress="hidden",
        api_visibility="private",
    )
    # Only on the click tab do clicks mark; elsewhere the pointer only shows scores.
    controls.tabs.select(
        None,
        None,
        None,
        js=f"""() => setTimeout(() => {{
            const clicking = document.querySelector('#undo')?.checkVisibility() ?? false;
            document.querySelector('#{STAGE} .stage').dataset.mode = clicking ? 'mark' : 'view';
        }}, 50)""",
        api_visibility="private",
    )


def _quickly(event: Any, handler: Any, inputs: list[Any], outputs: list[Any]) -> None:
    """Run a handler without progress; events during a run wait for their turn."""
    event(
        handler,
        inputs,
        outputs,
        show_progress="hidden",
        trigger_mode="multiple",
        api_visibility="private",
    )


def _slowly(event: Any, handler: Any, inputs: list[Any], view: ResultView) -> None:
    """Run a handler with progress, in the lane for searches, then scroll to the results."""
    found = event(
        handler,
        inputs,
        view.outputs,
        show_progress_on=[view.headline],
        concurrency_id=MODELS,
        concurrency_limit=1,
        api_visibility="private",
    )
    found.success(None, None, None, js=_BRING_INTO_VIEW, api_visibility="private")


def _in_browser(event: Any, component: Any, script: str) -> None:
    """Run JavaScript on a component's value, without asking the server."""
    event(None, [component], None, js=script, api_visibility="private", queue=False)


def _quiet(what: str) -> None:
    """Report nothing: clicks are answered too quickly for progress."""


def _as_html(words: str) -> str:
    return html.escape(words[:1].upper() + words[1:])
