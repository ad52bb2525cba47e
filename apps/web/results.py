"""The right half of the page: the stage, and what was found as text, pictures and tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ...models.errors import PromptsegError
from ...pipeline.result import Result
from ..console import describe_error
from ..service.asker import check_waiting
from . import views
from .engine import Engine, Progress
from .request import Request
from .sheet import Sheet
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
class Thresholds:
    """Which masks of an answer are shown.

    Attributes:
        min_score: The least score.
        top_k: Masks for each phrase; 0 for all.
        part: Which of a lone click's masks: BEST, ALL, or the name of one by its size.
    """

    min_score: float = 0.0
    top_k: float = 0.0
    part: str = BEST


@dataclass(frozen=True)
class Answers:
    """Answers that were just computed, so that showing them need not ask for them again.

    Attributes:
        results: One for each request.
        seconds: How long they took.
    """

    results: Sequence[Result]
    seconds: float


class ResultView:
    """The components that show results; create it inside a Blocks context.

    Args:
        engine: Answers requests.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.headline = gr.HTML(START, elem_id="headline")
        self.cancel = gr.Button("Cancel", size="sm", elem_id="cancel")
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
        self.stage = make_stage(STAGE, empty=_EMPTY, keys=True)
        self.part = gr.Radio(
            label="Which part did you mean?",
            choices=[BEST],
            value=BEST,
            visible=False,
            elem_id="part",
        )
        with gr.Row(elem_id="collecting"):
            self.add = gr.Button("Add to objects", size="sm", elem_id="add", min_width=120)
            self.add_label = gr.Textbox(
                placeholder="Label, if not the phrase",
                show_label=False,
                container=False,
                max_lines=1,
                elem_id="add-label",
                min_width=150,
            )
            self.undo = gr.Button("Undo", size="sm", elem_id="undo", min_width=70)
            self.redo = gr.Button("Redo", size="sm", elem_id="redo", min_width=70)
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
        """The components that :meth:`draw` may update."""
        return [
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
        """The inputs that make up :class:`Thresholds`."""
        return [self.min_score, self.top_k, self.part]

    @property
    def presence(self) -> list[Any]:
        """The inputs of :func:`least_presence`."""
        return [self.own_presence, self.min_presence]

    def find(
        self, requests: Sequence[Request], thresholds: Thresholds, progress: Progress
    ) -> Answers:
        """Answer requests, one for each picture.

        Raises:
            InputError: A picture cannot be read, or a request is not valid.
        """
        started = time.perf_counter()
        results = []
        for i, request in enumerate(requests):
            check_waiting()
            results.append(self._answer(request, thresholds, _step(progress, i, len(requests))))
        return Answers(results, time.perf_counter() - started)

    def draw(
        self, sheet: Sheet, thresholds: Thresholds, *, answers: Answers | None = None
    ) -> tuple[Updates, dict[str, Any]]:
        """Show a sheet's answer.

        Args:
            sheet: The sheet.
            thresholds: Which of its masks to show.
            answers: Its answers, if they were just computed.

        Returns:
            Updates of the components that tell of it, and the stage's value.
        """
        updates: Updates = {}
        request = sheet.shown.request
        if request is None or not request.is_answerable:
            return {**updates, **self._nothing(sheet)}, views.stage_masks(None, sheet.marks)
        try:
            if answers is not None:
                result = answers.results[sheet.shown.index]
            else:
                result = self._answer(request, thresholds, _quiet)
            pixels = self.engine.encode(request.setup, request.picture).pixels()
        except PromptsegError as error:
            # Such as a picture that the server has deleted: what was collected is still shown.
            failed = views.message(views.as_html(describe_error(error)), "error")
            updates |= {**self._nothing(sheet), self.headline: failed}
            return updates, views.stage_masks(None, sheet.marks)
        lone = self._is_lone(request) and len(result) > 0
        chosen = choose_part(result, thresholds.part) if lone else result
        first = sheet.objects.made
        updates |= {
            self.headline: views.headline(chosen, request, answers.seconds if answers else None),
            self.part: self._part_choices(result, thresholds.part) if lone else _no_parts(),
            self.gallery: views.gallery(pixels, chosen),
            self.table: views.masks_table(chosen, first),
            self.rejected: views.rejected_table(result.rejected),
        }
        return updates, views.stage_masks(chosen, request.marks, first)

    def thumbnails(self, sheet: Sheet, answers: Answers | None) -> Any:
        """Return an update of the pictures that were searched, shown if there are several."""
        requests = sheet.shown.requests
        if len(requests) < 2:
            return gr.Gallery(visible=False, value=None)
        captions = [request.picture.name for request in requests]
        if answers is not None:
            captions = [f"{len(result)} found" for result in answers.results]
        pictures = [str(request.picture) for request in requests]
        items = list(zip(pictures, captions, strict=True))
        return gr.Gallery(items, visible=True, selected_index=sheet.shown.index)

    def chosen(self, sheet: Sheet, thresholds: Thresholds) -> Result | None:
        """Return the masks of the answer that is shown; None if there is no answer.

        Raises:
            InputError: The picture is no longer on the server.
        """
        request = sheet.shown.request
        if request is None or not request.is_answerable:
            return None
        result = self._answer(request, thresholds, _quiet)
        return choose_part(result, thresholds.part) if self._is_lone(request) else result

    def _answer(self, request: Request, thresholds: Thresholds, progress: Progress) -> Result:
        return self.engine.answer(
            request,
            min_score=thresholds.min_score,
            top_k=round(thresholds.top_k) or None,
            progress=progress,
        )

    def _is_lone(self, request: Request) -> bool:
        return request.marks.is_lone_click and not request.wanted

    def _nothing(self, sheet: Sheet) -> Updates:
        """Return updates that show no masks, and what to do next."""
        headline = READY if sheet.on_stage is not None else START
        if sheet.marks:
            headline = views.message("Now click the object itself.")
        return {
            self.headline: headline,
            self.part: _no_parts(),
            self.gallery: [],
            self.table: "",
            self.rejected: views.rejected_table(()),
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


def _no_parts() -> Any:
    return gr.Radio(visible=False, value=BEST)


def _quiet(what: str) -> None:
    """Report nothing: what is cached or clicked is answered too quickly for progress."""


def _step(progress: Progress, i: int, count: int) -> Progress:
    """Return a callback for the i-th of several pictures that reports to the one for all."""

    def tell(what: str) -> None:
        progress(what if count == 1 else f"Picture {i + 1} of {count}: {what}")

    return tell
