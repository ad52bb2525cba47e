"""The gate that answers "nothing here": one rule for all grounding models.

A phrase passes if the presence that its grounding model gives it reaches a least value, and every
further witness, such as an image-text model that looks at the whole picture, agrees as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ....models.embedding import ImageEmbedding
from ....models.errors import InputError
from ..evidence import evidence_of


class PresenceJudge(Protocol):
    """Says how surely phrases' objects are in an encoded image, each in [0, 1]."""

    def __call__(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> Sequence[float]: ...


@dataclass(frozen=True)
class Witness:
    """A further opinion on presence.

    Attributes:
        name: What it is called in reasons.
        judge: Gives the opinion.
        least: A phrase of less presence is not there.
    """

    name: str
    judge: PresenceJudge
    least: float

    def __post_init__(self) -> None:
        _check(f"least presence of {self.name}", self.least)


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a phrase.

    Attributes:
        reason: Why it is not there; "" if it is.
        evidence: How far its presence lies above or below the least that passes, in log-odds; of
            several witnesses that of the least sure.
    """

    reason: str
    evidence: float


@dataclass(frozen=True)
class PresenceGate:
    """Decides which phrases are there.

    Attributes:
        least: A phrase of less presence, by its own grounding model, is not there; 0 lets all
            pass.
        witnesses: Further opinions, all of which must agree; asked only about what passed so far.

    Raises:
        InputError: A value is not in [0, 1].
    """

    least: float = 0.0
    witnesses: tuple[Witness, ...] = ()

    def __post_init__(self) -> None:
        _check("least presence", self.least)

    def __call__(
        self, embedding: ImageEmbedding, phrases: Sequence[str], presences: Sequence[float]
    ) -> list[Verdict]:
        """Judge each phrase.

        Args:
            embedding: The encoded image.
            phrases: The phrases.
            presences: What their grounding model says of them.
        """
        verdicts = [_judge("presence", presence, self.least) for presence in presences]
        for witness in self.witnesses:
            left = [i for i, verdict in enumerate(verdicts) if not verdict.reason]
            if left:
                opinions = witness.judge(embedding, [phrases[i] for i in left])
                for i, opinion in zip(left, opinions, strict=True):
                    verdict = _judge(f"{witness.name} presence", opinion, witness.least)
                    evidence = min(verdict.evidence, verdicts[i].evidence)
                    verdicts[i] = replace(verdict, evidence=evidence)
        return verdicts


def _judge(name: str, presence: float, least: float) -> Verdict:
    reason = f"{name} {presence:.2f} below {least:.2f}" if presence < least else ""
    return Verdict(reason, evidence_of(presence, least))


def _check(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} must be between 0 and 1, not {value!r}")
