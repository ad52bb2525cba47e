"""Loads presets by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ...models.device import check_support, read_device, read_dtype
from ...models.errors import InputError
from ..cache.store import EmbeddingCache
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
    exported: str | Path | None = None,
    runtime: str | None = None,
    cache: str | Path | EmbeddingCache | None = None,
) -> Pipeline:
    """Load a preset. Nothing is downloaded: `promptseg models fetch PRESET` does that.

    Args:
        preset: A name of ``PRESETS``.
        device: Device that the networks run on.
        dtype: "fp32", "bf16", "fp16" or "auto", which is bf16 where the device has it in hardware
            and fp32 elsewhere, for ``pocket`` on any CPU too: precision of the computations
            inside the networks; results stay float32.
        weights: Folder to search for weights before the Hugging Face hub's cache; by default the
            one that the environment variable PROMPTSEG_WEIGHTS names.
        strategy: How references are matched: "prototype", "bidirectional" or "graph"; by default
            the preset's choice.
        debias: Whether positional information is removed from features before references are
            matched (see :mod:`~promptseg.pipeline.prompters.reference.debias`); useful for vision
            transformers.
        exported: Folder that `promptseg export` wrote: images are encoded and masks decoded from
            it, on the CPU; text and references stay in torch.
        runtime: What runs the folder, "onnx" or "openvino"; by default what it was written for.
        cache: Folder to keep encoded images in, for later queries and other processes; an
            :class:`~promptseg.pipeline.cache.store.EmbeddingCache` has another limit than 10 GB.

    Raises:
        InputError: The device or dtype is unknown, the device does not support the dtype,
            ``weights`` or ``exported`` is not a path, or the exported folder is another model's
            or cannot be run here, or ``cache`` is not a folder that can be written to.
        ModelNotFoundError: No preset or strategy has that name.
        CheckpointError: Weights are missing or broken; the message names the command that helps.
    """
    chosen = get_preset(preset)
    place = read_device(device)
    if dtype == "auto" and chosen.exact_on_cpu and place.type == "cpu":
        dtype = "fp32"
    arithmetic = read_dtype(dtype, place)
    check_support(place, arithmetic)
    options = LoadOptions(
        place,
        arithmetic,
        _read_path("weights", weights),
        strategy,
        debias,
        _read_path("exported", exported),
        runtime,
        EmbeddingCache(cache) if isinstance(cache, (str, Path)) else cache,
    )
    return _BUILDERS[chosen.name](options)


def _read_path(name: str, value: str | Path | None) -> Path | None:
    if value is not None and not isinstance(value, (str, Path)):
        raise InputError(f"{name} must be the path of a folder, not {value!r}")
    return None if value is None else Path(value)
