"""What a grounding model that works on feature maps answers: a heat map for each phrase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class HeatMap:
    """How well each place of a picture matches a phrase.

    Attributes:
        phrase: The phrase.
        heat: (h, w) float32 in [0, 1], an absolute score; the map spans the whole picture.
        presence: How sure the model is that what the phrase names is there at all, in [0, 1].
    """

    phrase: str
    heat: NDArray[np.float32]
    presence: float
