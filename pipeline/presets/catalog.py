"""The presets and the weights that each needs; importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ...models.errors import ModelNotFoundError
from ...models.hub.sources import SOURCES, WeightSource

if TYPE_CHECKING:
    import torch

    from ..cache.store import CachePart, EmbeddingCache

T = TypeVar("T")


@dataclass(frozen=True)
class Preset:
    """A named pipeline.

    Attributes:
        name: For :func:`~promptseg.pipeline.presets.load.load`.
        description: Its models, in one line.
        sam: Name of the model that masks are by, for ``create_model``.
        weights: Part ("text", "presence", "reference" or "masks") -> name of its published
            weights; empty where all weights are installed with the package.
        exact_on_cpu: Whether "auto" means fp32 on a CPU, whatever it has in hardware: bf16 costs
            accuracy and gains little.
    """

    name: str
    description: str
    sam: str
    weights: Mapping[str, str] = field(default_factory=dict, hash=False)
    exact_on_cpu: bool = False

    @property
    def sources(self) -> tuple[WeightSource, ...]:
        """The published weights that the preset needs."""
        return tuple(SOURCES[name] for name in self.weights.values())


# OWLv2 large can stand in for Grounding DINO base, and SAM 2.1 and SAM 3 for SAM, but no preset
# needs them.
_LIST = (
    Preset(
        "pocket",
        "EfficientNet-Lite2 for text and masks, MiniLM for phrases; all weights installed",
        "sam_pocket",
        exact_on_cpu=True,
    ),
    Preset(
        "mobile",
        "OWLv2 base, DINOv2 S/14, MobileSAM",
        "sam_vit_t",
        {"text": "owlv2-base", "reference": "dinov2-small", "masks": "mobile-sam"},
    ),
    Preset(
        "base",
        "Grounding DINO tiny with CLIP B/16 on presence, DINOv2 B/14, SAM ViT-B",
        "sam_vit_b",
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
        "sam_vit_h",
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
    """How to load a preset.

    Attributes:
        device: Device that the networks run on.
        dtype: Precision of the computations inside the networks.
        weights: Folder to search for weights before the hub's cache; None for the folder that
            PROMPTSEG_WEIGHTS names, if set. Presets whose weights are installed ignore it.
        strategy: Name of the strategy that matches references; None for the preset's choice.
        debias: Whether positional information is removed from the features of references.
        exported: Folder that `promptseg export` wrote, which masks are decoded from; None for
            torch.
        runtime: What runs it, "onnx" or "openvino"; None for the one that it was written for.
        cache: Keeps what the networks compute from images on disk; None for nothing.
    """

    device: torch.device
    dtype: torch.dtype
    weights: Path | None = None
    strategy: str | None = None
    debias: bool = False
    exported: Path | None = None
    runtime: str | None = None
    cache: EmbeddingCache | None = None

    def kept(self, kind: type[T], model: Callable[[], str]) -> CachePart[T] | None:
        """Return what the cache holds of one model, if there is a cache.

        Args:
            kind: Type of what the model computes from an image.
            model: Returns what tells the model's weights and settings from all others.
        """
        if self.cache is None:
            return None
        return self.cache.part(kind, model, dtype=self.dtype, device=self.device)


def get_preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        ModelNotFoundError: No preset has that name.
    """
    found = PRESETS.get(name) if isinstance(name, str) else None
    if found is None:
        raise ModelNotFoundError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return found


def sources_for(name: str) -> tuple[WeightSource, ...]:
    """Return the sources that a preset needs, or the one source of that name.

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
