"""How a preset is to be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class LoadOptions:
    """What a preset is told when it is built.

    Attributes:
        device: Where its networks run.
        dtype: What they compute in, inside their calls.
        weights: A folder to look for weights in before the hub's cache; None for the folder that
            PROMPTSEG_WEIGHTS names, if it does. Presets whose weights are installed ignore it.
        strategy: How references are matched; None leaves it to the preset.
        debias: Whether references are matched without what the features tell of the place.
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    weights: Path | None = None
    strategy: str | None = None
    debias: bool = False
