"""Turns what users enter on the page into requests, and exceptions into messages."""

from __future__ import annotations

import base64
import binascii
import functools
import html
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from ...models.errors import InputError, PromptsegError
from ..console import describe_error
from ..service.asker import AskerLeft, check_waiting, watched
from ..service.limits import MAX_MARKS, MAX_PAINTING_TEXT, MAX_PICTURES, check_count
from . import views
from .asker import queued
from .engine import Engine, Progress
from .request import Example, MarkHistory, Request, Setup, read_label, read_phrases

logger = logging.getLogger(__name__)

_PNG_URL = "data:image/png;base64,"

R = TypeVar("R")


@dataclass(frozen=True)
class Draft:
    """How the object in an example is marked so far: by clicks, a box or a painting.

    Attributes:
        marks: Clicks or a box.
        painted: A PNG.
    """

    marks: MarkHistory = field(default_factory=MarkHistory)
    painted: bytes | None = None


def plainly(handler: Callable[..., R]) -> Callable[..., R]:
    """Wrap a handler of the page so that its errors reach the user as messages.

    The page shows messages as HTML, so they are escaped. The handler stops when its user leaves.
    """
    return _plainly(handler, safe)


def in_plain_text(handler: Callable[..., R]) -> Callable[..., R]:
    """Wrap a handler as :func:`plainly` does, for programs, which get the text as it is."""
    return _plainly(handler, str)


def safe(text: str) -> str:
    """Return text so that HTML shows it as it is."""
    return html.escape(text, quote=False)


def _plainly(handler: Callable[..., R], shown: Callable[[str], str]) -> Callable[..., R]:
    @functools.wraps(handler)
    def run(*inputs: Any) -> R:
        try:
            with watched(queued()):
                return handler(*inputs)
        except gr.Error:
            raise
        except AskerLeft as error:
            logger.debug("nobody waits for this request any more")
            raise gr.Error("The request was cancelled.", print_exception=False) from error
        except (
            PromptsegError,
            ArithmeticError,
            MemoryError,
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            logger.debug("a request failed", exc_info=True)
            own = isinstance(error, PromptsegError)
            title = "That did not work" if own else "Something went wrong"
            text = describe_error(error)
            words = shown(text[:1].upper() + text[1:])
            raise gr.Error(words, title=title, print_exception=False, duration=12) from error

    return run


def tell(bar: gr.Progress) -> Progress:
    """Return a progress callback for the engine that tells the page."""

    def step(what: str) -> None:
        check_waiting()
        # Words alone: a share would be shown as well, as "40.0%".
        bar(None, desc=what)

    return step


def read_picture(value: str | None, what: str = "a picture") -> Path:
    """Return the path of an uploaded picture.

    Raises:
        InputError: Nothing was uploaded.
    """
    if not value:
        raise InputError(f"upload {what} first")
    return Path(value)


def open_picture(engine: Engine, value: str) -> tuple[dict[str, Any] | None, str]:
    """Return a picture for a stage, or None if it cannot be read, and a note about it."""
    path = Path(value)
    try:
        pixels = engine.read(path)
    except (PromptsegError, OSError, MemoryError) as error:
        text = describe_error(error)
        gr.Warning(safe(text), title="This picture cannot be used", duration=12)
        return None, text
    height, width = pixels.shape[:2]
    full = engine.original_size(path)
    note = ""
    if full[0] * full[1] > height * width:
        note = (
            f"The picture has {full[0]} x {full[1]} pixels and was scaled to {width} x {height}, "
            f"since this app works at up to {engine.max_pixels / 1e6:g} megapixels. "
            "Start it with a larger --max-pixels to change that."
        )
        gr.Info(note, title="Scaled down", duration=8)
    return views.stage_photo(pixels, path.name), note


def text_request(
    setup: Setup,
    picture: str | None,
    phrases: str | None,
    negatives: str | None,
    min_presence: float | None = None,
) -> Request:
    """Return the request of the text tab.

    Raises:
        InputError: The picture or the phrases are missing.
    """
    wanted = read_phrases(phrases)
    path = read_picture(picture)
    if not wanted:
        raise InputError("say what to look for, for example: cat")
    return Request(
        setup,
        path,
        phrases=wanted,
        negatives=read_phrases(negatives),
        min_presence=min_presence,
    )


def everything_request(setup: Setup, picture: str | None, points_per_side: float | None) -> Request:
    """Return the request of the everything tab; 0 points mean the preset's own grid.

    Raises:
        InputError: The picture is missing.
    """
    points = round(points_per_side or 0) or None
    return Request(setup, read_picture(picture), everything=True, points_per_side=points)


def reference_requests(
    setup: Setup,
    picture: str | None,
    example: str | None,
    draft: Draft,
    mask: str | None,
    label: str | None,
    more: Sequence[str] | None,
    min_presence: float | None = None,
) -> tuple[Request, ...]:
    """Return the requests of the reference tab, one for each picture to search.

    Raises:
        InputError: A picture is missing, or there are too many.
    """
    shown = read_picture(example, "a picture of an example")
    targets = [Path(path) for path in ([picture] if picture else []) + list(more or [])]
    targets = list(dict.fromkeys(targets))
    if not targets:
        raise InputError("upload a picture to search")
    check_count("pictures", len(targets), MAX_PICTURES)
    what = Example(shown, label=read_label(label))
    if mask:
        what = replace(what, mask=Path(mask))
    elif draft.painted is not None:
        what = replace(what, painted=draft.painted)
    else:
        what = replace(what, marks=draft.marks)
    return tuple(
        Request(setup, target, example=what, min_presence=min_presence) for target in targets
    )


def add_mark(marks: MarkHistory, event: gr.EventData) -> MarkHistory:
    """Return the history with the mark that a stage's event reports.

    Raises:
        InputError: The event is malformed, or there are too many marks.
    """
    data = event._data or {}
    if len(marks.steps) >= MAX_MARKS:
        raise InputError(f"there are {MAX_MARKS} marks already; clear them to start again")
    try:
        if "box" in data:
            x0, y0, x1, y1 = (float(value) for value in data["box"])
            return marks.add_box((x0, y0), (x1, y1))
        x, y = (float(value) for value in data["point"])
        return marks.add_click((x, y), 1 if int(data["label"]) == 1 else 0)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("that click could not be read; try again") from error


def read_painting(event: gr.EventData) -> bytes:
    """Return the PNG that a stage's event reports.

    Raises:
        InputError: There is none, or it is too large.
    """
    url = (event._data or {}).get("png", "")
    if not isinstance(url, str) or not url.startswith(_PNG_URL) or len(url) > MAX_PAINTING_TEXT:
        raise InputError("the painting could not be read; clear it and paint again")
    try:
        return base64.b64decode(url[len(_PNG_URL) :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the painting could not be read; clear it and paint again") from error
