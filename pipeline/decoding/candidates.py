"""Decoded masks, at the decoder's resolution and at the image's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..checks import BoolArray, Float32Array


@dataclass(frozen=True, eq=False)
class LowResMasks:
    """Masks at the decoder's resolution, before they are upscaled to the image's.

    Attributes:
        logits: (B, C, h, w) float32 in the model's padded square frame.
        iou_predictions: (B, C) float32.
    """

    logits: Float32Array
    iou_predictions: Float32Array

    def select(self, chosen: NDArray[np.intp]) -> LowResMasks:
        """Return the mask with index ``chosen`` (B,) of each prompt; C becomes 1."""
        index = np.arange(len(chosen))[:, None], chosen[:, None]
        return LowResMasks(self.logits[index], self.iou_predictions[index])


@dataclass(frozen=True, eq=False)
class MaskCandidates:
    """Masks decoded for B prompts, C for each (3 with multimask output, else 1).

    Attributes:
        masks: (B, C, H, W) bool at the input image's size.
        iou_predictions: (B, C) float32, the IoU token's estimate of each mask's quality.
        low_res_logits: (B, C, h, w) float32 mask logits, usable as the next mask prompt.
        stability_scores: (B, C) float32 in [0, 1]; the IoU between the mask thresholded one
            logit higher and one logit lower.
    """

    masks: BoolArray
    iou_predictions: Float32Array
    low_res_logits: Float32Array
    stability_scores: Float32Array
