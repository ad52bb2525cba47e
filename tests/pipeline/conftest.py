"""Shrunken SAMs: pocket, one whose masks are what its prompts say, and one beside the official."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from promptseg.models.embedding import ImageEmbedding, ImageFeatures
from promptseg.models.grounding.answers import HeatMap
from promptseg.models.pocket.sam import PocketSam, build_pocket_sam
from promptseg.models.sam.build import SamViTConfig, build_sam_vit
from promptseg.models.sam.sam import Sam
from promptseg.pipeline.decoding.segmenter import Segmenter
from promptseg.pipeline.prompters.heat_prompts import HeatPrompts
from promptseg.pipeline.prompters.text.gate import PresenceGate
from promptseg.pipeline.prompters.text.prompter import TextPrompter

from ..shrunken import POCKET, build_official

if TYPE_CHECKING:
    from segment_anything import modeling as official

VIT_CONFIG = SamViTConfig(
    image_size=128,
    embed_dim=24,
    depth=2,
    num_heads=2,
    window_size=3,
    global_attn_indexes=(1,),
    prompt_embed_dim=32,
    decoder_num_heads=4,
    decoder_mlp_dim=32,
    iou_head_hidden_dim=16,
)


def build() -> PocketSam:
    torch.manual_seed(0)
    return build_pocket_sam(POCKET).eval()


class ObedientSam(PocketSam):
    """A pocket SAM without an opinion: the prior's mask, else the box, else a disc on the click.

    Of three masks each is smaller than the one before and less sure.
    """

    def encode_image(self, pixel_values: Tensor) -> ImageFeatures:
        height, width = pixel_values.shape[-2:]
        return ImageFeatures(torch.zeros(1, 1, height // 16, width // 16))

    def decode(
        self,
        features: ImageFeatures,
        *,
        point_coords: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
    ) -> tuple[Tensor, Tensor]:
        points = self.pair_points(point_coords, point_labels)
        if mask_input is not None:
            logits = mask_input
        elif boxes is not None:
            logits = 20 * self.prompt_encoder.draw_boxes(boxes)
        else:
            assert points is not None
            logits = 20 * (self.prompt_encoder.draw_points(*points)[:, :1] - 0.5)
        if not multimask_output:
            return logits, torch.full((len(logits), 1), 0.9)
        ious = torch.tensor([0.8, 0.7, 0.6]).expand(len(logits), 3)
        return torch.cat([logits, logits - 4, logits - 8], 1), ious


@dataclass
class FakeGrounder:
    """Knows the heat maps of some phrases and records what it is asked."""

    heats: dict[str, np.ndarray]
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def __call__(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> list[HeatMap]:
        self.asked.append(tuple(phrases))
        nothing = np.full((24, 24), 0.01, np.float32)
        return [
            HeatMap(phrase, heat, float(heat.max()))
            for phrase in phrases
            for heat in (self.heats.get(phrase, nothing),)
        ]

    def prompter(self, segmenter: Segmenter, least: float = 0.5) -> TextPrompter[HeatMap]:
        """A text prompter on these heat maps."""
        return TextPrompter(self, HeatPrompts(segmenter), PresenceGate(least))


@pytest.fixture(scope="session")
def tiny_segmenter() -> Segmenter:
    """With random weights."""
    return Segmenter(build(), model_id="tiny")


@pytest.fixture(scope="session")
def obedient_segmenter() -> Segmenter:
    """Whose masks are what the prompts say."""
    model = build()
    model.__class__ = ObedientSam
    return Segmenter(model, model_id="obedient")


@pytest.fixture
def make_grounder() -> type[FakeGrounder]:
    """Builds a grounder from the heat map of each phrase that it knows."""
    return FakeGrounder


@pytest.fixture(scope="session")
def reference() -> official.Sam:
    """The official model, shrunken, with weights that give masks of both signs."""
    torch.manual_seed(0)
    model = build_official(VIT_CONFIG)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.3 if "output_hypernetworks" in name else 0.15
            parameter.add_(scale * noise)
    return model


@pytest.fixture(scope="session")
def sam(reference: official.Sam) -> Sam:
    """Our model with the official one's weights."""
    model = build_sam_vit(VIT_CONFIG)
    model.load_state_dict(reference.state_dict())
    return model.eval()


@pytest.fixture(scope="session")
def photo() -> Callable[[tuple[int, int]], np.ndarray]:
    """A picture of some size with smooth and rough parts: (H, W) -> (H, W, 3) uint8."""

    def make(size: tuple[int, int]) -> np.ndarray:
        rng = np.random.default_rng(0)
        small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        smooth = np.array(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))
        rough = rng.integers(-20, 20, smooth.shape)
        return np.clip(smooth.astype(int) + rough, 0, 255).astype(np.uint8)

    return make
