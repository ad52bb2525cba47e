"""Calibrated scores: how well a mask is expected to fit what its phrase means.

The predicted IoU, the stability and the prompt score say different things, and none of them how
often the answer is right. A logistic model of the three, fitted on annotated photographs, does:

    logit(score) = bias + a * logit(iou_prediction) + b * logit(stability) + c * logit(prompt_score)

The score is then the expected IoU of the mask with one object of the phrase, 0 where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit

from ..checks import Float32Array
from ..proposals import Proposals

# Scores are clipped to this distance from 0 and 1: the log-odds of certainty are not finite.
_CERTAIN = 0.002


@dataclass(frozen=True)
class ScoreCalibration:
    """Weights of the log-odds of a mask's three scores.

    Attributes:
        iou_prediction: Weight of the IoU token's estimate.
        stability: Weight of the stability score.
        prompt: Weight of the prompt score.
        bias: What is added.
    """

    iou_prediction: float
    stability: float
    prompt: float
    bias: float

    def applied(self, found: Proposals) -> Proposals:
        """Return proposals with calibrated scores."""
        scores = self(found.iou_predictions, found.stability_scores, found.prompt_scores)
        return replace(found, calibrated=scores)

    def __call__(
        self, iou_predictions: ArrayLike, stability_scores: ArrayLike, prompt_scores: ArrayLike
    ) -> Float32Array:
        """Return the expected IoU (N,) in [0, 1] of N masks; each argument is (N,)."""
        odds = (
            self.bias
            + self.iou_prediction * log_odds(iou_predictions)
            + self.stability * log_odds(stability_scores)
            + self.prompt * log_odds(prompt_scores)
        )
        score: Float32Array = expit(odds).astype(np.float32)
        return score


def log_odds(scores: ArrayLike) -> NDArray[np.float64]:
    """Return the log-odds of scores, which are clipped to [0.002, 0.998]."""
    inside = np.clip(np.asarray(scores, np.float64), _CERTAIN, 1 - _CERTAIN)
    odds: NDArray[np.float64] = logit(inside)
    return odds
