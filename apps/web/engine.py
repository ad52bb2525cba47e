"""Answers requests: loads presets, reads pictures, and caches expensive values within limits."""

from __future__ import annotations

import contextlib
import io
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from cachetools import LRUCache
from PIL import Image, ImageOps

from ...models.embedding import ImageEmbedding
from ...models.errors import InputError
from ...pipeline.checks import BoolArray, UInt8Array
from ...pipeline.images import load_image, load_mask, open_picture
from ...pipeline.pipeline import Pipeline
from ...pipeline.presets.load import load as load_preset
from ...pipeline.prompters.reference.examples import Reference
from ...pipeline.proposals import Proposals
from ...pipeline.result import Result
from ..service.asker import check_waiting
from ..service.cache import ByteCache, embedding_bytes
from ..service.limits import (
    MAX_FILE_PIXELS,
    MAX_PAINTING_PIXELS,
    MAX_PIXELS,
    check_pixels,
)
from .request import Example, Request, Setup

# Limits for encoded pictures and decoded masks, shared by all users.
EMBEDDING_BYTES = 512 * 2**20
PROPOSAL_BYTES = 128 * 2**20
MAX_PIPELINES = 2
# How far the aspect ratio of a mask may differ from its picture's, which may have been scaled.
_ASPECT_TOLERANCE = 0.01

# Called with what is being done.
Progress = Callable[[str], None]
T = TypeVar("T")


def _silent(what: str) -> None:
    """Report to nobody."""


class Engine:
    """Computes everything the app shows. All users of a process share one.

    Args:
        max_pixels: Larger pictures are scaled down to this many pixels.
        load: Loads a preset by name, given ``device``.
        embedding_capacity: Bytes for encoded pictures.
        proposal_capacity: Bytes for decoded masks.
    """

    def __init__(
        self,
        max_pixels: int = MAX_PIXELS,
        load: Callable[..., Pipeline] = load_preset,
        *,
        embedding_capacity: int = EMBEDDING_BYTES,
        proposal_capacity: int = PROPOSAL_BYTES,
    ) -> None:
        if max_pixels < 1:
            raise InputError(f"max_pixels must be 1 or more, not {max_pixels}")
        self.max_pixels = max_pixels
        self.embeddings: ByteCache[tuple[Setup, Path], ImageEmbedding] = ByteCache(
            embedding_capacity, embedding_bytes
        )
        self.proposals: ByteCache[Request, Proposals] = ByteCache(
            proposal_capacity, _proposal_bytes
        )
        self._load = load
        self._pipelines: LRUCache[Setup, Pipeline] = LRUCache(MAX_PIPELINES)
        self._loading = threading.Lock()
        # One large picture is decoded at a time: it needs far more memory than what is kept of it.
        self._decoding = threading.Lock()

    def pipeline(self, setup: Setup, progress: Progress = _silent) -> Pipeline:
        """Return a preset's pipeline, loaded first if need be.

        Raises:
            InputError: The device is unknown or not available.
            CheckpointError: Weights are missing.
            ModelNotFoundError: There is no such preset.
        """
        # Whoever else needs a preset that is being loaded waits for it here.
        with self._loading:
            with contextlib.suppress(KeyError):
                return self._pipelines[setup]
            progress(f"Loading {setup.preset}")
            # The least recently used one goes first, so that never three are in memory.
            while len(self._pipelines) >= MAX_PIPELINES:
                self._pipelines.popitem()
            self._pipelines[setup] = pipeline = self._load(setup.preset, device=setup.device)
            return pipeline

    def read(self, picture: Path) -> UInt8Array:
        """Return a picture, (H, W, 3), scaled down to :attr:`max_pixels` if it is larger.

        Raises:
            InputError: The file is gone, has too many pixels, or cannot be read as an image.
        """
        return _named(picture, lambda path: _scaled(self._open(path, load_image), self.max_pixels))

    def read_mask(self, mask: Path) -> BoolArray:
        """Return a mask, (H, W), scaled down as :meth:`read` does.

        Raises:
            InputError: As for :meth:`read`.
        """
        return _named(mask, lambda path: self._open(path, load_mask, Image.Resampling.NEAREST))

    def _open(
        self,
        path: Path,
        load: Callable[[Path | Image.Image], T],
        resampling: Image.Resampling = Image.Resampling.LANCZOS,
    ) -> T:
        size = self.original_size(path)
        check_pixels(path.name, size, max(self.max_pixels, MAX_FILE_PIXELS))
        if size[0] * size[1] <= self.max_pixels:
            return load(path)
        with self._decoding:
            return load(_decode_reduced(path, self.max_pixels, resampling))

    def original_size(self, picture: Path) -> tuple[int, int]:
        """Return a picture's width and height before scaling, from its file's header."""
        try:
            with open_picture(picture, picture.name) as image:
                return image.size
        except Exception:  # of a decoder that reads damaged data
            return 0, 0  # read() reports what is wrong with the file

    def encode(self, setup: Setup, picture: Path, progress: Progress = _silent) -> ImageEmbedding:
        """Return an encoded picture, from the cache if it is there.

        Raises:
            InputError: The picture cannot be read.
        """

        def run() -> ImageEmbedding:
            pixels = self.read(picture)  # before the models: a bad file fails at once
            pipeline = self.pipeline(setup, progress)
            progress("Encoding the picture")
            return pipeline.encode_image(pixels)

        return self.embeddings.get((setup, picture), run)

    def propose(self, request: Request, progress: Progress = _silent) -> Proposals:
        """Return all masks that a request finds, unranked, from the cache if they are there.

        Raises:
            InputError: The picture cannot be read, or the request is not valid or exceeds a limit.
        """
        request.check()

        def run() -> Proposals:
            # The picture stays with the cached embedding; measuring proposals does not count it.
            return replace(self._propose(request, progress), image=None)

        return self.proposals.get(request, run)

    def answer(
        self,
        request: Request,
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        progress: Progress = _silent,
    ) -> Result:
        """Return the ranked masks of a request. New thresholds only rank again.

        Raises:
            InputError: As for :meth:`propose`, or a threshold is out of range.
        """
        proposals = self.propose(request, progress)
        pipeline = self.pipeline(request.setup, progress)
        return pipeline.rank(proposals, top_k=top_k, min_score=min_score)

    def _propose(self, request: Request, progress: Progress) -> Proposals:
        embedding = self.encode(request.setup, request.picture, progress)
        pipeline = self.pipeline(request.setup, progress)
        if request.everything:

            def report(done: int, total: int) -> None:
                check_waiting()
                progress(f"{done} of {total} grid points done")

            return pipeline.propose_everything(
                embedding, points_per_side=request.points_per_side, progress=report
            )
        reference = None if request.example is None else self._reference(request.example)
        query = request.query(reference)
        progress("Searching")
        return pipeline.propose(embedding, query)

    def _reference(self, example: Example) -> Reference:
        pixels = self.read(example.picture)
        size = pixels.shape[0], pixels.shape[1]
        if example.mask is not None:
            mask = self.read_mask(example.mask)
            if abs(mask.shape[1] * size[0] / (mask.shape[0] * size[1]) - 1) > _ASPECT_TOLERANCE:
                raise InputError(
                    f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels and its picture "
                    f"{size[1]} x {size[0]}; give a mask with the picture's aspect ratio"
                )
            return Reference(pixels, _resized(mask, size), label=example.label)
        if example.painted is not None:
            mask = read_painted(example.painted, size)
            if not mask.any():
                raise InputError("nothing is painted on the example; paint over the object")
            return Reference(pixels, mask, label=example.label)
        clicks, boxes = example.marks.clicks, example.marks.boxes
        if len(boxes) > 1 or (boxes and clicks):
            raise InputError("mark the example with either one box or clicks; clear the rest")
        if any(click.label == 0 for click in clicks):
            raise InputError("all clicks on an example must be on the object; clear the others")
        if boxes:
            return Reference(pixels, box=boxes[0], label=example.label)
        if not clicks:
            raise InputError(
                "show which object of the example you mean: click it, draw a box around it, paint "
                "over it, or upload its mask"
            )
        return Reference(pixels, point=[click.point for click in clicks], label=example.label)


def read_painted(png: bytes, size: tuple[int, int]) -> BoolArray:
    """Return the opaque pixels of a PNG as a mask, scaled to ``size`` (H, W).

    Raises:
        InputError: It is not a PNG, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            check_pixels("the painting", image.size, MAX_PAINTING_PIXELS)
            alpha = np.asarray(image.convert("RGBA"))[..., 3] > 127
    except InputError:
        raise
    except Exception as error:  # a decoder may raise anything on damaged data
        raise InputError("the painting cannot be read; paint again") from error
    return _resized(alpha, size)


def _named(path: Path, read: Callable[[Path], T]) -> T:
    """Read an upload. Errors give its name instead of its path on the server."""
    if not path.is_file():
        raise InputError(f"{path.name!r} is no longer on the server; upload it again")
    try:
        return read(path)
    except InputError as error:
        raise InputError(str(error).replace(repr(str(path)), repr(path.name))) from error


def _decode_reduced(path: Path, most: int, resampling: Image.Resampling) -> Image.Image:
    """Decode a large picture to at most ``most`` pixels, never holding it as several arrays."""
    try:
        with open_picture(path, repr(path.name)) as image:
            kind = image.format
            image.draft(image.mode, _within(image.size, most))  # of a JPEG, as few pixels as needed
            reduced: Image.Image = image
            if kind == "TIFF":  # whose orientation is not kept by resizing
                reduced = ImageOps.exif_transpose(image)
            if resampling != Image.Resampling.NEAREST:
                reduced, resampling = _smooth(reduced)
            reduced = reduced.resize(_within(reduced.size, most), resampling)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a decoder may raise anything on damaged data
        raise InputError(f"{path.name!r} is damaged or truncated; save it again") from error
    reduced.format = kind  # which says whether a mask's black is exact
    return reduced


def _smooth(image: Image.Image) -> tuple[Image.Image, Image.Resampling]:
    """Return a picture in a mode that can be averaged, and how to resize it."""
    if image.mode.startswith(("I", "F")):
        return image, Image.Resampling.NEAREST  # deep greys, which may hold NaN
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBa"):
        return image.convert("RGBA"), Image.Resampling.LANCZOS
    if image.mode in ("1", "P"):
        return image.convert("RGB"), Image.Resampling.LANCZOS
    return image, Image.Resampling.LANCZOS


def _within(size: tuple[int, int], most: int) -> tuple[int, int]:
    """Return (width, height) of at most ``most`` pixels, with the aspect ratio of ``size``."""
    width, height = size
    share = min(1.0, math.sqrt(most / (height * width)))
    return max(1, int(width * share)), max(1, int(height * share))


def _scaled(pixels: UInt8Array, most: int) -> UInt8Array:
    height, width = pixels.shape[:2]
    if height * width <= most:
        return pixels
    size = _within((width, height), most)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _resized(mask: BoolArray, size: tuple[int, int]) -> BoolArray:
    if mask.shape == size:
        return mask
    image = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(image, dtype=np.bool_)


def _proposal_bytes(proposals: Proposals) -> int:
    own = sum(len(mask.counts) + 500 for mask in proposals.masks)
    own += sum(
        500 + (0 if item.compact_mask is None else len(item.compact_mask.counts))
        for item in proposals.rejected
    )
    return own + (0 if proposals.negatives is None else _proposal_bytes(proposals.negatives))
