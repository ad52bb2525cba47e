"""The preset `pocket`, installed with promptseg: one backbone for text and masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ... import models
from ...models.checkpoint import fingerprint, read_state_dict
from ...models.device import autocast
from ...models.embedding import ImageEmbedding
from ...models.errors import CheckpointError
from ...models.foreign import hash_file
from ...models.pocket.backbone import EfficientNetLite2, load_imagenet_backbone
from ...models.pocket.colour import split_colour
from ...models.pocket.conse import NAMES_FILE, ClassNames, DenseConse, Relative
from ...models.pocket.features import PocketFeatures
from ...models.pocket.grounder import (
    MORE_WORDS_FILE,
    TEXT_FILE,
    PocketGrounder,
    Views,
    load_text_head,
)
from ...models.pocket.objects import OBJECTS_FILE, load_object_head
from ...models.pocket.sam import PocketSam, with_backbone
from ...models.registry import create_loaded
from ..cache.encoded import identity_of
from ..cache.store import get_kept
from ..config import PipelineConfig
from ..decoding.closer import CloserConfig
from ..decoding.decode import DecodingConfig
from ..decoding.everything import EverythingConfig
from ..decoding.segmenter import Segmenter
from ..pipeline import Pipeline
from ..prompters.heat_prompts import HeatPromptConfig, HeatPrompts
from ..prompters.objects import ObjectSplitConfig
from ..prompters.reference.bidirectional import BidirectionalConfig
from ..prompters.reference.graph import GraphConfig
from ..prompters.reference.prompter import ReferencePrompter
from ..prompters.reference.prototype import PrototypeConfig
from ..prompters.reference.strategies import StrategyConfigs, create_strategy
from ..prompters.text.gate import PresenceGate
from ..prompters.text.prompter import CachedGrounder, TextPrompter
from ..scoring.calibration import ScoreCalibration
from ..scoring.ranking import RankingConfig
from .catalog import LoadOptions
from .exported import exported_model

WEIGHTS = Path(models.__file__).parent / "weights"
SUMS_FILE = "SHA256SUMS"

# Chosen on the dev split of the training data; docs/prompting.md has the comparison.
POCKET_GATE = PresenceGate(0.15)
POCKET_PROMPTS = HeatPromptConfig(smooth=3.0, objects=ObjectSplitConfig())
# Everything mode's thresholds are far below the published models': pocket's predicted IoU of a
# lone click is mostly below 0.5, and its logits are softer.
POCKET = PipelineConfig(
    decoding=DecodingConfig(first_pass=("points", "masks"), part_share=0.2),
    everything=EverythingConfig(
        points_per_side=16,
        pred_iou_thresh=0.35,
        stability_score_thresh=0.7,
        min_mask_region_area=100,
    ),
    closer=CloserConfig(),
    refine_clicks=True,
    # python training/fit_scores.py, on the dev split, with the weights before these: a fit to these
    # is no better.
    calibration=ScoreCalibration(iou_prediction=1.092, stability=0.0, prompt=0.242, bias=-3.125),
    ranking=RankingConfig(nms_ios=0.8),
)
# docs/references.md has the comparison. The presence levels are set so that every strategy answers
# the same share of absent classes correctly. Pocket's predicted IoU and stability are below those
# of the published models.
POCKET_STRATEGIES = StrategyConfigs(
    prototype=PrototypeConfig(
        presence_level=0.4,
        negative_point=False,
        decoding=DecodingConfig(first_pass=("masks",)),
        prompts=HeatPromptConfig(min_peak=0.8, min_region=0.01),
    ),
    bidirectional=BidirectionalConfig(
        presence_level=0.44, min_iou_prediction=0.2, min_stability=0.5, sets_per_size=3
    ),
    graph=GraphConfig(presence_level=0.44, equal_channels=False, max_points=16),
)


def build_pocket(options: LoadOptions) -> Pipeline:
    """Load the preset `pocket`."""
    device, dtype = options.device, options.dtype
    backbone = load_imagenet_backbone()
    weights = shipped("sam_pocket.safetensors")
    state = with_backbone(read_state_dict(weights), backbone.state_dict())
    sam = create_loaded("sam_pocket", state, source=weights, device=device)
    if not isinstance(sam, PocketSam):
        raise TypeError(f"sam_pocket must be a PocketSam, got {type(sam).__name__}")
    sam.image_encoder.backbone.fold_batch_norms()
    sam.to(memory_format=torch.channels_last)
    exported = exported_model("sam_pocket", options)
    segmenter = Segmenter(exported or sam, model_id="sam_pocket", dtype=dtype, cache=options.cache)
    features = PocketFeatures(sam.image_encoder.backbone, input_size=sam.image_size)
    grounder = _pocket_grounder(backbone).to(device).eval()

    def look(embedding: ImageEmbedding) -> Views:
        """Compute the grounder's views from what the image encoder left in the embedding."""
        features = embedding.features
        with autocast(device, dtype):
            if not features.high_res_features:  # an exported encoder leaves the backbone's maps
                with torch.inference_mode():
                    features = sam.image_encoder.embed(features.backbone_features)
            return grounder.look(embedding.pixels(), features, embedding.input_size)

    encoder = identity_of(exported or sam)
    kept = options.kept(Views, lambda: f"{encoder()} {fingerprint(grounder)}")
    return Pipeline(
        segmenter,
        text_prompter=TextPrompter(
            CachedGrounder(
                lambda embedding: get_kept(kept, embedding.pixels(), partial(look, embedding)),
                grounder.ground,
            ),
            HeatPrompts(segmenter, POCKET_PROMPTS),
            POCKET_GATE,
        ),
        reference_prompter=ReferencePrompter(
            features,
            segmenter,
            create_strategy(options.strategy or "prototype", POCKET_STRATEGIES),
            debias=options.debias,
        ),
        config=POCKET,
    )


@dataclass(frozen=True)
class PocketWords:
    """The words that pocket's text head was taught; all others go by the names of ImageNet.

    Attributes:
        taught: Each word with the number of training pictures that show it, most pictures first.
    """

    taught: tuple[tuple[str, int], ...]
    _grounder: PocketGrounder

    @classmethod
    def load(cls) -> PocketWords:
        """Read the words from the installed weights.

        Raises:
            CheckpointError: The weights are missing or altered.
        """
        grounder = _pocket_grounder(load_imagenet_backbone())
        counts: dict[str, int] = {}
        for _, known in grounder.taught:
            for word, pictures in zip(known.names, known.pictures.tolist(), strict=True):
                counts[word] = max(int(pictures), counts.get(word, 0))
        pairs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return cls(tuple(pairs), grounder)

    @torch.inference_mode()
    def look_up(self, phrase: str) -> tuple[Relative, Relative]:
        """Return the nearest word that was taught, and the nearest name of ImageNet."""
        text = self._grounder.encode([split_colour(phrase)[1]])
        (taught,), (named,) = (
            self._grounder.nearest_taught(text),
            self._grounder.conse.nearest(text),
        )
        return taught, named


def _pocket_grounder(backbone: EfficientNetLite2) -> PocketGrounder:
    """Load the grounder on a backbone with ImageNet's weights, which it then owns."""
    backbone.fold_batch_norms()
    backbone.to(memory_format=torch.channels_last)
    conse = DenseConse(backbone, ClassNames(shipped(NAMES_FILE)))
    return PocketGrounder(
        *load_text_head(shipped(TEXT_FILE)),
        conse,
        load_object_head(shipped(OBJECTS_FILE)),
        further=load_text_head(shipped(MORE_WORDS_FILE)),
    )


def shipped(name: str) -> Path:
    """Path of a weights file of the package, which must be as it was shipped.

    Raises:
        CheckpointError: It is missing or altered.
    """
    path = WEIGHTS / name
    try:
        sums = (WEIGHTS / SUMS_FILE).read_text(encoding="ascii").split()
        expected = dict(zip(sums[1::2], sums[::2], strict=True))[name]
        found = hash_file(path)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"the installed weights {path} cannot be read: reinstall promptseg"
        ) from error
    if found != expected:
        raise CheckpointError(
            f"the installed weights {path} are not those that were shipped (sha256 {found}, "
            f"expected {expected}): reinstall promptseg"
        )
    return path
