"""Runs an image encoder on one image or on several of one shape together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch

from ...models.device import autocast
from ...models.sam.sam import PromptableModel, Sam
from ..cache.encoded import Encoded
from ..checks import UInt8Array


@torch.no_grad()
def encode_arrays(
    model: PromptableModel, arrays: Sequence[UInt8Array], dtype: torch.dtype
) -> list[Encoded]:
    """Encode images (H, W, 3) uint8 RGB; those of one input shape that follow each other together.

    Args:
        model: Encodes several images together if it is a :class:`Sam`, others one by one.
        arrays: The images; all of them are held in memory as the model's input.
        dtype: Type to compute in; features are float32.
    """
    inputs = [model.preprocess(array) for array in arrays]
    found: list[Encoded] = []
    for _, same in groupby(inputs, key=lambda item: item[0].shape):
        group = list(same)
        batches = [group] if isinstance(model, Sam) else [[item] for item in group]
        for batch in batches:
            values = batch[0][0] if len(batch) == 1 else torch.cat([x for x, _ in batch])
            with autocast(model.device, dtype):
                features = model.encode_image(values)
            for part, (_, size) in zip(features.to_float32().split(), batch, strict=True):
                found.append(Encoded(part, size))
    return found
