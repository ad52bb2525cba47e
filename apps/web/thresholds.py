"""What the controls below the stage do: show the answer by other thresholds or another picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from .actions import plainly
from .desk import Desk, read_numbers
from .lanes import quickly
from .results import Thresholds, Updates, least_presence
from .sheet import History, Shown


def wire_thresholds(desk: Desk) -> None:
    """Wire the sliders, the choice of a part, and the pictures that were searched."""
    view = desk.view

    @plainly
    def again(key: str, chosen: Any, min_score: float, top_k: float, part: str) -> Updates:
        sheet = desk.sheet(key)
        if sheet.shown.request is None:
            return {desk.key: key}
        shown, value = view.draw(sheet, Thresholds(min_score, top_k, part))
        return {**shown, view.stage: value}

    @plainly
    def choose(
        key: str,
        chosen: Any,
        min_score: float,
        top_k: float,
        part: str,
        event: gr.SelectData,
    ) -> Updates:
        index = event.index if isinstance(event.index, int) else 0

        def move(history: History) -> History:
            sheet = history.present
            if not 0 <= index < len(sheet.shown.requests):
                return history
            return history.replace(replace(sheet, shown=replace(sheet.shown, index=index)))

        return desk.move(key, move, Thresholds(min_score, top_k, part))

    def ask(
        key: str,
        chosen: Any,
        thresholds: Thresholds,
        own: bool,
        min_presence: float,
    ) -> Updates:
        least = least_presence(own, min_presence)
        sheet = desk.sheet(key)
        requests = tuple(
            replace(request, min_presence=least) if request.wanted else request
            for request in sheet.shown.requests
        )
        if requests == sheet.shown.requests:
            return {desk.key: key, view.own_presence: own}
        shown = Shown(requests, sheet.shown.index)

        def move(history: History) -> History:
            now = history.present
            # Not a step to undo: a slider takes many values on its way.
            return (
                history.replace(replace(now, shown=shown)) if now.shown == sheet.shown else history
            )

        updates = desk.move(key, move, thresholds, read_numbers(chosen))
        return {**updates, view.own_presence: own}

    @plainly
    def move_slider(
        key: str, chosen: Any, min_score: float, top_k: float, part: str, min_presence: float
    ) -> Updates:
        return ask(key, chosen, Thresholds(min_score, top_k, part), True, min_presence)

    @plainly
    def tick(
        key: str,
        chosen: Any,
        min_score: float,
        top_k: float,
        part: str,
        own: bool,
        min_presence: float,
    ) -> Updates:
        return ask(key, chosen, Thresholds(min_score, top_k, part), own, min_presence)

    outputs = [desk.key, *desk.outputs]
    for event in (view.min_score.change, view.top_k.change, view.part.input):
        quickly(event, again, desk.inputs, outputs, latest=True)
    # The gallery is left alone: it has been clicked.
    without = [output for output in outputs if output is not view.pictures]
    quickly(view.pictures.select, choose, desk.inputs, without)
    # Moving the slider ticks the box, so that the preset's threshold is left by one movement.
    outputs = [*outputs, view.own_presence]
    inputs = [*desk.inputs, view.min_presence]
    quickly(view.min_presence.input, move_slider, inputs, outputs, latest=True)
    inputs = [*desk.inputs, *view.presence]
    quickly(view.own_presence.input, tick, inputs, outputs, latest=True)
