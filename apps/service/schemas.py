"""What the HTTP service is asked, as JSON or as a form, and what its answers look like."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from ..exports import FORMATS
from .encoded import decode_file
from .limits import MAX_LABEL, MAX_MARKS, MAX_PHRASES, MAX_POINTS_PER_SIDE, MAX_TEXT

# What an answer may be: the record, only its masks, one picture, or a format of the exports.
Format = Literal[
    "result",
    "rle",
    "overlay",
    "coco",
    "coco-polygons",
    "yolo",
    "labelme",
    "voc",
    "cutout",
    "png",
    "json",
]
OWN_FORMATS = {
    "result": "the answer with every score and what was dropped, as `promptseg segment --json`",
    "rle": "only labels, scores, boxes and masks, as COCO run lengths",
    "overlay": "a PNG of the picture with its masks drawn on it",
}
FORMAT_NAMES = (*OWN_FORMATS, *FORMATS)

ModelT = TypeVar("ModelT", bound=BaseModel)


def _read_base64(value: object) -> object:
    """Return bytes as they are, and text as the file that it stands for."""
    return decode_file(value) if isinstance(value, str) else value


Picture = Annotated[
    bytes,
    BeforeValidator(_read_base64),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
Numbers = Annotated[list[float], Field(max_length=4)]
Rows = Annotated[list[Numbers], Field(max_length=MAX_MARKS)]
Phrase = Annotated[str, Field(max_length=MAX_TEXT)]
Phrases = Annotated[list[Phrase], Field(max_length=MAX_PHRASES)] | Phrase


class PictureRequest(BaseModel):
    """A picture: its file, or the id of one that was encoded before."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    image: Picture | None = Field(None, description="The image's file, in base64 if in JSON.")
    embedding: str | None = Field(
        None, max_length=100, description="In place of it: an id from /embeddings or an answer."
    )

    @model_validator(mode="after")
    def _check_picture(self) -> PictureRequest:
        if (self.image is None) == (self.embedding is None):
            raise ValueError("give either image or embedding")
        return self


class RankedRequest(PictureRequest):
    """A picture, which masks to keep, and how to answer."""

    top_k: int | None = Field(None, ge=1, description="Most masks for each phrase.")
    min_score: float | None = Field(None, ge=0, le=1, description="Least score of a mask.")
    format: Format = "result"
    name: str = Field(
        "image", max_length=MAX_LABEL, description="What files call the picture, without a path."
    )


class SegmentRequest(RankedRequest):
    """What to look for in a picture: at least one of text, a reference, points and boxes."""

    text: Phrases | None = Field(None, description="Phrases; one text may hold several.")
    negative_text: Phrases | None = Field(None, description="Phrases for what is not wanted.")
    points: Rows | None = Field(None, description="[[x, y], ...] in pixels of the image.")
    point_labels: Annotated[list[int], Field(max_length=MAX_MARKS)] | None = Field(
        None, description="For each point 1 (object, the default) or 0 (background)."
    )
    boxes: Rows | None = Field(None, description="[[x0, y0, x1, y1], ...] in pixels.")
    reference: Picture | None = Field(None, description="A picture that shows what to look for.")
    reference_mask: Picture | None = Field(None, description="What is not black is the object.")
    reference_points: Rows | None = Field(None, description="In place of it: points on it.")
    reference_box: Numbers | None = Field(None, description="In place of it: a box around it.")
    reference_label: str | None = Field(None, max_length=MAX_LABEL)
    min_presence: float | None = Field(
        None, ge=0, le=1, description="How sure it must be that it is there; 0 finds it anyway."
    )
    no_overlap: bool | None = Field(None, description="Each pixel goes to the best mask.")

    @model_validator(mode="after")
    def _check_reference(self) -> SegmentRequest:
        marks = (self.reference_mask, self.reference_points, self.reference_box)
        if self.reference is None and any(mark is not None for mark in marks):
            raise ValueError("a mask, points or a box of a reference need the reference as well")
        return self


class EverythingRequest(RankedRequest):
    """A picture to segment all over."""

    points_per_side: int | None = Field(
        None, ge=1, le=MAX_POINTS_PER_SIDE, description="Of the grid; by default the preset's."
    )


class EmbeddingRequest(BaseModel):
    """A picture to encode."""

    model_config = ConfigDict(extra="forbid")

    image: Picture


class EmbeddingAnswer(BaseModel):
    """An encoded picture."""

    embedding: str
    image_size: tuple[int, int] = Field(description="Height and width.")
    bytes: int = Field(description="Of memory that it takes.")


class Usage(BaseModel):
    """How much of something there is, and how much there may be."""

    count: int
    bytes: int
    most: int
    most_bytes: int


class Health(BaseModel):
    """Whether requests are answered, and by what."""

    status: Literal["ok"]
    version: str
    preset: str
    device: str
    waiting: int = Field(description="Requests in line, with the one that is being answered.")
    embeddings: Usage


class RunLengths(BaseModel):
    """A mask in COCO's compressed run lengths."""

    size: tuple[int, int] = Field(description="Height and width.")
    counts: str


class Mask(BaseModel):
    """A mask that was found."""

    label: str
    score: float
    iou_prediction: float
    stability_score: float
    prompt_score: float
    box_xyxy: tuple[float, float, float, float]
    area: int
    segmentation: RunLengths


class Rejected(BaseModel):
    """What was dropped, and why."""

    label: str
    reason: str
    score: float | None
    iou_prediction: float | None
    stability_score: float | None
    prompt_score: float
    presence: float | None
    box_xyxy: tuple[float, float, float, float] | None
    segmentation: RunLengths | None


class Record(BaseModel):
    """An answer; no masks are an answer too."""

    image: str
    preset: str
    embedding: str
    schema_: str = Field(alias="schema")
    image_size: tuple[int, int]
    masks: list[Mask]
    rejected: list[Rejected]


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    message: str


class ErrorAnswer(BaseModel):
    """An error."""

    error: ErrorDetail


def from_form(fields: list[tuple[str, str | bytes]]) -> dict[str, Any]:
    """Return the fields of a form as JSON would have them.

    Files are bytes. A field that is repeated is a list; numbers and lists are written as JSON.
    """
    found: dict[str, Any] = {}
    for name, value in fields:
        if name in ("text", "negative_text"):
            found.setdefault(name, []).append(value)
        elif isinstance(value, bytes) or name in ("format", "name", "embedding", "reference_label"):
            found[name] = value
        else:
            try:
                found[name] = json.loads(value)
            except (ValueError, RecursionError):
                found[name] = value  # the model says what it should be
    return found
