"""Turns the boxes of a detector into prompts, without duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....models.embedding import ImageEmbedding
from ....models.errors import InputError
from ....models.grounding.answers import Detections
from ...decoding.prompts import PromptSet
from ...masks import box_nms


@dataclass(frozen=True)
class BoxPromptConfig:
    """Which boxes of a phrase become prompts.

    Attributes:
        min_score: Minimum score of a box; if none reaches it, those with the highest score stay.
        nms_iou: Of two boxes whose IoU is above this, the one of higher score stays; 1 keeps all.
        max_prompts: Maximum number of boxes for a phrase; those with the highest scores stay.

    Raises:
        InputError: A value is out of its range.
    """

    min_score: float = 0.3
    nms_iou: float = 0.7
    max_prompts: int = 32

    def __post_init__(self) -> None:
        for name in ("min_score", "nms_iou"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must be between 0 and 1, not {getattr(self, name)!r}")
        if self.max_prompts < 1:
            raise InputError(f"max_prompts must be 1 or more, not {self.max_prompts}")


class BoxPrompts:
    """Turns detections into prompts, one for each box.

    Args:
        config: Which boxes become prompts.
    """

    def __init__(self, config: BoxPromptConfig | None = None) -> None:
        self.config = config or BoxPromptConfig()

    def __call__(self, found: Detections, embedding: ImageEmbedding) -> PromptSet:
        """Return the prompts of one phrase's boxes, highest score first; none without a box.

        Whether a phrase is there at all is for the gate to say: one that passes gets its best box.
        """
        config = self.config
        sure = found.scores >= min(config.min_score, found.scores.max(initial=0.0))
        boxes, scores = found.boxes_xyxy[sure], found.scores[sure]
        kept = box_nms(boxes, scores.astype(np.float64), config.nms_iou)[: config.max_prompts]
        if not len(kept):
            return PromptSet.empty()
        return PromptSet(
            prompt_scores=scores[kept], labels=(found.phrase,) * len(kept), boxes=boxes[kept]
        )

    def peak(self, found: Detections, embedding: ImageEmbedding) -> tuple[float, float] | None:
        """Return the centre of the highest-scoring box, (x, y) in pixels; None without a box."""
        if not len(found.scores):
            return None
        x0, y0, x1, y1 = found.boxes_xyxy[int(found.scores.argmax())].tolist()
        return (x0 + x1) / 2, (y0 + y1) / 2
