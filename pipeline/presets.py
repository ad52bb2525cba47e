"""Presets: a whole pipeline by one name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import models
from ..models.errors import ModelNotFoundError
from ..models.grounding.heat import HeatMap
from ..models.grounding.pocket import NAMES_FILE, ClassNames, PocketGrounder
from ..models.registry import create_model
from ..models.sam.pocket import PocketSam
from .pipeline import Pipeline, PipelineConfig
from .prompters.text import HeatPromptConfig, TextPrompter
from .segmenter import Segmenter
from .types import ImageEmbedding

WEIGHTS = Path(models.__file__).parent / "weights"

# Chosen on the dev split of the training data. Dense ConSE's heat lies on the telling part of an
# object (a head), so that its box and prior would cut the object off: the peak alone comes first,
# and the mask that it gives makes the box and the prior of the second pass.
POCKET_PROMPTS = HeatPromptConfig(min_presence=0.1, peak_share=0.5, min_peak=0.7, prior_level=0.55)
POCKET = PipelineConfig(first_pass=("points",), refine_passes=1)


@dataclass(frozen=True)
class Preset:
    """A named pipeline.

    Attributes:
        name: For :func:`load`.
        description: One line.
        build: Makes the pipeline on a device.
    """

    name: str
    description: str
    build: Callable[[torch.device], Pipeline]


@dataclass(frozen=True)
class _SharedBackboneGrounder:
    """Grounds on the features that the image encoder's backbone left in the embedding."""

    grounder: PocketGrounder

    def __call__(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> list[HeatMap]:
        if embedding.image is None:
            raise ValueError("text needs an embedding that keeps its image")
        return self.grounder.ground(
            phrases,
            image=embedding.image,
            features=embedding.features.backbone_features[-1],
            input_size=embedding.input_size,
        )


def _build_pocket(device: torch.device) -> Pipeline:
    sam = create_model("sam_pocket", checkpoint=WEIGHTS / "sam_pocket.safetensors", device=device)
    if not isinstance(sam, PocketSam):
        raise TypeError(f"sam_pocket must be a PocketSam, got {type(sam).__name__}")
    backbone = sam.image_encoder.backbone
    backbone.fold_batch_norms()
    sam.to(memory_format=torch.channels_last)
    segmenter = Segmenter(sam, model_id="sam_pocket")
    grounder = PocketGrounder(backbone, class_names=ClassNames(WEIGHTS / NAMES_FILE))
    shared = _SharedBackboneGrounder(grounder.to(device).eval())
    return Pipeline(
        segmenter,
        text_prompter=TextPrompter(shared, segmenter, POCKET_PROMPTS),
        config=POCKET,
    )


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "pocket",
            "EfficientNet-Lite2 for text and masks, MiniLM for phrases; all weights installed",
            _build_pocket,
        ),
    )
}


def load(preset: str = "pocket", *, device: str | torch.device = "cpu") -> Pipeline:
    """Load a preset.

    Args:
        preset: A name of ``PRESETS``.
        device: Where the models run.

    Raises:
        ModelNotFoundError: There is no preset of that name.
        CheckpointError: Weights are missing or broken.
    """
    found = PRESETS.get(preset)
    if found is None:
        raise ModelNotFoundError(f"no preset is called {preset!r}; there are {', '.join(PRESETS)}")
    return found.build(torch.device(device))
