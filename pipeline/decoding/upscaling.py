"""Low-resolution logits to masks at the image's size, a bounded number of pixels at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...models.embedding import ImageEmbedding
from ...models.sam.sam import PromptableModel
from ..checks import Float32Array
from ..compact_mask import CompactMask, Piece

# Offset of the two thresholds, in logits, whose masks are compared for the stability score.
STABILITY_OFFSET = 1.0
# Most full-size logits held at a time (64 MiB of float32); at least those of one column.
MAX_LOGIT_PIXELS = 2**24
# On a CPU what fits its caches takes half the time.
_CACHED_PIXELS = 2**21
# Masks of larger images are upscaled one by one, and only in the columns that they reach.
_WHOLE_PIXELS = 2**22
# Beyond this many cells of the logits, interpolation does not carry a cell's value.
_REACH = 2
_TIMES_WIDE = 4


class UpscaledMask(NamedTuple):
    """A mask at the image's size, and its stability score in [0, 1]."""

    mask: CompactMask
    stability_score: np.float32


def stability_score(
    logits: Tensor, mask_threshold: float = 0.0, offset: float = STABILITY_OFFSET
) -> Tensor:
    """Return the IoU of the masks thresholded ``offset`` logits higher and lower.

    The lower threshold's mask contains the other one, so the IoU is a quotient of areas. Source:
    Kirillov et al. 2023, "Segment Anything", appendix B.

    Args:
        logits: (..., H, W).
        mask_threshold: Threshold of the mask itself.
        offset: Distance of the two thresholds from it.

    Returns:
        (...) in [0, 1]; 0 where even the larger mask is empty.
    """
    inner = _areas(logits > mask_threshold + offset)
    outer = _areas(logits > mask_threshold - offset)
    return inner / outer.clamp(min=1)


def upscale_blocks(
    model: PromptableModel, logits: Float32Array, embedding: ImageEmbedding
) -> Iterator[tuple[slice, Tensor]]:
    """Yield logits (M, h, w) upscaled to the image's size, some masks at a time."""
    largest = max(model.image_size**2, math.prod(embedding.original_size))
    most = MAX_LOGIT_PIXELS
    if model.device.type == "cpu":
        most = min(most, _CACHED_PIXELS)
    step = max(1, most // largest)
    for start in range(0, logits.shape[0], step):
        part = slice(start, start + step)
        x = model.postprocess_masks(
            torch.from_numpy(logits[part]).to(model.device).unsqueeze(1),
            input_size=embedding.input_size,
            original_size=embedding.original_size,
        )
        yield part, x.squeeze(1)


@torch.no_grad()
def upscale_compact(
    model: PromptableModel,
    logits: Float32Array,
    embedding: ImageEmbedding,
    offset: float = STABILITY_OFFSET,
    min_stability: float = 0.0,
) -> Iterator[UpscaledMask]:
    """Yield masks at the image's size without ever holding all of their pixels.

    Args:
        model: Decoded the logits, and upscales them.
        logits: (M, h, w).
        embedding: The encoded image.
        offset: As for :func:`stability_score`.
        min_stability: Of masks that are less stable only the score is of use: their pixels may be
            left out, which saves time.
    """
    size, threshold = embedding.original_size, model.mask_threshold
    if math.prod(size) <= _WHOLE_PIXELS:
        for _, upscaled in upscale_blocks(model, logits, embedding):
            for plane in upscaled:
                stability = _quotient(*_two_areas(plane, threshold, offset))
                wanted = stability >= np.float32(min_stability)
                pieces = [(0, 0, (plane > threshold).cpu().numpy())] if wanted else []
                yield UpscaledMask(CompactMask.join(pieces, size), stability)
    else:
        for plane in logits:
            columns = _columns(model, plane, embedding, threshold - offset)
            yield _pack(columns, threshold, offset, size)


def _columns(
    model: PromptableModel, logits: Float32Array, embedding: ImageEmbedding, least: float
) -> Iterator[tuple[int, Tensor]]:
    """Yield the first column and the upscaled logits (H, n) of all columns with any above least."""
    height, width = embedding.original_size
    reached = np.flatnonzero((logits > least).any(axis=0))
    if not reached.size:
        return
    cell = model.image_size / logits.shape[1] * width / embedding.input_size[1]
    left = max(0, math.floor((int(reached[0]) - _REACH) * cell))
    right = min(width, math.ceil((int(reached[-1]) + 1 + _REACH) * cell))
    # Each piece begins with a resize of the input's rows to the image's width.
    pixels = min(MAX_LOGIT_PIXELS, _TIMES_WIDE * embedding.input_size[0] * width)
    step = max(1, pixels // height)
    for start in range(left, right, step):
        x = model.postprocess_masks(
            torch.from_numpy(logits).to(model.device)[None, None],
            input_size=embedding.input_size,
            original_size=embedding.original_size,
            columns=(start, min(start + step, right)),
        )
        yield start, x[0, 0]


def _pack(
    pieces: Iterable[tuple[int, Tensor]],
    threshold: float,
    offset: float,
    size: tuple[int, int],
) -> UpscaledMask:
    """Threshold upscaled logits that are given in pieces: the first column and (H, n)."""
    inner = outer = 0

    def thresholded() -> Iterator[Piece]:
        nonlocal inner, outer
        for start, logits in pieces:
            areas = _two_areas(logits, threshold, offset)
            inner, outer = inner + areas[0], outer + areas[1]
            yield start, 0, (logits > threshold).cpu().numpy()

    mask = CompactMask.join(thresholded(), size)
    return UpscaledMask(mask, _quotient(inner, outer))


def _two_areas(logits: Tensor, threshold: float, offset: float) -> tuple[int, int]:
    """Return the pixels of the masks at the higher and at the lower of two thresholds."""
    return _area(logits > threshold + offset), _area(logits > threshold - offset)


def _quotient(inner: int, outer: int) -> np.float32:
    quotient: np.float32 = np.float32(inner) / np.float32(max(outer, 1))
    return quotient


def _area(mask: Tensor) -> int:
    """Return the number of pixels of a mask."""
    if mask.device.type == "cpu":  # several times as fast as a sum
        return int(np.count_nonzero(mask.numpy()))
    return int(mask.sum())


def _areas(masks: Tensor) -> Tensor:
    """Return the number of pixels of masks (..., H, W)."""
    # Summing rows in a narrow type first is several times as fast as one sum in a wide type.
    row = torch.int16 if masks.shape[-1] < 2**15 else torch.int32
    return masks.sum(-1, dtype=row).sum(-1, dtype=torch.int64)
