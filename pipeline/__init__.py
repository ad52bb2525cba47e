"""The data flow of promptseg: query -> prompts -> masks -> ranking.

The names below are resolved on first use, so that importing a light part of the package
(say, the result types) does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models.embedding import ImageEmbedding
    from ..models.errors import CheckpointError, InputError, ModelNotFoundError, PromptsegError
    from .config import PipelineConfig
    from .decoding.candidates import MaskCandidates
    from .decoding.everything import EverythingConfig
    from .decoding.prompts import PromptSet
    from .decoding.segmenter import Segmenter
    from .images import load_image
    from .pipeline import Pipeline
    from .presets.catalog import PRESETS
    from .presets.load import load
    from .prompters.reference.examples import EncodedReference, Reference
    from .proposals import Proposals
    from .query import Query
    from .result import RejectedMask, Result
    from .scoring.ranking import RankingConfig, rank

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
    "Query",
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
    "PRESETS": ".presets.catalog",
    "CheckpointError": "..models.errors",
    "EncodedReference": ".prompters.reference.examples",
    "EverythingConfig": ".decoding.everything",
    "ImageEmbedding": "..models.embedding",
    "InputError": "..models.errors",
    "MaskCandidates": ".decoding.candidates",
    "ModelNotFoundError": "..models.errors",
    "Pipeline": ".pipeline",
    "PipelineConfig": ".config",
    "PromptSet": ".decoding.prompts",
    "PromptsegError": "..models.errors",
    "Proposals": ".proposals",
    "RankingConfig": ".scoring.ranking",
    "Query": ".query",
    "Reference": ".prompters.reference.examples",
    "RejectedMask": ".result",
    "Result": ".result",
    "Segmenter": ".decoding.segmenter",
    "load": ".presets.load",
    "load_image": ".images",
    "rank": ".scoring.ranking",
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
