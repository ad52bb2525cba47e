"""The presets there are and the weights that each needs; importing this does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.errors import ModelNotFoundError
from ...models.hub.sources import SOURCES, WeightSource

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preset:
    """A whole pipeline by one name.

    Attributes:
        name: For :func:`~promptseg.pipeline.presets.load.load`.
        description: One line.
        weights: Part ("text", "presence", "reference" or "masks") -> name of its published
            weights; empty where all weights are installed with the package.
    """

    name: str
    description: str
    weights: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def sources(self) -> tuple[WeightSource, ...]:
        """The published weights that it needs."""
        return tuple(SOURCES[name] for name in self.weights.values())


# OWLv2 large can stand in for Grounding DINO base, and SAM 2.1 and SAM 3 for SAM, but no preset
# needs them.
_LIST = (
    Preset(
        "pocket",
        "EfficientNet-Lite2 for text and masks, MiniLM for phrases; all weights installed",
    ),
    Preset(
        "mobile",
        "OWLv2 base, DINOv2 S/14, MobileSAM",
        {"text": "owlv2-base", "reference": "dinov2-small", "masks": "mobile-sam"},
    ),
    Preset(
        "base",
        "Grounding DINO tiny with CLIP B/16 on presence, DINOv2 B/14, SAM ViT-B",
        {
            "text": "grounding-dino-tiny",
            "presence": "clip-vit-b-16",
            "reference": "dinov2-base",
            "masks": "sam-vit-base",
        },
    ),
    Preset(
        "large",
        "Grounding DINO base, DINOv2 L/14, SAM ViT-H",
        {
            "text": "grounding-dino-base",
            "reference": "dinov2-large",
            "masks": "sam-vit-huge",
        },
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _LIST}


@dataclass(frozen=True)
class LoadOptions:
    """How a preset is to be loaded.

    Attributes:
        device: Where its networks run.
        dtype: What they compute in, inside their calls.
        weights: A folder to look for weights in before the hub's cache; None for the folder that
            PROMPTSEG_WEIGHTS names, if it does. Presets whose weights are installed ignore it.
        strategy: How references are matched; None leaves it to the preset.
        debias: Whether references are matched without what the features tell of the place.
    """

    device: torch.device
    dtype: torch.dtype
    weights: Path | None = None
    strategy: str | None = None
    debias: bool = False


def get_preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        ModelNotFoundError: There is none of that name.
    """
    found = PRESETS.get(name)
    if found is None:
        raise ModelNotFoundError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return found


def sources_for(name: str) -> tuple[WeightSource, ...]:
    """Return what a preset needs, or the one source of that name.

    Raises:
        ModelNotFoundError: Neither a preset nor a source has that name.
    """
    if name in PRESETS:
        return PRESETS[name].sources
    if name in SOURCES:
        return (SOURCES[name],)
    raise ModelNotFoundError(
        f"no preset and no weights are called {name!r}; there are the presets "
        f"{', '.join(PRESETS)} and the weights {', '.join(SOURCES)}"
    )
