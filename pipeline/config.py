"""All settings of a pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field

from .decoding.closer import CloserConfig
from .decoding.decode import DecodingConfig
from .decoding.everything import EverythingConfig
from .scoring.calibration import ScoreCalibration
from .scoring.fusion import FusionConfig
from .scoring.ranking import RankingConfig
from .tiling.run import TilingConfig


@dataclass(frozen=True)
class PipelineConfig:
    """Settings of a pipeline, by stage.

    Attributes:
        decoding: How a phrase's prompts become masks.
        everything: Grid, crops and thresholds of everything mode.
        fusion: How a phrase and an example of the same thing are combined.
        ranking: Thresholds and weights of the ranking.
        closer: When small things that are marked are looked at closely; None for never.
        refine_clicks: Whether each mask of a single click is decoded once more, with its own logits
            as prompt.
        calibration: Of the scores of masks that phrases find; None leaves them to the ranking's
            formula.
        tiling: How large pictures are searched in tiles.
    """

    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    everything: EverythingConfig = field(default_factory=EverythingConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    closer: CloserConfig | None = None
    refine_clicks: bool = False
    calibration: ScoreCalibration | None = None
    tiling: TilingConfig = field(default_factory=TilingConfig)
