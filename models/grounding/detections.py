"""What a detector answers: boxes with scores for each phrase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of what one phrase names, surest first; N may be 0.

    Attributes:
        phrase: The phrase, which was scored on its own.
        boxes_xyxy: (N, 4) float32 in pixels of the image, within it.
        scores: (N,) float32 in [0, 1].
        presence: How sure the detector is that what the phrase names is there at all, in [0, 1]:
            its highest score, whether a box of that score is kept or not.
    """

    phrase: str
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    presence: float
