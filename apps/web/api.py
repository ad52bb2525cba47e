"""Named endpoints that give programs the page's answers, as JSON and files; see docs/app.md.

Pictures larger than the app works at are refused, not scaled: a program could not use coordinates
in a scaled picture.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ...models.errors import InputError
from ...pipeline.marks import Marks
from ..exports import FORMATS
from ..exports.run import write_format
from ..service.limits import MAX_MARKS, MAX_TEXT, check_count, check_text
from .actions import in_plain_text
from .engine import Engine
from .plain import plain
from .request import Click, Example, MarkHistory, Request, Setup, read_label, read_phrases

_Answer = tuple[dict[str, Any], list[str] | None]


@dataclass(frozen=True)
class _Common:
    """The inputs and outputs that all endpoints share."""

    top_k: Any
    min_score: Any
    formats: Any
    preset: Any
    device: Any
    result: Any
    files: Any

    @property
    def inputs(self) -> list[Any]:
        return [self.top_k, self.min_score, self.formats, self.preset, self.device]


def add_endpoints(engine: Engine, setup: Setup) -> None:
    """Add /segment_text, /segment_reference, /segment_points and /everything to the Blocks."""
    # Invisible: these components only declare the types that the endpoints take.
    with gr.Group(visible=False):
        common = _Common(
            top_k=gr.Number(0, precision=0),
            min_score=gr.Number(0.0),
            formats=gr.Textbox(""),
            preset=gr.Textbox(setup.preset),
            device=gr.Textbox(setup.device),
            result=gr.JSON(),
            files=plain(gr.File)(file_count="multiple"),
        )
        answer = _Answerer(engine, common.files)
        image = plain(gr.File)(label="image")
        _add_text(answer, common, image)
        _add_reference(answer, common, image)
        _add_points(answer, common, image)
        _add_everything(answer, common, image)


class _Answerer:
    """Answers an endpoint's request.

    Args:
        engine: Answers requests.
        files: The component that serves files.
    """

    def __init__(self, engine: Engine, files: Any) -> None:
        self.engine = engine
        self.files = files

    def __call__(
        self, request: Request, top_k: float | None, min_score: float | None, formats: str | None
    ) -> _Answer:
        """Return the result as JSON, and a file for each format asked for."""
        wanted = read_formats(formats)
        for picture in _pictures(request):
            self._check_size(picture)
        result = self.engine.answer(
            request, top_k=int(top_k or 0) or None, min_score=min_score or 0.0
        )
        record = {"image": request.picture.name, "preset": request.setup.preset, **result.to_dict()}
        if not wanted:
            return record, None
        pixels = self.engine.read(request.picture)
        with tempfile.TemporaryDirectory() as folder:
            paths = [
                write_format(name, Path(folder), request.picture, pixels, result) for name in wanted
            ]
            # Gradio keeps copies and deletes them when they expire.
            return record, [self.files.move_resource_to_block_cache(path) for path in paths]

    def _check_size(self, picture: Path) -> None:
        width, height = self.engine.original_size(picture)
        if width * height > self.engine.max_pixels:
            raise InputError(
                f"{picture.name!r} has {width} x {height} pixels, more than the "
                f"{self.engine.max_pixels / 1e6:g} megapixels this app takes; scale it down, or "
                "start the app with a larger --max-pixels"
            )


def read_formats(text: str | None) -> list[str]:
    """Return the formats in a comma-separated list.

    Raises:
        InputError: There is no such format.
    """
    text = check_text("formats", text or "", MAX_TEXT)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise InputError(f"there is no format {name[:50]!r}; there are {', '.join(FORMATS)}")
    return list(dict.fromkeys(names))


def read_marks(points: Any, labels: Any, boxes: Any) -> MarkHistory:
    """Return marks from JSON: [[x, y], ...], [1, 0, ...] and [[x0, y0, x1, y1], ...].

    Raises:
        InputError: They have another form, or the pipeline refuses them.
    """
    marks = Marks.read(
        _parsed("points", points), _parsed("labels", labels), _parsed("boxes", boxes)
    )
    clicks = zip(marks.points.tolist(), marks.point_labels.tolist(), strict=True)
    return MarkHistory(
        (
            *(Click((x, y), label) for (x, y), label in clicks),
            *((x0, y0, x1, y1) for x0, y0, x1, y1 in marks.boxes.tolist()),
        )
    )


def _add_text(answer: _Answerer, common: _Common, image: Any) -> None:
    @in_plain_text
    def segment_text(
        image: str | None,
        phrases: str,
        negatives: str,
        top_k: float,
        min_score: float,
        formats: str,
        preset: str,
        device: str,
        min_presence: float | None = None,
    ) -> _Answer:
        """Find what phrases name in a picture. Separate phrases with commas or line breaks."""
        wanted = read_phrases(phrases)
        if not wanted:
            raise InputError("phrases is empty; say what to look for")
        request = Request(
            Setup(preset, device),
            _picture(image),
            phrases=wanted,
            negatives=read_phrases(negatives),
            min_presence=min_presence,
        )
        return answer(request, top_k, min_score, formats)

    _register(segment_text, common, [image, gr.Textbox(), gr.Textbox("")], presence=True)


def _add_reference(answer: _Answerer, common: _Common, image: Any) -> None:
    @in_plain_text
    def segment_reference(
        image: str | None,
        example: str | None,
        mask: str | None,
        points: Any,
        box: Any,
        label: str,
        top_k: float,
        min_score: float,
        formats: str,
        preset: str,
        device: str,
        min_presence: float | None = None,
    ) -> _Answer:
        """Find what an example shows, given its mask, points on it or its box."""
        marks = read_marks(points, None, box)
        if bool(mask) == bool(marks):
            raise InputError("give one of mask, points and box to show which object is the example")
        shown = Example(
            _picture(example, "example"),
            mask=Path(mask) if mask else None,
            marks=marks,
            label=read_label(label),
        )
        request = Request(
            Setup(preset, device), _picture(image), example=shown, min_presence=min_presence
        )
        return answer(request, top_k, min_score, formats)

    inputs = [image, plain(gr.File)(), plain(gr.File)(value=None), gr.JSON(None), gr.JSON(None)]
    _register(segment_reference, common, [*inputs, gr.Textbox("reference")], presence=True)


def _add_points(answer: _Answerer, common: _Common, image: Any) -> None:
    @in_plain_text
    def segment_points(
        image: str | None,
        points: Any,
        labels: Any,
        boxes: Any,
        top_k: float,
        min_score: float,
        formats: str,
        preset: str,
        device: str,
    ) -> _Answer:
        """Segment what points (labelled 1 object, 0 background) and boxes mark in a picture."""
        marks = read_marks(points, labels, boxes)
        if not marks:
            raise InputError("give points or boxes")
        request = Request(Setup(preset, device), _picture(image), marks=marks)
        return answer(request, top_k, min_score, formats)

    _register(segment_points, common, [image, gr.JSON(None), gr.JSON(None), gr.JSON(None)])


def _add_everything(answer: _Answerer, common: _Common, image: Any) -> None:
    @in_plain_text
    def everything(
        image: str | None,
        points_per_side: float,
        top_k: float,
        min_score: float,
        formats: str,
        preset: str,
        device: str,
    ) -> _Answer:
        """Segment a whole picture; points_per_side 0 means the preset's own grid."""
        request = Request(
            Setup(preset, device),
            _picture(image),
            everything=True,
            points_per_side=int(points_per_side or 0) or None,
        )
        return answer(request, top_k, min_score, formats)

    _register(everything, common, [image, gr.Number(0, precision=0)])


def _register(
    handler: Callable[..., _Answer],
    common: _Common,
    inputs: Sequence[Any],
    *,
    presence: bool = False,
) -> None:
    """Add an endpoint; ``presence`` says whether its last parameter is the least presence."""
    gr.Button().click(
        handler,
        [*inputs, *common.inputs, *([gr.Number(value=None)] if presence else [])],
        [common.result, common.files],
        api_name=handler.__name__,
        api_description=handler.__doc__,
        concurrency_id="models",
        concurrency_limit=1,
    )


def _picture(value: str | None, name: str = "image") -> Path:
    if not value:
        raise InputError(f"{name} is missing; give a picture's file")
    return Path(value)


def _parsed(name: str, value: Any) -> Any:
    """Return JSON that may have been sent as text; empty lists count as nothing."""
    if isinstance(value, str):
        try:
            value = json.loads(check_text(name, value, MAX_TEXT))
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{name} is not JSON: {error}") from error
    if value is not None and not isinstance(value, (list, tuple)):
        raise InputError(f"{name} must be a list")
    check_count(name, len(value or ()), MAX_MARKS)
    return value or None


def _pictures(request: Request) -> list[Path]:
    """Return all files of a request."""
    example = request.example
    if example is None:
        return [request.picture]
    return [request.picture, example.picture, *([example.mask] if example.mask else [])]
