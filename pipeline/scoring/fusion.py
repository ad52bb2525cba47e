"""A phrase and an example of the same thing: one answer of the two.

Both are asked on their own, and each answer comes with its evidence: how far its presence lies
above or below the least that its gate asks for, in log-odds,

    evidence = logit(presence) - logit(least)

The thing is there if the two evidences together are not below 0, as for independent witnesses. The
masks are those of the surer side, and of the phrase if the example is surer by `text_lead` at most.
A mask that the other side has found as well is worth more:

    score = 1 - (1 - own) * (1 - IoU * other)

with the prompt scores of the mask and of the other side's mask that overlaps it most. What only the
other side found is rejected, with that reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..masks import CompactMask
from ..proposals import Proposals
from ..result import RejectedMask


@dataclass(frozen=True)
class FusionConfig:
    """How a phrase and an example are weighed.

    Attributes:
        text_lead: Log-odds by which the example must be surer than the phrase for its masks to be
            taken.
    """

    text_lead: float = 1.0


def fuse(
    label: str,
    by_text: Proposals,
    by_example: Proposals,
    evidence: tuple[float, float],
    config: FusionConfig,
) -> Proposals:
    """Make one answer of two.

    Args:
        label: The phrase.
        by_text: What the phrase found; nothing, with the reason, if it found nothing.
        by_example: What the example found, likewise.
        evidence: Of the phrase and of the example.
        config: How they are weighed.

    Returns:
        The masks of one side with their scores raised, and all that is not kept.
    """
    text, example = evidence
    reasons = by_text.rejected + by_example.rejected
    if text + example < 0:
        told = f"the phrase ({text:+.1f}) and the example ({example:+.1f}) deny it together"
        score = max((item.prompt_score for item in reasons), default=0.0)
        dropped = RejectedMask(label, told, score)
        return replace(Proposals.none(by_text.image_size), rejected=(*reasons, dropped))
    # Whoever denies the thing has no masks of it.
    led_by_text = example < 0 or (text >= 0 and text + config.text_lead >= example)
    leader, other = (by_text, by_example) if led_by_text else (by_example, by_text)
    name = "phrase" if led_by_text else "example"
    overlaps = [[_iou(mask, seen) for seen in other.masks] for mask in leader.masks]
    shared = np.array(overlaps, np.float32).reshape(len(leader), len(other))  # (N, M)
    partner = (shared * other.prompt_scores).max(1, initial=0.0)
    raised = 1 - (1 - leader.prompt_scores) * (1 - partner)
    return replace(
        leader,
        prompt_scores=raised.astype(np.float32),
        rejected=(*reasons, *(_unused(other, i, name) for i in range(len(other)))),
    )


def _iou(mask: CompactMask, other: CompactMask) -> float:
    shared = mask.intersection(other)
    return shared / max(1, mask.area + other.area - shared)


def _unused(found: Proposals, i: int, leader: str) -> RejectedMask:
    """Mask i of the side that does not lead, as a dropped one."""
    mask = found.masks[i]
    x0, y0, x1, y1 = map(float, mask.box)
    return RejectedMask(
        label=found.labels[i],
        reason=f"the {leader} is surer of what it found itself",
        prompt_score=float(found.prompt_scores[i]),
        iou_prediction=float(found.iou_predictions[i]),
        stability_score=float(found.stability_scores[i]),
        box_xyxy=(x0, y0, x1, y1) if mask.area else None,
        compact_mask=mask if mask.area else None,
    )
