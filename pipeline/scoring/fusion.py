"""Combines a phrase and an example of the same thing into one answer.

Each is answered on its own, and each answer comes with its evidence: how far its presence lies
above or below the threshold of its gate, in log-odds,

    evidence = logit(presence) - logit(threshold)

The object counts as present if the sum of both is not below 0, as for independent witnesses. The
masks are those of the side with more evidence, but the example needs `text_lead` more than the
phrase. A mask that the other side has found as well gets a higher score:

    score = 1 - (1 - own) * (1 - IoU * other)

where `own` is the mask's prompt score and `other` that of the other side's mask for which the
product is largest. A calibrated score is raised by the same rule. The other side's masks are
rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..checks import Float32Array
from ..compact_mask import CompactMask
from ..proposals import Proposals
from ..result import RejectedMask


@dataclass(frozen=True)
class FusionConfig:
    """How a phrase and an example are combined.

    Attributes:
        text_lead: Log-odds by which the example's evidence must exceed the phrase's for its masks
            to be used.
    """

    text_lead: float = 1.0


def fuse(
    label: str,
    by_text: Proposals,
    by_example: Proposals,
    evidence: tuple[float, float],
    config: FusionConfig,
) -> Proposals:
    """Combine two answers into one.

    Args:
        label: The phrase.
        by_text: What the phrase found; empty, with the reason, if it found nothing.
        by_example: What the example found, likewise.
        evidence: Evidence of the phrase and of the example, in log-odds.
        config: How they are combined.

    Returns:
        The masks of one side with raised scores, and everything that is not kept.
    """
    text, example = evidence
    reasons = by_text.rejected + by_example.rejected
    if text + example < 0:
        told = (
            f"the phrase ({text:+.1f}) and the example ({example:+.1f}) together say it is absent"
        )
        score = max((item.prompt_score for item in reasons), default=0.0)
        # At the presence of the side with less, neither side speaks against it.
        presence = min((item.presence for item in reasons if item.presence is not None), default=0)
        dropped = RejectedMask(label, told, score, presence=presence)
        # A presence that is enough for one side alone is not enough for both.
        reasons = tuple(replace(item, presence=None) for item in reasons)
        return replace(Proposals.none(by_text.image_size), rejected=(*reasons, dropped))
    # A side that denies the object has no masks of it.
    led_by_text = example < 0 or (text >= 0 and text + config.text_lead >= example)
    leader, other = (by_text, by_example) if led_by_text else (by_example, by_text)
    name = "phrase" if led_by_text else "example"
    overlaps = [_ious(mask, other.masks) for mask in leader.masks]
    shared = np.array(overlaps, np.float32).reshape(len(leader), len(other))  # (N, M)
    partner = (shared * other.prompt_scores).max(1, initial=0.0)
    calibrated = leader.calibrated
    return replace(
        leader,
        prompt_scores=_raised(leader.prompt_scores, partner),
        calibrated=None if calibrated is None else _raised(calibrated, partner),
        rejected=(*reasons, *(_unused(other, i, name) for i in range(len(other)))),
    )


def _raised(own: Float32Array, partner: Float32Array) -> Float32Array:
    raised: Float32Array = (1 - (1 - own) * (1 - partner)).astype(np.float32)
    return raised


def _ious(mask: CompactMask, others: Sequence[CompactMask]) -> list[float]:
    return [
        shared / max(1, mask.area + other.area - shared)
        for other, shared in zip(others, mask.shares(others).tolist(), strict=True)
    ]


def _unused(found: Proposals, i: int, leader: str) -> RejectedMask:
    """Return mask i of the side that does not lead, as rejected."""
    mask = found.masks[i]
    x0, y0, x1, y1 = map(float, mask.box)
    return RejectedMask(
        label=found.labels[i],
        reason=f"the masks of the {leader} are used instead",
        prompt_score=float(found.prompt_scores[i]),
        iou_prediction=float(found.iou_predictions[i]),
        stability_score=float(found.stability_scores[i]),
        box_xyxy=(x0, y0, x1, y1) if mask.area else None,
        compact_mask=mask if mask.area else None,
    )
