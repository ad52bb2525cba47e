"""Presets of published models: a detector for phrases, DINOv2 for references, and SAM.

Thresholds are those of the models' own demonstrations; they were not tuned here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ...models.checkpoint import fingerprint
from ...models.embedding import ImageEmbedding
from ...models.errors import CheckpointError, MissingWeightsError
from ...models.features.dense import DenseFeatures, FeatureExtractor
from ...models.features.dino import create_dino
from ...models.grounding.answers import Detections, Detector
from ...models.grounding.clip.dense import ClipView, DenseClip, DenseClipConfig, create_dense_clip
from ...models.grounding.grounding_dino import GroundingDinoView
from ...models.grounding.owlv2 import Owlv2View
from ...models.hub.find import find_source
from ...models.hub.sources import get_source
from ...models.registry import DetectorName, create_grounder, create_model
from ..cache.store import CachePart, get_kept
from ..config import PipelineConfig
from ..decoding.decode import DecodingConfig
from ..decoding.segmenter import Segmenter
from ..pipeline import Pipeline
from ..prompters.reference.prompter import ReferencePrompter
from ..prompters.reference.strategies import create_strategy
from ..prompters.seen_once import SeenOnce
from ..prompters.text.box_prompts import BoxPromptConfig, BoxPrompts
from ..prompters.text.gate import PresenceGate, Witness
from ..prompters.text.prompter import CachedGrounder, TextPrompter
from .catalog import PRESETS, LoadOptions
from .exported import exported_model

# A box leaves little ambiguity: SAM's single mask, as its authors advise.
FROM_BOXES = PipelineConfig(
    decoding=DecodingConfig(first_pass=("boxes",), multimask_output=False, refine_passes=0)
)
# Plain CLIP at its own input size sees the whole image; at 0.5 a phrase describes the image as well
# as the empty text does.
PRESENCE_CLIP = DenseClipConfig(attention="none", input_size=224, templates=("a photo of a {}.",))
LEAST_CLIP_PRESENCE = 0.5

ViewT = TypeVar("ViewT")
BuiltT = TypeVar("BuiltT")


@dataclass(frozen=True)
class PublishedParts:
    """The models of a preset; the catalog names their weights.

    Attributes:
        name: Name of the preset.
        detector: Name of the detector, for ``create_grounder``.
        boxes: Which boxes become prompts; ``min_score`` is also the threshold of the gate.
        features: Name of the DINOv2 model in timm.
        view: What the detector makes of an image.
    """

    name: str
    detector: DetectorName
    boxes: BoxPromptConfig
    features: str
    view: type[object]


MOBILE = PublishedParts(
    "mobile",
    "owlv2",
    BoxPromptConfig(min_score=0.2),
    "vit_small_patch14_dinov2",
    Owlv2View,
)
BASE = PublishedParts(
    "base",
    "grounding_dino",
    BoxPromptConfig(min_score=0.3),
    "vit_base_patch14_dinov2",
    GroundingDinoView,
)
LARGE = PublishedParts(
    "large",
    "grounding_dino",
    BoxPromptConfig(min_score=0.3),
    "vit_large_patch14_dinov2",
    GroundingDinoView,
)


def build_published(parts: PublishedParts, options: LoadOptions) -> Pipeline:
    """Load a preset; missing weights for text and masks are reported at once.

    The detector, CLIP and DINOv2 are built on first use: clicks need none of them.

    Raises:
        CheckpointError: Weights are missing or broken; the message says what to do.
    """
    preset = PRESETS[parts.name]
    roles = preset.weights
    device, dtype = options.device, options.dtype
    text = _folder_of(roles["text"], parts.name, options)
    witnesses: tuple[Witness, ...] = ()
    if "presence" in roles:
        clip = once(
            partial(
                create_dense_clip,
                "ViT-B-16-quickgelu",
                _folder_of(roles["presence"], parts.name, options),
                device=device,
                dtype=dtype,
                config=PRESENCE_CLIP,
            )
        )
        seen = options.kept(ClipView, lambda: f"{PRESENCE_CLIP} {fingerprint(clip().model.visual)}")
        witnesses = (Witness("CLIP", ClipJudge(clip, kept=seen), LEAST_CLIP_PRESENCE),)
    segmenter = Segmenter(
        exported_model(preset.sam, options)
        or create_model(
            preset.sam,
            checkpoint=_weights_of(roles["masks"], parts.name, options),
            device=device,
        ),
        dtype=dtype,
        cache=options.cache,
        cast_weights=True,
    )
    dino = once(
        lambda: create_dino(
            parts.features,
            checkpoint=_weights_of(roles["reference"], parts.name, options),
            device=device,
            dtype=dtype,
        )
    )
    features = LazyFeatures(
        dino,
        options.kept(DenseFeatures, lambda: f"{dino().model_id} {fingerprint(dino().model)}"),
    )
    detector = once(partial(create_grounder, parts.detector, text, device=device, dtype=dtype))
    return Pipeline(
        segmenter,
        text_prompter=detector_prompter(
            detector,
            parts.boxes,
            witnesses,
            options.kept(parts.view, lambda: fingerprint(cast(Any, detector()).model)),
        ),
        reference_prompter=ReferencePrompter(
            features,
            segmenter,
            create_strategy(options.strategy or "prototype"),
            debias=options.debias,
        ),
        config=FROM_BOXES,
    )


def detector_prompter(
    build: Callable[[], Detector[ViewT]],
    boxes: BoxPromptConfig | None = None,
    witnesses: tuple[Witness, ...] = (),
    kept: CachePart[ViewT] | None = None,
) -> TextPrompter[Detections]:
    """Return a text prompter whose detector is built on first use.

    Args:
        build: Builds the detector.
        boxes: Which boxes become prompts; ``min_score`` is also the threshold of the gate.
        witnesses: Further models that must agree on presence.
        kept: What a cache holds of what the detector makes of images; None for no cache.
    """
    boxes = boxes or BoxPromptConfig()
    detector = once(build)

    def look(embedding: ImageEmbedding) -> ViewT:
        pixels = embedding.pixels()
        return get_kept(kept, pixels, lambda: detector().look(pixels))

    def ground(phrases: Sequence[str], view: ViewT) -> list[Detections]:
        return detector().ground(phrases, view)

    return TextPrompter(
        CachedGrounder(look, ground), BoxPrompts(boxes), PresenceGate(boxes.min_score, witnesses)
    )


def once(build: Callable[[], BuiltT]) -> Callable[[], BuiltT]:
    """Return a thread-safe function that builds a value on its first call and keeps it."""
    lock, built = Lock(), list[BuiltT]()

    def get() -> BuiltT:
        with lock:
            if not built:
                built.append(build())
            return built[0]

    return get


class ClipJudge:
    """Judges presence with CLIP on the whole image, which is encoded once.

    Args:
        build: Builds the CLIP model, on first use.
        siblings: Phrases that each phrase competes with besides the empty text, such as the other
            classes of a dataset; presence is then the phrase's share among them.
        kept: What a cache holds of what CLIP makes of images; None for no cache.
    """

    def __init__(
        self,
        build: Callable[[], DenseClip],
        siblings: Sequence[str] = (),
        kept: CachePart[ClipView] | None = None,
    ) -> None:
        self._clip = once(build)
        self._siblings = tuple(siblings)
        self._kept = kept
        self._see: SeenOnce[ClipView] = SeenOnce(self._look)

    def __call__(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> list[float]:
        return self._clip().presence(phrases, self._see(embedding), self._siblings)

    def _look(self, embedding: ImageEmbedding) -> ClipView:
        pixels = embedding.pixels()
        return get_kept(self._kept, pixels, lambda: self._clip().look(pixels))


class LazyFeatures:
    """A feature extractor that is built on first use.

    Args:
        build: Builds the extractor, which computes features from an image's pixels alone.
        kept: What a cache holds of its features; None for no cache.
    """

    def __init__(
        self, build: Callable[[], FeatureExtractor], kept: CachePart[DenseFeatures] | None = None
    ) -> None:
        self._extractor = once(build)
        self._kept = kept

    @property
    def model_id(self) -> str:
        """Name of the model."""
        return self._extractor().model_id

    def extract(self, image: NDArray[np.uint8]) -> DenseFeatures:
        """Return the features of an image (H, W, 3) uint8 RGB."""
        return get_kept(self._kept, image, lambda: self._extractor().extract(image))

    def extract_encoded(self, embedding: ImageEmbedding) -> DenseFeatures:
        """Return the features of an encoded image."""
        return self.extract(embedding.pixels())


def _folder_of(source: str, preset: str, options: LoadOptions) -> Path:
    """Return the folder of a source's files, or raise an error with the command to fetch them."""
    try:
        return find_source(source, options.weights)
    except MissingWeightsError as error:
        raise CheckpointError(
            f"{error.what}: run `promptseg models fetch {preset}`; the preset pocket works "
            "without them"
        ) from error


def _weights_of(source: str, preset: str, options: LoadOptions) -> Path:
    """Return the path of the file with a source's weights."""
    return _folder_of(source, preset, options) / get_source(source).weights
