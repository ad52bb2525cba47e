"""Presets: a whole pipeline by one name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import torch

from .. import models
from ..models.backbones.efficientnet_lite import EfficientNetLite2, imagenet_state_dict
from ..models.errors import ModelNotFoundError
from ..models.features.pocket import PocketFeatures
from ..models.grounding.conse import NAMES_FILE, ClassNames, DenseConse
from ..models.grounding.heat import HeatMap
from ..models.grounding.pocket import TEXT_FILE, PocketGrounder, Views, load_text_head
from ..models.registry import create_model
from ..models.sam.pocket import PocketSam
from .everything import EverythingConfig
from .pipeline import Pipeline, PipelineConfig
from .prompters.matching.prototype import PrototypeConfig, PrototypeStrategy
from .prompters.reference import ReferencePrompter
from .prompters.text import HeatPromptConfig, TextPrompter
from .segmenter import Segmenter
from .types import ImageEmbedding

WEIGHTS = Path(models.__file__).parent / "weights"

# Chosen on the dev split of the training data; docs/prompting.md has the comparison.
POCKET_PROMPTS = HeatPromptConfig(min_presence=0.15, smooth=3.0)
# Everything mode's thresholds are far below the published models': pocket's predicted IoU of a
# lone click is mostly below 0.5, and its logits are softer.
POCKET = PipelineConfig(
    first_pass=("points", "masks"),
    refine_passes=1,
    everything=EverythingConfig(
        points_per_side=16,
        pred_iou_thresh=0.35,
        stability_score_thresh=0.7,
        min_mask_region_area=100,
    ),
)
POCKET_REFERENCES = PrototypeConfig(
    presence_level=0.31,
    negative_point=False,
    first_pass=("masks",),
    prompts=HeatPromptConfig(min_peak=0.8, min_region=0.01),
)


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


class _SharedBackboneGrounder:
    """Grounds on the features that the image encoder's backbone left in the embedding.

    What it saw in a picture is kept as long as the picture's embedding lives: further phrases
    cost little.
    """

    def __init__(self, grounder: PocketGrounder) -> None:
        self.grounder = grounder
        self._seen: WeakKeyDictionary[ImageEmbedding, Views] = WeakKeyDictionary()

    def __call__(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> list[HeatMap]:
        views = self._seen.get(embedding)
        if views is None:
            if embedding.image is None:
                raise ValueError("text needs an embedding that keeps its image")
            views = self.grounder.look(
                embedding.image, embedding.features.backbone_features, embedding.input_size
            )
            self._seen[embedding] = views
        return self.grounder.ground(phrases, views)


def _build_pocket(device: torch.device) -> Pipeline:
    sam = create_model("sam_pocket", checkpoint=WEIGHTS / "sam_pocket.safetensors", device=device)
    if not isinstance(sam, PocketSam):
        raise TypeError(f"sam_pocket must be a PocketSam, got {type(sam).__name__}")
    sam.image_encoder.backbone.fold_batch_norms()
    sam.to(memory_format=torch.channels_last)
    segmenter = Segmenter(sam, model_id="sam_pocket")
    features = PocketFeatures(sam.image_encoder.backbone, input_size=sam.image_size)
    shared = _SharedBackboneGrounder(_pocket_grounder().to(device).eval())
    return Pipeline(
        segmenter,
        text_prompter=TextPrompter(shared, segmenter, POCKET_PROMPTS),
        reference_prompter=ReferencePrompter(
            features, segmenter, PrototypeStrategy(POCKET_REFERENCES)
        ),
        config=POCKET,
    )


def _pocket_grounder() -> PocketGrounder:
    with torch.random.fork_rng(devices=[]):  # weights are drawn before the stored ones come
        backbone = EfficientNetLite2().eval()
        head, known = load_text_head(WEIGHTS / TEXT_FILE)
    backbone.load_state_dict(imagenet_state_dict())
    backbone.fold_batch_norms()
    backbone.to(memory_format=torch.channels_last)
    return PocketGrounder(head, known, DenseConse(backbone, ClassNames(WEIGHTS / NAMES_FILE)))


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
