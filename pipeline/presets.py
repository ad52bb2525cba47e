"""Presets: a whole pipeline by one name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..models.errors import ModelNotFoundError
from ..models.precision import read_dtype
from .pipeline import Pipeline
from .pocket import build_pocket


@dataclass(frozen=True)
class Preset:
    """A named pipeline.

    Attributes:
        name: For :func:`load`.
        description: One line.
        build: Makes the pipeline on a device, in an arithmetic.
    """

    name: str
    description: str
    build: Callable[[torch.device, torch.dtype], Pipeline]


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "pocket",
            "EfficientNet-Lite2 for text and masks, MiniLM for phrases; all weights installed",
            build_pocket,
        ),
    )
}


def load(
    preset: str = "pocket",
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "fp32",
) -> Pipeline:
    """Load a preset.

    Args:
        preset: A name of ``PRESETS``.
        device: Where the models run.
        dtype: "fp32", "bf16" or "fp16": what networks compute in, inside their calls only.

    Raises:
        InputError: There is no such dtype.
        ModelNotFoundError: There is no preset of that name.
        CheckpointError: Weights are missing or broken.
    """
    found = PRESETS.get(preset)
    if found is None:
        raise ModelNotFoundError(f"no preset is called {preset!r}; there are {', '.join(PRESETS)}")
    return found.build(torch.device(device), read_dtype(dtype))
