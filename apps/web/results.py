"""The right half of the page: the stage, and what was found as text, pictures and tables."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...pipeline.result import Result
from ..service.asker import check_waiting
from . import views
from .engine import Engine, Progress
from .request import Request
from .stage import make_stage

STAGE = "stage"
BEST, ALL = "best", "all"
_EMPTY = "Your picture appears here."
# Where the slider stands until it is moved: the threshold of the preset `pocket`.
_LEAST_PRESENCE = 0.15
START = views.message("Upload a picture, then describe, show or click what you want.")
READY = views.message("Now describe, show or click what you want.")

Updates = dict[Any, Any]


@dataclass(frozen=True)
class Shown:
    """What a user is looking at: the only per-session state.

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


class ResultView:
    """The components that show results; create it inside a Blocks context.

    Args:
        engine: Answers requests.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shown = gr.State(Shown())
        self.headline = gr.HTML(START, elem_id="headline")
        self.pictures = gr.Gallery(
            label="Pictures searched; select one",
            columns=6,
            rows=1,
            height=None,
            allow_preview=False,
            object_fit="cover",
            visible=False,
            elem_id="pictures",
            buttons=[],
        )
        self.stage = make_stage(STAGE, empty=_EMPTY)
        self.part = gr.Radio(
            label="Which part did you mean?",
            choices=[BEST],
            value=BEST,
            visible=False,
            elem_id="part",
        )
        with gr.Row(elem_id="thresholds"):
            self.min_score = gr.Slider(
                0.0, 1.0, 0.0, step=0.01, label="Minimum score", elem_id="min-score", min_width=240
            )
            self.top_k = gr.Slider(
                0,
                20,
                0,
                step=1,
                label="Masks per phrase (0 = all)",
                elem_id="top-k",
                min_width=240,
            )
            with gr.Column(min_width=240):
                self.min_presence = gr.Slider(
                    0.0,
                    1.0,
                    _LEAST_PRESENCE,
                    step=0.001,
                    label="Least presence",
                    info="0 tries what seems absent.",
                    elem_id="min-presence",
                )
                self.own_presence = gr.Checkbox(
                    value=False, label="Instead of the preset's", elem_id="own-presence"
                )
        with gr.Tabs(elem_id="details"):
            with gr.Tab("Masks"):
                self.gallery = gr.Gallery(
                    show_label=False,
                    columns=5,
                    height=None,
                    fit_columns=False,
                    object_fit="contain",
                    elem_id="gallery",
                    buttons=["fullscreen"],
                )
            with gr.Tab("Scores"):
                self.table = gr.HTML("", elem_id="masks-table", apply_default_css=False)
            with gr.Tab("Rejected"):
                self.rejected = gr.HTML(
                    views.rejected_table(()), elem_id="rejected-table", apply_default_css=False
                )

    @property
    def outputs(self) -> list[Any]:
        """The components that :meth:`show` may update."""
        return [
            self.shown,
            self.headline,
            self.pictures,
            self.stage,
            self.part,
            self.gallery,
            self.table,
            self.rejected,
        ]

    @property
    def thresholds(self) -> list[Any]:
        """The inputs of :meth:`show` after the first."""
        return [self.min_score, self.top_k, self.part]

    @property
    def presence(self) -> list[Any]:
        """The inputs of :func:`least_presence`."""
        return [self.own_presence, self.min_presence]

    def clear(self, headline: str | None = None, *, photo: bool = False) -> Updates:
        """Return updates that remove the results, and the photograph too if ``photo`` is set."""
        empty = views.stage_masks(None)
        updates: Updates = {
            self.shown: Shown(),
            self.stage: gr.HTML(value=empty, photo=None) if photo else empty,
            self.part: gr.Radio(visible=False, value=BEST),
            self.pictures: gr.Gallery(visible=False, value=None),
            self.gallery: [],
            self.table: "",
            self.rejected: views.rejected_table(()),
        }
        if headline is not None:
            updates[self.headline] = headline
        return updates

    def find(
        self, requests: tuple[Request, ...], min_score: float, top_k: float, progress: Progress
    ) -> Updates:
        """Answer new requests, one for each picture, and show the first answer."""
        started = time.perf_counter()
        answers = []
        for i, request in enumerate(requests):
            check_waiting()
            answers.append(
                self.engine.answer(
                    request,
                    min_score=min_score,
                    top_k=round(top_k) or None,
                    progress=_step(progress, i, len(requests)),
                )
            )
        seconds = time.perf_counter() - started
        shown = Shown(requests)
        updates = self._show(shown, answers[0], BEST, seconds)
        several = len(requests) > 1
        if several:
            thumbnails = [
                (str(request.picture), f"{len(answer)} found")
                for request, answer in zip(requests, answers, strict=True)
            ]
            updates[self.pictures] = gr.Gallery(thumbnails, visible=True, selected_index=0)
            updates[self.stage] = self._with_photo(shown, updates[self.stage])
        else:
            updates[self.pictures] = gr.Gallery(visible=False, value=None)
        return updates

    def show(
        self, shown: Shown, min_score: float, top_k: float, part: str, *, photo: bool = False
    ) -> Updates:
        """Show an answer again, ``photo`` included if another picture is on the stage."""
        if shown.request is None:
            return {self.shown: shown}
        updates = self._show(shown, self.ranked(shown, min_score, top_k), part, None)
        if photo:
            updates[self.stage] = self._with_photo(shown, updates[self.stage])
        return updates

    def ranked(self, shown: Shown, min_score: float, top_k: float) -> Result:
        """Return the masks of the answer on the stage.

        Raises:
            InputError: The picture is no longer on the server.
            ValueError: There is no answer on the stage.
        """
        request = shown.request
        if request is None:
            raise ValueError("there is no answer on the stage")
        return self.engine.answer(request, min_score=min_score, top_k=round(top_k) or None)

    def _with_photo(self, shown: Shown, masks: Any) -> Any:
        request = shown.request
        if request is None:
            return masks
        photo = views.stage_photo(self.engine.read(request.picture), request.picture.name)
        return gr.HTML(value=masks, photo=photo)

    def _show(self, shown: Shown, result: Result, part: str, seconds: float | None) -> Updates:
        request = shown.request
        if request is None:
            return {}
        lone = request.marks.is_lone_click and not request.wanted and len(result) > 0
        chosen = choose_part(result, part) if lone else result
        pixels = self.engine.encode(request.setup, request.picture).pixels()
        return {
            self.shown: shown,
            self.headline: views.headline(chosen, request, seconds),
            self.stage: views.stage_masks(chosen, request.marks),
            self.part: self._part_choices(result, part) if lone else gr.Radio(visible=False),
            self.gallery: views.gallery(pixels, chosen),
            self.table: views.masks_table(chosen),
            self.rejected: views.rejected_table(result.rejected),
        }

    def _part_choices(self, result: Result, part: str) -> Any:
        parts = views.whole_and_parts(result)
        choices = [
            ("best", BEST),
            *((f"{name} {result.scores[i]:.2f}", name) for name, i in parts.items()),
            ("all", ALL),
        ]
        value = part if part in (BEST, ALL, *parts) else BEST
        return gr.Radio(choices=choices, value=value, visible=len(result) > 1)


def least_presence(own: bool, value: float) -> float | None:
    """Return the least presence that the page asks for; None for the preset's."""
    return float(value) if own else None


def choose_part(result: Result, part: str) -> Result:
    """Return those of a lone click's masks that a choice means: "best", "all", or one by size."""
    if part == ALL:
        return result
    parts = views.whole_and_parts(result)
    return result[[parts[part]]] if part in parts else result[:1]


def _step(progress: Progress, i: int, count: int) -> Progress:
    """Return a callback for the i-th of several pictures that reports to the one for all."""

    def tell(what: str) -> None:
        progress(what if count == 1 else f"Picture {i + 1} of {count}: {what}")

    return tell
