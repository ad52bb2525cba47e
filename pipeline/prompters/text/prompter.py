"""Phrases as prompts: a model answers, the gate decides, a maker turns answers into prompts.

Which model answers, and in what form, is nothing that this module knows: heat maps, boxes and
similarity maps go through the same three steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from ....models.embedding import ImageEmbedding
from ...decoding.prompts import PromptSet
from ...result import RejectedMask
from ..seen_once import SeenOnce
from .gate import PresenceGate, Verdict


class Answer(Protocol):
    """What a grounding model says of one phrase, whatever else it says."""

    @property
    def phrase(self) -> str:
        """The phrase."""
        ...

    @property
    def presence(self) -> float:
        """How sure the model is that what the phrase names is there at all, in [0, 1]."""
        ...


AnswerT = TypeVar("AnswerT", bound=Answer)
AnswerT_co = TypeVar("AnswerT_co", bound=Answer, covariant=True)
AnswerT_contra = TypeVar("AnswerT_contra", bound=Answer, contravariant=True)
ViewT = TypeVar("ViewT")


class Grounder(Protocol[AnswerT_co]):
    """Answers phrases on an encoded image, each on its own and in their order."""

    def __call__(
        self, embedding: ImageEmbedding, phrases: Sequence[str]
    ) -> Sequence[AnswerT_co]: ...


class PromptMaker(Protocol[AnswerT_contra]):
    """Turns the answer for a phrase that is there into prompts."""

    def __call__(self, found: AnswerT_contra, embedding: ImageEmbedding) -> PromptSet:
        """Prompts of one phrase, best first; there may be none."""
        ...

    def peak(self, found: AnswerT_contra, embedding: ImageEmbedding) -> tuple[float, float] | None:
        """Where the phrase matches best, (x, y) in pixels, whether it is there or not."""
        ...


@dataclass(frozen=True, eq=False)
class Judged(Generic[AnswerT]):
    """An answer, and what the gate says of it.

    Attributes:
        answer: The grounding model's.
        verdict: The gate's.
    """

    answer: AnswerT
    verdict: Verdict


class CachedGrounder(Generic[ViewT, AnswerT]):
    """A grounder that sees a picture once: further phrases on the same embedding cost little.

    Args:
        look: What the model sees in an encoded image.
        ground: Answers phrases on what was seen.
    """

    def __init__(
        self,
        look: Callable[[ImageEmbedding], ViewT],
        ground: Callable[[Sequence[str], ViewT], Sequence[AnswerT]],
    ) -> None:
        self.see = SeenOnce(look)
        self.ground = ground

    def __call__(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> Sequence[AnswerT]:
        return self.ground(phrases, self.see(embedding))


class TextPrompter(Generic[AnswerT]):
    """Turns phrases into prompts, or into a reason why there is nothing to prompt for.

    Args:
        grounder: Answers phrases.
        maker: Turns answers into prompts.
        gate: Decides what is there.
    """

    def __init__(
        self, grounder: Grounder[AnswerT], maker: PromptMaker[AnswerT], gate: PresenceGate
    ) -> None:
        self.grounder = grounder
        self.maker = maker
        self.gate = gate

    def __call__(
        self, embedding: ImageEmbedding, phrases: Sequence[str]
    ) -> tuple[list[PromptSet], tuple[RejectedMask, ...]]:
        """Make the prompts of all phrases, and say which phrases have none.

        Args:
            embedding: The encoded image.
            phrases: Checked phrases.

        Returns:
            Prompts in the order of the phrases, as few sets as their layouts allow, and the
            phrases that are not there.
        """
        return self.prompts(embedding, self.ask(embedding, phrases))

    def ask(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> list[Judged[AnswerT]]:
        """Answer phrases and judge which are there; the first half of a call."""
        answers = self.grounder(embedding, phrases)
        verdicts = self.gate(embedding, phrases, [answer.presence for answer in answers])
        return [Judged(*pair) for pair in zip(answers, verdicts, strict=True)]

    def prompts(
        self, embedding: ImageEmbedding, judged: Sequence[Judged[AnswerT]]
    ) -> tuple[list[PromptSet], tuple[RejectedMask, ...]]:
        """Make the prompts of what is there; the second half of a call."""
        found: list[PromptSet] = []
        rejected: list[RejectedMask] = []
        for item in judged:
            reason = item.verdict.reason
            prompts = PromptSet.empty() if reason else self.maker(item.answer, embedding)
            if len(prompts):
                found.append(prompts)
            else:
                why = reason or "nothing in the picture can be prompted for"
                rejected.append(RejectedMask(item.answer.phrase, why, item.answer.presence))
        return list(_join_alike(found)), tuple(rejected)

    def presence(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> list[float]:
        """How sure the grounding is that each phrase's object is in the picture, in [0, 1]."""
        return [answer.presence for answer in self.grounder(embedding, phrases)]

    def peaks(
        self, embedding: ImageEmbedding, phrases: Sequence[str]
    ) -> list[tuple[float, float] | None]:
        """Where each phrase matches best, (x, y) in pixels, whether it is there or not.

        A detector that finds no box at all for a phrase has no such place.
        """
        return [self.maker.peak(found, embedding) for found in self.grounder(embedding, phrases)]

    def ungated(self) -> TextPrompter[AnswerT]:
        """Return the same prompter with its gate open."""
        return TextPrompter(self.grounder, self.maker, PresenceGate())


def _join_alike(prompts: Sequence[PromptSet]) -> Iterator[PromptSet]:
    """Join neighbours of one layout, so that they are decoded together."""
    for _, alike in groupby(prompts, key=lambda item: item.layout):
        yield PromptSet.join(list(alike))
