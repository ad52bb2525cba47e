"""Loading a preset."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ...models.device import check_support, read_device, read_dtype
from ..pipeline import Pipeline
from .catalog import LoadOptions, get_preset
from .pocket import build_pocket
from .published import BASE, LARGE, MOBILE, build_published

_BUILDERS: dict[str, Callable[[LoadOptions], Pipeline]] = {
    "pocket": build_pocket,
    "mobile": partial(build_published, MOBILE),
    "base": partial(build_published, BASE),
    "large": partial(build_published, LARGE),
}


def load(
    preset: str = "pocket",
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "fp32",
    weights: str | Path | None = None,
    strategy: str | None = None,
    debias: bool = False,
) -> Pipeline:
    """Load a preset. Nothing is downloaded: `promptseg models fetch PRESET` does that.

    Args:
        preset: A name of ``PRESETS``.
        device: Where the networks run.
        dtype: "fp32", "bf16" or "fp16": what networks compute in, inside their calls only.
        weights: A folder to look for weights in, before the Hugging Face hub's cache; by default
            the one that the environment's PROMPTSEG_WEIGHTS names.
        strategy: How references are matched: "prototype", "bidirectional" or "graph"; by default
            the preset's choice.
        debias: Whether references are matched without what the features tell of the place (see
            :mod:`~promptseg.pipeline.prompters.reference.debias`); an option for transformers'.

    Raises:
        InputError: There is no such device or dtype, or the one cannot compute in the other.
        ModelNotFoundError: There is no preset or strategy of that name.
        CheckpointError: Weights are missing or broken; the message has the command that helps.
    """
    name = get_preset(preset).name
    place, arithmetic = read_device(device), read_dtype(dtype)
    check_support(place, arithmetic)
    folder = None if weights is None else Path(weights)
    return _BUILDERS[name](LoadOptions(place, arithmetic, folder, strategy, debias))
