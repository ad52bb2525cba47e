"""What the controls below the stage do: show the answer by other thresholds or another picture."""

from __future__ import annotations

from dataclasses import replace

import gradio as gr

from .actions import plainly
from .results import ResultView, Shown, Updates, least_presence


def wire_thresholds(view: ResultView) -> None:
    """Wire the sliders, the choice of a part, and the pictures that were searched."""

    @plainly
    def again(shown: Shown, min_score: float, top_k: float, part: str) -> Updates:
        return view.show(shown, min_score, top_k, part)

    @plainly
    def choose(
        shown: Shown, min_score: float, top_k: float, part: str, event: gr.SelectData
    ) -> Updates:
        index = event.index if isinstance(event.index, int) else 0
        if not 0 <= index < len(shown.requests):
            return {view.shown: shown}
        return view.show(Shown(shown.requests, index), min_score, top_k, part, photo=True)

    def ask(
        shown: Shown, own: bool, min_presence: float, min_score: float, top_k: float, part: str
    ) -> Updates:
        least = least_presence(own, min_presence)
        requests = tuple(
            replace(request, min_presence=least) if request.wanted else request
            for request in shown.requests
        )
        if requests == shown.requests:
            return {view.shown: shown, view.own_presence: own}
        updates = view.show(Shown(requests, shown.index), min_score, top_k, part)
        return {**updates, view.own_presence: own}

    @plainly
    def move(
        shown: Shown, min_presence: float, min_score: float, top_k: float, part: str
    ) -> Updates:
        return ask(shown, True, min_presence, min_score, top_k, part)

    inputs = [view.shown, *view.thresholds]
    outputs = [output for output in view.outputs if output is not view.pictures]
    gr.on(
        [view.min_score.change, view.top_k.change, view.part.input],
        again,
        inputs,
        outputs,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    view.pictures.select(choose, inputs, outputs, show_progress="hidden", api_visibility="private")
    # Moving the slider ticks the box, so that the preset's threshold is left by one movement.
    view.min_presence.input(
        move,
        [view.shown, view.min_presence, *view.thresholds],
        [*outputs, view.own_presence],
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
    view.own_presence.input(
        plainly(ask),
        [view.shown, *view.presence, *view.thresholds],
        [*outputs, view.own_presence],
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )
