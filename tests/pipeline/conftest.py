"""A shrunken pocket SAM, and one whose masks are what its prompts say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from promptseg.models.grounding.heat import HeatMap
from promptseg.models.sam.pocket import PocketSam, PocketSamConfig, build_pocket_sam
from promptseg.models.sam.sam import ImageFeatures
from promptseg.pipeline.segmenter import Segmenter
from promptseg.pipeline.types import ImageEmbedding

CONFIG = PocketSamConfig(
    image_size=96, embed_dim=16, neck_depth=1, high_res_dims=(8, 4), num_heads=2
)


def build() -> PocketSam:
    torch.manual_seed(0)
    return build_pocket_sam(CONFIG).eval()


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
