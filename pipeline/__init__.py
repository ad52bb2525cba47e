"""The data flow of promptseg: query -> prompts -> masks -> ranking.

The names below are resolved on first use, so that importing a light part of the package
(say, the result types) does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models.errors import CheckpointError, InputError, ModelNotFoundError, PromptsegError
    from .config import PipelineConfig
    from .everything import EverythingConfig
    from .images import load_image
    from .pipeline import Pipeline
    from .presets import PRESETS, load
    from .proposals import Proposals
    from .ranking import RankingConfig, rank
    from .reference import EncodedReference, Reference
    from .segmenter import Segmenter
    from .types import ImageEmbedding, MaskCandidates, PromptSet, RejectedMask, Result

__all__ = [
    "PRESETS",
    "CheckpointError",
    "EncodedReference",
    "EverythingConfig",
    "ImageEmbedding",
    "InputError",
    "MaskCandidates",
    "ModelNotFoundError",
    "Pipeline",
    "PipelineConfig",
    "PromptSet",
    "PromptsegError",
    "Proposals",
    "RankingConfig",
    "Reference",
    "RejectedMask",
    "Result",
    "Segmenter",
    "load",
    "load_image",
    "rank",
]

# Public name -> the module that defines it.
_HOMES = {
    "PRESETS": ".presets",
    "CheckpointError": "..models.errors",
    "EncodedReference": ".reference",
    "EverythingConfig": ".everything",
    "ImageEmbedding": ".types",
    "InputError": "..models.errors",
    "MaskCandidates": ".types",
    "ModelNotFoundError": "..models.errors",
    "Pipeline": ".pipeline",
    "PipelineConfig": ".config",
    "PromptSet": ".types",
    "PromptsegError": "..models.errors",
    "Proposals": ".proposals",
    "RankingConfig": ".ranking",
    "Reference": ".reference",
    "RejectedMask": ".types",
    "Result": ".types",
    "Segmenter": ".segmenter",
    "load": ".presets",
    "load_image": ".images",
    "rank": ".ranking",
}


def __getattr__(name: str) -> object:
    """Resolve a public name on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
