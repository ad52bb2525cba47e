"""Masks kept only where they agree with the coarse region that asked for them.

Source: the refinement by Segment Anything of Shi et al. 2024, "Harnessing Vision Foundation Models
for High-Performance, Training-Free Open Vocabulary Segmentation" (Trident).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..models.errors import InputError
from .cascade import decode_prompts
from .segmenter import Segmenter
from .types import Float32Array, ImageEmbedding, LowResMasks, PromptSet


@dataclass(frozen=True)
class AgreementConfig:
    """How a region is refined.

    Attributes:
        logit_scale: What the region's logits are multiplied with to be a mask prompt; the
            published value suits logits of CLIP on SAM's scale.
        min_iou: Least IoU of the mask with the region; below it the region itself is the mask.
        level: Cells of at least this heat, the sigmoid of the prior, are the region.
        peak_share: So are those of at least this share of the prior's highest heat, where that is
            low.

    Raises:
        InputError: A value is out of its range.
    """

    logit_scale: float = 0.005
    min_iou: float = 0.8
    level: float = 0.5
    peak_share: float = 0.7

    def __post_init__(self) -> None:
        if not self.logit_scale > 0.0:
            raise InputError(f"logit_scale must be above 0, not {self.logit_scale!r}")
        if not 0.0 <= self.min_iou <= 1.0:
            raise InputError(f"min_iou must be between 0 and 1, not {self.min_iou!r}")
        for name in ("level", "peak_share"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise InputError(f"{name} must lie within 0 and 1, not {getattr(self, name)!r}")


def decode_agreeing(
    segmenter: Segmenter, embedding: ImageEmbedding, prompts: PromptSet, config: AgreementConfig
) -> LowResMasks:
    """Decode the single mask of each prompt, or fall back on the region that its prior shows.

    A mask that is not kept gives its predicted IoU, times its IoU with the region, to the region:
    where the two disagree, either may be wrong.

    Args:
        segmenter: Decodes.
        embedding: Of the image.
        prompts: One or more with mask priors, the logits of coarse regions, and points or boxes.
        config: How.

    Returns:
        Masks with C of 1.

    Raises:
        InputError: The prompts have no mask priors.
    """
    if prompts.mask_input is None:
        raise InputError("agreement needs prompts with mask priors; these have none")
    scaled = replace(prompts, mask_input=prompts.mask_input * np.float32(config.logit_scale))
    masks = decode_prompts(segmenter, embedding, scaled, multimask_output=False)
    rows, columns = segmenter.mask_input_extent(embedding)
    regions = _above_level(prompts.mask_input, config)
    region = regions[:, 0, :rows, :columns] > 0
    mask = masks.logits[:, 0, :rows, :columns] > segmenter.model.mask_threshold
    shared = (mask & region).sum((1, 2))
    iou = shared / np.maximum((mask | region).sum((1, 2)), 1)
    kept = iou > config.min_iou
    predicted = masks.iou_predictions * np.where(kept, 1, iou)[:, None]
    return LowResMasks(
        np.where(kept[:, None, None, None], masks.logits, regions),
        predicted.astype(np.float32),
    )


def _above_level(priors: Float32Array, config: AgreementConfig) -> Float32Array:
    """Priors (B, 1, h, w) shifted so that their regions are what lies above 0."""
    highest = 1 / (1 + np.exp(-priors.max((1, 2, 3), keepdims=True)))
    level = np.minimum(config.level, config.peak_share * highest)
    # A cell that is just at its level belongs to the region.
    shifted: Float32Array = (priors - np.log(level / (1 - level)) + 1e-4).astype(np.float32)
    return shifted
