"""The gate that rejects absent phrases: one rule for all grounding models.

A phrase passes if the presence that its grounding model gives it reaches a least value, and so does
the presence given by every further witness, such as an image-text model on the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ....models.embedding import ImageEmbedding
from ..evidence import check_least, evidence_of, raised, why_absent


class PresenceJudge(Protocol):
    """Estimates in [0, 1] how sure it is that each phrase's object is in an encoded image."""

    def __call__(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> Sequence[float]: ...


@dataclass(frozen=True)
class Witness:
    """A further model that judges presence.

    Attributes:
        name: Name of the model in reasons.
        judge: The model.
        least: Minimum presence for a phrase to pass.
    """

    name: str
    judge: PresenceJudge
    least: float

    def __post_init__(self) -> None:
        check_least(f"least presence of {self.name}", self.least)


@dataclass(frozen=True)
class Verdict:
    """The gate's verdict on a phrase.

    Attributes:
        reason: Why the phrase is absent; "" if it passes.
        presence: Its least presence by the models that were asked.
        evidence: How far its presence lies above or below the least that passes, in log-odds; the
            minimum over all models that were asked.
    """

    reason: str
    presence: float
    evidence: float


@dataclass(frozen=True)
class PresenceGate:
    """Decides which phrases are present.

    Attributes:
        least: Minimum presence by the grounding model; 0 lets all phrases pass.
        witnesses: Further models, all of which must agree; each is asked only about the phrases
            that have passed so far.

    Raises:
        InputError: A value is not in [0, 1].
    """

    least: float = 0.0
    witnesses: tuple[Witness, ...] = ()

    def __post_init__(self) -> None:
        check_least("least presence", self.least)

    def at(self, least: float) -> PresenceGate:
        """Return the same gate with one least presence for all models; 0 lets all phrases pass."""
        return PresenceGate(
            least, tuple(replace(witness, least=least) for witness in self.witnesses)
        )

    def raised(self, by: float) -> PresenceGate:
        """Return the same gate with every least presence so many log-odds higher."""
        return PresenceGate(
            raised(self.least, by),
            tuple(replace(item, least=raised(item.least, by)) for item in self.witnesses),
        )

    def __call__(
        self, embedding: ImageEmbedding, phrases: Sequence[str], presences: Sequence[float]
    ) -> list[Verdict]:
        """Judge each phrase.

        Args:
            embedding: The encoded image.
            phrases: The phrases.
            presences: Their presence by the grounding model.
        """
        verdicts = [_judge("presence", presence, self.least) for presence in presences]
        for witness in self.witnesses:
            left = [i for i, verdict in enumerate(verdicts) if not verdict.reason]
            if left:
                opinions = witness.judge(embedding, [phrases[i] for i in left])
                for i, opinion in zip(left, opinions, strict=True):
                    verdict = _judge(f"{witness.name} presence", opinion, witness.least)
                    before = verdicts[i]
                    verdicts[i] = Verdict(
                        verdict.reason,
                        min(verdict.presence, before.presence),
                        min(verdict.evidence, before.evidence),
                    )
        return verdicts


def _judge(name: str, presence: float, least: float) -> Verdict:
    return Verdict(why_absent(presence, least, name), presence, evidence_of(presence, least))
