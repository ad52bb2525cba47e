"""Answers requests with one pipeline: decodes pictures, keeps encoded ones, builds queries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from ...models.embedding import ImageEmbedding
from ...models.errors import InputError
from ...pipeline.checks import BoolArray, Numbers, UInt8Array
from ...pipeline.images import load_image, load_mask, open_picture
from ...pipeline.pipeline import Pipeline
from ...pipeline.prompters.reference.examples import Reference
from ...pipeline.query import Query
from ...pipeline.result import Result
from .asker import check_waiting
from .cache import ByteCache, embedding_bytes
from .limits import (
    MAX_EMBEDDING_BYTES,
    MAX_EMBEDDINGS,
    MAX_FILE_BYTES,
    MAX_LABEL,
    MAX_MARKS,
    MAX_PIXELS,
    check_count,
    check_grid,
    check_phrases,
    check_pixels,
    check_text,
)

# Hexadecimal digits of a picture's SHA-256 that name it.
_ID_LENGTH = 32


class UnknownEmbeddingError(InputError):
    """No encoded picture has that id, or has it any more."""


@dataclass(frozen=True)
class Ranking:
    """Which masks are kept; None leaves a value to the preset.

    Attributes:
        top_k: Most masks for each phrase.
        min_score: Least score.
        no_overlap: Whether each pixel goes to one mask only.
    """

    top_k: int | None = None
    min_score: float | None = None
    no_overlap: bool | None = None


@dataclass(frozen=True)
class Example:
    """What to look for, as an encoded file: exactly one of mask, points and box marks it.

    Attributes:
        image: Content of the picture's file.
        mask: Content of the mask's file.
        points: (N, 2) in pixels of the example, (x, y), all on the object.
        box: XYXY in pixels of the example.
        label: What to call it.
    """

    image: bytes
    mask: bytes | None = None
    points: Numbers | None = None
    box: Numbers | None = None
    label: str | None = None


class Answerer:
    """Answers requests with one pipeline; safe to share by threads.

    Args:
        pipeline: Encodes pictures and finds masks.
        preset: Its name, for the answers.
        max_pixels: Larger pictures are refused: coordinates would not fit a scaled one.
        embedding_capacity: Bytes of encoded pictures that are kept.
        most_embeddings: How many of them are kept.

    Raises:
        InputError: A limit is not positive.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        preset: str,
        *,
        max_pixels: int = MAX_PIXELS,
        embedding_capacity: int = MAX_EMBEDDING_BYTES,
        most_embeddings: int = MAX_EMBEDDINGS,
    ) -> None:
        for name, value in (
            ("max_pixels", max_pixels),
            ("embedding_capacity", embedding_capacity),
            ("most_embeddings", most_embeddings),
        ):
            if value < 1:
                raise InputError(f"{name} must be 1 or more, not {value}")
        self.pipeline = pipeline
        self.preset = preset
        self.max_pixels = max_pixels
        self.embeddings: ByteCache[str, ImageEmbedding] = ByteCache(
            embedding_capacity, embedding_bytes, most_embeddings
        )

    def encode(self, content: bytes) -> tuple[str, ImageEmbedding]:
        """Return a picture's id, which depends on its file alone, and the encoded picture.

        Args:
            content: The content of an image file.

        Raises:
            InputError: It cannot be read, or is too large.
        """
        name = hashlib.sha256(content).hexdigest()[:_ID_LENGTH]

        def run() -> ImageEmbedding:
            return self.pipeline.encode_image(self.decode(content, "image"))

        return name, self.embeddings.get(name, run)

    def find(self, name: str) -> ImageEmbedding:
        """Return an encoded picture.

        Raises:
            UnknownEmbeddingError: It is not kept, or not any more.
        """
        embedding = self.embeddings.find(name)
        if embedding is None:
            raise UnknownEmbeddingError(
                f"there is no encoded picture {name[:_ID_LENGTH]!r}, or not any more; send the "
                "picture again"
            )
        return embedding

    def decode(self, content: bytes, what: str) -> UInt8Array:
        """Return the pixels of an image file, (H, W, 3).

        Raises:
            InputError: It cannot be read, or is too large; the message says ``what`` it is.
        """
        self._check_size(content, what)
        try:
            return load_image(content)
        except InputError as error:
            raise InputError(str(error).replace("the image", f"the {what}", 1)) from error

    def segment(
        self, embedding: ImageEmbedding, query: Query, ranking: Ranking | None = None
    ) -> Result:
        """Return the ranked masks of a query.

        Raises:
            InputError: The query does not fit the picture, or a threshold is out of range.
        """
        ranking = ranking or Ranking()
        return self.pipeline.rank(
            self.pipeline.propose(embedding, query),
            top_k=ranking.top_k,
            min_score=ranking.min_score,
            no_overlap=ranking.no_overlap,
        )

    def everything(self, embedding: ImageEmbedding, points_per_side: int | None = None) -> Result:
        """Return masks all over a picture.

        Args:
            embedding: The encoded picture.
            points_per_side: Of the grid; None for the preset's own.

        Raises:
            InputError: The grid is too fine.
        """
        if points_per_side is not None:
            check_grid(points_per_side)
        return self.pipeline.everything(
            embedding,
            points_per_side=points_per_side,
            progress=lambda done, total: check_waiting(),
        )

    def query(
        self,
        text: str | Sequence[str] | None = None,
        *,
        negative_text: str | Sequence[str] | None = None,
        points: Numbers | None = None,
        point_labels: Numbers | None = None,
        boxes: Numbers | None = None,
        example: Example | None = None,
        min_presence: float | None = None,
    ) -> Query:
        """Return a checked query, within the limits.

        Args:
            text: As for :class:`~promptseg.pipeline.query.Query`, and so are all others.
            negative_text: Phrases whose masks are not wanted.
            points: (N, 2).
            point_labels: (N,).
            boxes: (B, 4).
            example: What to look for, as a picture.
            min_presence: Least presence.

        Raises:
            InputError: There is too much of something, or it has no meaning.
        """
        query = Query(
            text,
            negative_text=negative_text,
            reference=None if example is None else self._reference(example),
            points=points,
            point_labels=point_labels,
            boxes=boxes,
            min_presence=min_presence,
        )
        check_phrases("phrases", query.text)
        check_phrases("negatives", query.negative_text)
        marks = query.marks
        check_count("points and boxes", len(marks.points) + len(marks.boxes), MAX_MARKS)
        return query

    def _reference(self, example: Example) -> Reference:
        label = check_text("the label", example.label or "reference", MAX_LABEL)
        return Reference(
            self.decode(example.image, "reference"),
            mask=None if example.mask is None else self._decode_mask(example.mask),
            point=example.points,
            box=example.box,
            label=label,
        )

    def _decode_mask(self, content: bytes) -> BoolArray:
        self._check_size(content, "mask")
        return load_mask(content)

    def _check_size(self, content: bytes, what: str) -> None:
        if len(content) > MAX_FILE_BYTES:
            raise InputError(
                f"the {what} has {len(content) / 1e6:.0f} MB; give at most "
                f"{MAX_FILE_BYTES / 1e6:.0f} MB"
            )
        try:
            with open_picture(BytesIO(content), f"the {what}") as image:
                size = image.size
        except Exception:  # of a decoder that reads damaged data
            return  # what reads the pixels says what is wrong
        check_pixels(f"the {what}", size, self.max_pixels)
