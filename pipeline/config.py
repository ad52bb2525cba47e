"""All settings of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field

from .decoding.decode import DecodingConfig
from .decoding.everything import EverythingConfig
from .scoring.fusion import FusionConfig
from .scoring.ranking import RankingConfig


@dataclass(frozen=True)
class PipelineConfig:
    """Settings of a pipeline, by stage.

    Attributes:
        decoding: How a phrase's prompts become masks.
        everything: Grid, crops and thresholds of everything mode.
        fusion: How a phrase and an example of the same thing are combined.
        ranking: Thresholds and weights of the ranking.
    """

    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    everything: EverythingConfig = field(default_factory=EverythingConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
