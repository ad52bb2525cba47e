"""Answers requests: loads presets, reads pictures, and keeps what is dear to compute, bounded."""

from __future__ import annotations

import io
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from ...models.embedding import ImageEmbedding
from ...models.errors import InputError
from ...pipeline.checks import BoolArray, UInt8Array
from ...pipeline.images import load_image, load_mask
from ...pipeline.pipeline import Pipeline
from ...pipeline.prompters.reference.examples import Reference
from ...pipeline.proposals import Proposals
from ...pipeline.query import Query
from ...pipeline.result import Result
from ..console import load_pipeline
from .cache import ByteCache
from .request import Example, Request, Setup

MAX_PIXELS = 4_000_000
# Bytes that encoded pictures and decoded masks may take, of all users together.
EMBEDDING_BYTES = 512 * 2**20
PROPOSAL_BYTES = 128 * 2**20
# Presets that stay loaded; the one used longest ago makes room.
MOST_PIPELINES = 2
# How far a mask's aspect may be off its picture's, which may have been scaled down.
_SAME_SHAPE = 0.01

# Told how far it is, in [0, 1], and what is going on.
Progress = Callable[[float, str], None]
T = TypeVar("T")


def _silent(share: float, what: str) -> None:
    """Tell nobody."""


class Engine:
    """All that the app computes; one for the process, shared by its users.

    Args:
        max_pixels: Larger pictures are scaled down to as many pixels.
        load: Loads a preset on a device.
        embedding_bytes: What encoded pictures may take.
        proposal_bytes: What masks that were decoded may take.
    """

    def __init__(
        self,
        max_pixels: int = MAX_PIXELS,
        load: Callable[[str, str], Pipeline] = load_pipeline,
        *,
        embedding_bytes: int = EMBEDDING_BYTES,
        proposal_bytes: int = PROPOSAL_BYTES,
    ) -> None:
        if max_pixels < 1:
            raise InputError(f"max_pixels must be 1 or more, not {max_pixels}")
        self.max_pixels = max_pixels
        self.embeddings: ByteCache[tuple[Setup, Path], ImageEmbedding] = ByteCache(
            embedding_bytes, _embedding_bytes
        )
        self.proposals: ByteCache[Request, Proposals] = ByteCache(proposal_bytes, _proposal_bytes)
        self._load = load
        self._pipelines: OrderedDict[Setup, Pipeline] = OrderedDict()
        self._loading = threading.Lock()

    def pipeline(self, setup: Setup, progress: Progress = _silent) -> Pipeline:
        """Return a preset, loaded if need be.

        Raises:
            InputError: The device is unknown or not there.
            CheckpointError: Weights are missing.
            ModelNotFoundError: There is no such preset.
        """
        # Who needs a preset that is being loaded waits for it, rather than loading it as well.
        with self._loading:
            found = self._pipelines.get(setup)
            if found is None:
                progress(0.05, f"Loading {setup.preset}")
                while len(self._pipelines) >= MOST_PIPELINES:
                    self._pipelines.popitem(last=False)
                found = self._pipelines[setup] = self._load(setup.preset, setup.device)
            self._pipelines.move_to_end(setup)
            return found

    def read(self, picture: Path) -> UInt8Array:
        """Return a picture (H, W, 3), of at most :attr:`max_pixels`.

        Raises:
            InputError: It is not there any more, or is no picture.
        """
        return _scaled(_named(picture, load_image), self.max_pixels)

    def original_size(self, picture: Path) -> tuple[int, int]:
        """Return width and height of a file's picture as it is stored; its data are not read."""
        try:
            with Image.open(picture) as image:
                return image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return 0, 0  # reading it says what is wrong with it

    def encode(self, setup: Setup, picture: Path, progress: Progress = _silent) -> ImageEmbedding:
        """Return an encoded picture; it is encoded once, as long as the cache has room.

        Raises:
            InputError: The picture cannot be read.
        """

        def run() -> ImageEmbedding:
            pixels = self.read(picture)  # first: a wrong file is told at once
            pipeline = self.pipeline(setup, progress)
            progress(0.4, "Reading the picture")
            return pipeline.segmenter.encode_image(pixels)

        return self.embeddings.get((setup, picture), run)

    def propose(self, request: Request, progress: Progress = _silent) -> Proposals:
        """Return all masks that a request finds, before any is chosen; cached as above.

        Raises:
            InputError: The picture cannot be read, or the request makes no sense.
        """
        return self.proposals.get(request, lambda: self._propose(request, progress))

    def answer(
        self,
        request: Request,
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        progress: Progress = _silent,
    ) -> Result:
        """Return the ranked masks of a request; what was found before is only ranked again.

        Raises:
            InputError: As for :meth:`propose`, or a threshold is out of its range.
        """
        proposals = self.propose(request, progress)
        pipeline = self.pipeline(request.setup, progress)
        return pipeline.rank(proposals, top_k=top_k, min_score=min_score)

    def _propose(self, request: Request, progress: Progress) -> Proposals:
        if request.everything:
            return self._propose_everything(request, progress)
        embedding = self.encode(request.setup, request.picture, progress)
        pipeline = self.pipeline(request.setup, progress)
        reference = None if request.example is None else self._reference(request.example)
        progress(0.7, "Looking for it")
        marks = request.marks
        query = Query(
            request.phrases,
            negative_text=request.negatives,
            reference=reference,
            points=marks.points,
            point_labels=marks.labels,
            boxes=marks.boxes,
        )
        return pipeline.propose(embedding, query)

    def _propose_everything(self, request: Request, progress: Progress) -> Proposals:
        pixels = self.read(request.picture)
        pipeline = self.pipeline(request.setup, progress)

        def clicking(done: int, total: int) -> None:
            progress(0.2 + 0.8 * done / max(total, 1), f"Clicked {done} of {total} points")

        return pipeline.propose_everything(
            pixels, points_per_side=request.points_per_side, progress=clicking
        )

    def _reference(self, example: Example) -> Reference:
        pixels = self.read(example.picture)
        size = pixels.shape[0], pixels.shape[1]
        if example.mask is not None:
            mask = _named(example.mask, load_mask)
            if abs(mask.shape[1] * size[0] / (mask.shape[0] * size[1]) - 1) > _SAME_SHAPE:
                raise InputError(
                    f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels and its picture "
                    f"{size[1]} x {size[0]}; give a mask of the picture's shape"
                )
            return Reference(pixels, _resized(mask, size), label=example.label)
        if example.painted is not None:
            mask = read_painted(example.painted, size)
            if not mask.any():
                raise InputError("nothing is painted in the example; paint over the object")
            return Reference(pixels, mask, label=example.label)
        marks = example.marks
        if len(marks.boxes) > 1 or (marks.boxes and marks.points):
            raise InputError("mark the example by one box, or by clicks alone; clear the rest")
        if 0 in marks.labels:
            raise InputError("clicks on an example must all be on the object; clear the others")
        if marks.boxes:
            return Reference(pixels, box=marks.boxes[0], label=example.label)
        if not marks.points:
            raise InputError(
                "say which object of the example is meant: click it, draw a box around it, paint "
                "it, or upload its mask"
            )
        return Reference(pixels, point=marks.points, label=example.label)


def read_painted(png: bytes, size: tuple[int, int]) -> BoolArray:
    """Return what was painted, (H, W) bool at a size: the opaque pixels of a PNG.

    Raises:
        InputError: It is no PNG.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            alpha = np.asarray(image.convert("RGBA"))[..., 3] > 127
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError("what was painted cannot be read; paint it again") from error
    return _resized(alpha, size)


def _named(path: Path, read: Callable[[Path], T]) -> T:
    """Read a file; what is wrong with it is told by its name, not by where the server keeps it."""
    if not path.is_file():
        raise InputError(f"{path.name!r} is no longer on the server; upload it again")
    try:
        return read(path)
    except InputError as error:
        raise InputError(str(error).replace(repr(str(path)), repr(path.name))) from error


def _scaled(pixels: UInt8Array, most: int) -> UInt8Array:
    height, width = pixels.shape[:2]
    if height * width <= most:
        return pixels
    share = math.sqrt(most / (height * width))
    size = max(1, int(width * share)), max(1, int(height * share))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _resized(mask: BoolArray, size: tuple[int, int]) -> BoolArray:
    if mask.shape == size:
        return mask
    image = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image, dtype=np.bool_)


def _embedding_bytes(embedding: ImageEmbedding) -> int:
    features = embedding.features
    maps = (features.image_embeddings, *features.high_res_features, *features.backbone_features)
    image = 0 if embedding.image is None else embedding.image.nbytes
    # What the text model sees in the picture lives as long as it, and is about as large.
    return image + 2 * sum(tensor.numel() * tensor.element_size() for tensor in maps)


def _proposal_bytes(proposals: Proposals) -> int:
    own = sum(len(mask.packed) + 500 for mask in proposals.masks)
    own += sum(
        500 + (0 if item.compact_mask is None else len(item.compact_mask.packed))
        for item in proposals.rejected
    )
    return own + (0 if proposals.negatives is None else _proposal_bytes(proposals.negatives))
