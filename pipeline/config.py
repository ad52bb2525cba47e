"""All that a pipeline can be told of how prompts become masks."""

from __future__ import annotations

from dataclasses import dataclass, field

from .agreement import AgreementConfig
from .cascade import check_parts
from .everything import EverythingConfig
from .fusion import FusionConfig
from .ranking import RankingConfig


@dataclass(frozen=True)
class PipelineConfig:
    """How prompts become masks.

    Attributes:
        ranking: Thresholds and weights of the ranking.
        first_pass: Parts of a phrase's prompts that its masks are first decoded from, of
            "points", "boxes" and "masks".
        multimask_output: Whether the first decoding chooses of three masks (whole, part,
            subpart) or gives the single one.
        refine_passes: Times that they are decoded again, from the points with the masks' own
            tight boxes and logits.
        agreement: Instead of the above, decode once from all parts and fall back on the prior's
            region where the mask does not agree with it; None for not.
        fusion: How a phrase and an example of the same thing are weighed.
        everything: What everything mode looks at and keeps.

    Raises:
        InputError: ``first_pass`` names no part or an unknown one.
    """

    ranking: RankingConfig = field(default_factory=RankingConfig)
    first_pass: tuple[str, ...] = ("points", "boxes", "masks")
    multimask_output: bool = True
    refine_passes: int = 1
    agreement: AgreementConfig | None = None
    fusion: FusionConfig = field(default_factory=FusionConfig)
    everything: EverythingConfig = field(default_factory=EverythingConfig)

    def __post_init__(self) -> None:
        check_parts(self.first_pass)
