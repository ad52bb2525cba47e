"""Encoded images in a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...models.checkpoint import fingerprint
from ...models.embedding import ImageFeatures
from ...models.errors import InputError
from ...models.sam.sam import PromptableModel
from ..checks import UInt8Array
from .store import CachePart, EmbeddingCache


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a SAM's encoder makes of an image.

    Attributes:
        features: Its output, in float32.
        input_size: (H', W') of the image within the model input, without padding.
    """

    features: ImageFeatures
    input_size: tuple[int, int]


def encoded_images(
    cache: EmbeddingCache, model: PromptableModel, model_id: str, dtype: torch.dtype
) -> CachePart[Encoded]:
    """Return what a cache holds of a SAM.

    Raises:
        InputError: Nothing tells the model's weights from others.
    """
    identity = identity_of(model)
    return cache.part(
        Encoded,
        lambda: f"{model_id} {model.image_size} {identity()}",
        dtype=dtype,
        device=model.device,
    )


def identity_of(model: object) -> Callable[[], str]:
    """Return what computes the fingerprint of a model's weights.

    Raises:
        InputError: Nothing tells the model's weights from others.
    """
    if isinstance(model, nn.Module):
        return lambda: fingerprint(model)
    own: Callable[[], str] | None = getattr(model, "fingerprint", None)
    if own is None:
        raise InputError(
            f"a {type(model).__name__} cannot be cached: give it a method fingerprint() that "
            "returns a text that tells its weights from others, or load it without a cache"
        )
    return own


def encode_cached(
    part: CachePart[Encoded] | None,
    arrays: Sequence[UInt8Array],
    encode: Callable[[list[UInt8Array]], list[Encoded]],
) -> list[Encoded]:
    """Return images encoded; those that the cache lacks are encoded together.

    Args:
        part: What the cache holds; None for no cache.
        arrays: Images (H, W, 3) uint8 RGB.
        encode: Encodes images.
    """
    if part is None:
        return encode(list(arrays))
    names = [part.name(array) for array in arrays]
    found: dict[str, Encoded] = {}
    missing: dict[str, UInt8Array] = {}
    for name, array in zip(names, arrays, strict=True):
        kept = None if name in found else part.find(name)
        if kept is not None:
            found[name] = kept
        elif name not in found:
            missing[name] = array
    if missing:
        for name, encoded in zip(missing, encode(list(missing.values())), strict=True):
            part.keep(name, encoded)
            found[name] = encoded
    return [found[name] for name in names]
