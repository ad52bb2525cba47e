"""Loads presets by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ...models.device import check_support, read_device, read_dtype
from ...models.errors import InputError
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
    dtype: str | torch.dtype = "auto",
    weights: str | Path | None = None,
    strategy: str | None = None,
    debias: bool = False,
) -> Pipeline:
    """Load a preset. Nothing is downloaded: `promptseg models fetch PRESET` does that.

    Args:
        preset: A name of ``PRESETS``.
        device: Device that the networks run on.
        dtype: "fp32", "bf16", "fp16" or "auto", which is bf16 where the device has it in hardware
            and fp32 elsewhere: precision of the computations inside the networks;
            weights and results stay float32.
        weights: Folder to search for weights before the Hugging Face hub's cache; by default the
            one that the environment variable PROMPTSEG_WEIGHTS names.
        strategy: How references are matched: "prototype", "bidirectional" or "graph"; by default
            the preset's choice.
        debias: Whether positional information is removed from features before references are
            matched (see :mod:`~promptseg.pipeline.prompters.reference.debias`); useful for vision
            transformers.

    Raises:
        InputError: The device or dtype is unknown, the device does not support the dtype, or
            ``weights`` is not a path.
        ModelNotFoundError: No preset or strategy has that name.
        CheckpointError: Weights are missing or broken; the message names the command that helps.
    """
    name = get_preset(preset).name
    place = read_device(device)
    arithmetic = read_dtype(dtype, place)
    check_support(place, arithmetic)
    if weights is not None and not isinstance(weights, (str, Path)):
        raise InputError(f"weights must be the path of a folder, not {weights!r}")
    folder = None if weights is None else Path(weights)
    return _BUILDERS[name](LoadOptions(place, arithmetic, folder, strategy, debias))
