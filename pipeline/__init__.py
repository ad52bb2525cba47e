"""The data flow of promptseg: query -> prompts -> masks -> ranking.

The names below are resolved on first use, so that importing a light part of the package (the
result types, for example) does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ..models.embedding import ImageEmbedding as ImageEmbedding
    from .config import PipelineConfig as PipelineConfig
    from .decoding.everything import EverythingConfig as EverythingConfig
    from .decoding.prompts import MaskCandidates as MaskCandidates
    from .decoding.prompts import PromptSet as PromptSet
    from .decoding.segmenter import Segmenter as Segmenter
    from .images import load_image as load_image
    from .pipeline import Pipeline as Pipeline
    from .presets.catalog import PRESETS as PRESETS
    from .presets.load import load as load
    from .prompters.reference.examples import EncodedReference as EncodedReference
    from .prompters.reference.examples import Reference as Reference
    from .proposals import Proposals as Proposals
    from .query import Query as Query
    from .raster import Raster as Raster
    from .result import RejectedMask as RejectedMask
    from .result import Result as Result
    from .scoring.ranking import RankingConfig as RankingConfig
    from .scoring.ranking import rank as rank
else:  # a type checker that saw __getattr__ would accept any name
    __getattr__, __dir__, __all__ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "config": ["PipelineConfig"],
            "decoding.everything": ["EverythingConfig"],
            "decoding.prompts": ["MaskCandidates", "PromptSet"],
            "decoding.segmenter": ["ImageEmbedding", "Segmenter"],
            "images": ["load_image"],
            "pipeline": ["Pipeline"],
            "presets.catalog": ["PRESETS"],
            "presets.load": ["load"],
            "prompters.reference.examples": ["EncodedReference", "Reference"],
            "proposals": ["Proposals"],
            "query": ["Query"],
            "raster": ["Raster"],
            "result": ["RejectedMask", "Result"],
            "scoring.ranking": ["RankingConfig", "rank"],
        },
    )
