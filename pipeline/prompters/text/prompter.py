"""Turns phrases into prompts: a model answers, the gate decides, a maker makes the prompts.

This module does not depend on the model or on the form of its answers: heat maps, boxes and
similarity maps go through the same three steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from ....models.embedding import ImageEmbedding
from ...decoding.prompts import PromptSet
from ...result import RejectedMask
from ..seen_once import SeenOnce
from .gate import PresenceGate, Verdict


class Answer(Protocol):
    """What the answers of all grounding models for a phrase have in common."""

    @property
    def phrase(self) -> str:
        """The phrase."""
        ...

    @property
    def presence(self) -> float:
        """How sure the model is that the phrase's object is in the image at all, in [0, 1]."""
        ...

    @property
    def hint(self) -> str:
        """What a person who finds nothing should know about the phrase; "" for nothing."""
        ...


AnswerT = TypeVar("AnswerT", bound=Answer)
AnswerT_co = TypeVar("AnswerT_co", bound=Answer, covariant=True)
AnswerT_contra = TypeVar("AnswerT_contra", bound=Answer, contravariant=True)
ViewT = TypeVar("ViewT")


class Grounder(Protocol[AnswerT_co]):
    """Answers phrases on an encoded image, each independently, in order."""

    def __call__(
        self, embedding: ImageEmbedding, phrases: Sequence[str]
    ) -> Sequence[AnswerT_co]: ...


class PromptMaker(Protocol[AnswerT_contra]):
    """Turns the answer for a present phrase into prompts."""

    def __call__(self, found: AnswerT_contra, embedding: ImageEmbedding) -> PromptSet:
        """Return the prompts of one phrase, best first; there may be none."""
        ...

    def peak(self, found: AnswerT_contra, embedding: ImageEmbedding) -> tuple[float, float] | None:
        """Return where the phrase matches best, (x, y) in pixels, whether present or not."""
        ...


class CachedGrounder(Generic[ViewT, AnswerT]):
    """A grounder that looks at an image once: further phrases on the same embedding are cheap.

    Args:
        look: Computes what all phrases need from an encoded image.
        ground: Answers phrases from the output of ``look``.
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
    """Turns phrases into prompts, or into reasons why they are absent.

    Args:
        grounder: Answers phrases.
        maker: Turns answers into prompts.
        gate: Decides which phrases are present.
    """

    def __init__(
        self, grounder: Grounder[AnswerT], maker: PromptMaker[AnswerT], gate: PresenceGate
    ) -> None:
        self.grounder = grounder
        self.maker = maker
        self.gate = gate

    def __call__(
        self,
        embedding: ImageEmbedding,
        phrases: Sequence[str],
        min_presence: float | None = None,
        *,
        stricter: float = 0.0,
    ) -> tuple[list[PromptSet], tuple[RejectedMask, ...]]:
        """Make the prompts of all phrases, and say which phrases have none.

        Args:
            embedding: The encoded image.
            phrases: Checked phrases.
            min_presence: Minimum presence of a phrase; None for the gate's own.
            stricter: Log-odds that the gate's own minimum is raised by.

        Returns:
            Prompts in the order of the phrases, in as few sets as their layouts allow, and the
            absent phrases.
        """
        asked = self.ask(embedding, phrases, min_presence, stricter=stricter)
        return self.prompts(embedding, *asked)

    def ask(
        self,
        embedding: ImageEmbedding,
        phrases: Sequence[str],
        min_presence: float | None = None,
        *,
        stricter: float = 0.0,
    ) -> tuple[Sequence[AnswerT], list[Verdict]]:
        """Answer phrases and judge which are present; the first half of a call."""
        answers = self.grounder(embedding, phrases)
        own = self.gate.raised(stricter)
        gate = own if min_presence is None else self.gate.at(min_presence)
        return answers, gate(embedding, phrases, [answer.presence for answer in answers])

    def prompts(
        self, embedding: ImageEmbedding, answers: Sequence[AnswerT], verdicts: Sequence[Verdict]
    ) -> tuple[list[PromptSet], tuple[RejectedMask, ...]]:
        """Make the prompts of the present phrases; the second half of a call."""
        found: list[PromptSet] = []
        rejected: list[RejectedMask] = []
        for answer, verdict in zip(answers, verdicts, strict=True):
            prompts = PromptSet.empty() if verdict.reason else self.maker(answer, embedding)
            if len(prompts):
                found.append(prompts)
            else:
                why = verdict.reason or "the model found no place to prompt"
                why = f"{why}; {answer.hint}" if answer.hint else why
                presence = verdict.presence if verdict.reason else None
                rejected.append(
                    RejectedMask(answer.phrase, why, answer.presence, presence=presence)
                )
        return list(_join_alike(found)), tuple(rejected)

    def presence(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> list[float]:
        """Return how sure the model is that each phrase's object is in the image, in [0, 1]."""
        return [answer.presence for answer in self.grounder(embedding, phrases)]

    def peaks(
        self, embedding: ImageEmbedding, phrases: Sequence[str]
    ) -> list[tuple[float, float] | None]:
        """Return where each phrase matches best, (x, y) in pixels, whether present or not.

        None for a phrase for which a detector has no box at all.
        """
        return [self.maker.peak(found, embedding) for found in self.grounder(embedding, phrases)]


def _join_alike(prompts: Sequence[PromptSet]) -> Iterator[PromptSet]:
    """Join neighbours of the same layout, so that they are decoded together."""
    for _, alike in groupby(prompts, key=lambda item: item.layout):
        yield PromptSet.join(list(alike))
