"""What the page's buttons and clicks do: from inputs to requests, and errors in plain words."""

from __future__ import annotations

import base64
import binascii
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from ...models.errors import InputError, PromptsegError
from ..console import describe_error
from . import views
from .engine import Engine, Progress
from .request import Example, Marks, Request, Setup, read_phrases

logger = logging.getLogger(__name__)

MAX_PICTURES = 16
MAX_MARKS = 100
# A painting of the stage's size takes a tenth of that.
_LONGEST_PAINTING = 1_000_000
_PNG_URL = "data:image/png;base64,"

R = TypeVar("R")


@dataclass(frozen=True)
class Draft:
    """How the object of an example is marked so far.

    Attributes:
        marks: Clicks or a box.
        painted: A PNG's bytes, or None.
    """

    marks: Marks = field(default_factory=Marks)
    painted: bytes | None = None


def plainly(handler: Callable[..., R]) -> Callable[..., R]:
    """Let a handler's errors reach its user as messages rather than as a stack trace."""

    @functools.wraps(handler)
    def run(*inputs: Any) -> R:
        try:
            return handler(*inputs)
        except gr.Error:
            raise
        except (PromptsegError, OSError, RuntimeError, MemoryError, ValueError) as error:
            logger.debug("a request failed", exc_info=True)
            own = isinstance(error, PromptsegError)
            title = "This does not work" if own else "Something went wrong"
            text = describe_error(error)
            raise gr.Error(
                text[:1].upper() + text[1:], title=title, print_exception=False, duration=12
            ) from error

    return run


def tell(bar: gr.Progress) -> Progress:
    """Return what the engine tells its progress to."""

    def step(share: float, what: str) -> None:
        bar(share, desc=what)

    return step


def read_picture(value: str | None, what: str = "a picture") -> Path:
    """Return the path of an uploaded picture.

    Raises:
        InputError: There is none.
    """
    if not value:
        raise InputError(f"give {what} first")
    return Path(value)


def open_picture(engine: Engine, value: str) -> tuple[dict[str, Any] | None, str]:
    """Return a picture for a stage and what to say of it; None for what is no picture."""
    path = Path(value)
    try:
        pixels = engine.read(path)
    except (PromptsegError, OSError, MemoryError) as error:
        text = describe_error(error)
        gr.Warning(text, title="This picture cannot be used", duration=12)
        return None, text
    height, width = pixels.shape[:2]
    full = engine.original_size(path)
    note = ""
    if full[0] * full[1] > height * width:
        note = (
            f"The picture has {full[0]} x {full[1]} pixels and was scaled to {width} x {height}: "
            f"this app takes {engine.max_pixels / 1e6:g} megapixels. "
            "Start it with a larger --max-pixels for more."
        )
        gr.Info(note, title="Scaled down", duration=8)
    return views.stage_photo(pixels, path.name), note


def text_request(
    setup: Setup, picture: str | None, phrases: str | None, negatives: str | None
) -> Request:
    """Return the request of the text tab.

    Raises:
        InputError: Something is missing.
    """
    wanted = read_phrases(phrases)
    path = read_picture(picture)
    if not wanted:
        raise InputError("say what to look for, for example: cat")
    return Request(setup, path, phrases=wanted, negatives=read_phrases(negatives))


def reference_requests(
    setup: Setup,
    picture: str | None,
    example: str | None,
    draft: Draft,
    mask: str | None,
    label: str | None,
    more: Sequence[str] | None,
) -> tuple[Request, ...]:
    """Return the requests of the reference tab, one for each picture to be searched.

    Raises:
        InputError: Something is missing, or there are too many pictures.
    """
    shown = read_picture(example, "the picture of an example")
    targets = [Path(path) for path in ([picture] if picture else []) + list(more or [])]
    targets = list(dict.fromkeys(targets))
    if not targets:
        raise InputError("give a picture to search")
    if len(targets) > MAX_PICTURES:
        raise InputError(f"{len(targets)} pictures are too many; give at most {MAX_PICTURES}")
    name = " ".join((label or "").split()) or "reference"
    what = Example(shown, label=name)
    if mask:
        what = replace(what, mask=Path(mask))
    elif draft.painted is not None:
        what = replace(what, painted=draft.painted)
    else:
        what = replace(what, marks=draft.marks)
    return tuple(Request(setup, target, example=what) for target in targets)


def marked(marks: Marks, event: gr.EventData) -> Marks:
    """Return the marks and the one that an event of a stage brings.

    Raises:
        InputError: The event makes no sense, or there are too many marks.
    """
    data = event._data or {}
    if len(marks.order) >= MAX_MARKS:
        raise InputError(f"{MAX_MARKS} marks are enough; clear them to start again")
    try:
        if "box" in data:
            x0, y0, x1, y1 = (float(value) for value in data["box"])
            return marks.with_box((x0, y0, x1, y1))
        x, y = (float(value) for value in data["point"])
        return marks.with_point(x, y, 1 if int(data["label"]) == 1 else 0)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("this click cannot be read; try again") from error


def painted(event: gr.EventData) -> bytes:
    """Return the PNG of what was painted.

    Raises:
        InputError: The event brings none, or one that is too large.
    """
    url = (event._data or {}).get("png", "")
    if not isinstance(url, str) or not url.startswith(_PNG_URL) or len(url) > _LONGEST_PAINTING:
        raise InputError("what was painted cannot be read; clear it and paint again")
    try:
        return base64.b64decode(url[len(_PNG_URL) :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("what was painted cannot be read; clear it and paint again") from error
