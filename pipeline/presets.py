"""Presets: a whole pipeline by one name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ..models.errors import ModelNotFoundError
from ..models.precision import check_support, read_device, read_dtype
from .loading import LoadOptions
from .pipeline import Pipeline
from .pocket import build_pocket
from .published import BASE, LARGE, MOBILE, build_published


@dataclass(frozen=True)
class Preset:
    """A named pipeline.

    Attributes:
        name: For :func:`load`.
        description: One line.
        build: Makes the pipeline.
    """

    name: str
    description: str
    build: Callable[[LoadOptions], Pipeline]


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "pocket",
            "EfficientNet-Lite2 for text and masks, MiniLM for phrases; all weights installed",
            build_pocket,
        ),
        Preset("mobile", "OWLv2 base, DINOv2 S/14, MobileSAM", partial(build_published, MOBILE)),
        Preset(
            "base",
            "Grounding DINO tiny with CLIP B/16 on presence, DINOv2 B/14, SAM ViT-B",
            partial(build_published, BASE),
        ),
        Preset(
            "large", "Grounding DINO base, DINOv2 L/14, SAM ViT-H", partial(build_published, LARGE)
        ),
    )
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
            :mod:`~promptseg.pipeline.prompters.matching.debias`); an option for transformers'.

    Raises:
        InputError: There is no such device or dtype, or the one cannot compute in the other.
        ModelNotFoundError: There is no preset or strategy of that name.
        CheckpointError: Weights are missing or broken; the message has the command that helps.
    """
    found = PRESETS.get(preset)
    if found is None:
        raise ModelNotFoundError(f"no preset is called {preset!r}; there are {', '.join(PRESETS)}")
    place, arithmetic = read_device(device), read_dtype(dtype)
    check_support(place, arithmetic)
    folder = None if weights is None else Path(weights)
    return found.build(LoadOptions(place, arithmetic, folder, strategy, debias))
