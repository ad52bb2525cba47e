"""One look at an encoded image: the query's phrases, examples and marks become masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..models.embedding import ImageEmbedding
from ..models.errors import InputError
from .config import PipelineConfig
from .decoding.closer import CloserLooks
from .decoding.decode import decode_proposals, to_proposals
from .decoding.prompts import PromptSet
from .decoding.segmenter import Segmenter
from .prompters.evidence import raised
from .prompters.mark_prompts import mark_prompts
from .prompters.reference.examples import EncodedReference, Reference
from .prompters.reference.matching import Matches
from .prompters.reference.prompter import ReferencePrompter
from .prompters.text.prompter import TextPrompter
from .proposals import Proposals
from .query import Query, pair
from .result import RejectedMask
from .scoring.fusion import fuse

# Phrases answered at a time; bounds memory and does not change results.
_PHRASES_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Finder:
    """Answers queries on encoded images.

    Attributes:
        segmenter: Decodes prompts.
        text_prompter: Turns phrases into prompts; None for a pipeline that takes no text.
        reference_prompter: Finds what references show; None for a pipeline that takes none.
        config: Settings of all stages.
        closer_looks: Decodes marks, small things from a closer look.
        stricter: Log-odds by which what is looked for must be surer to be there than the models'
            own least presence says; it does not apply to a query's own `min_presence`, nor to
            what is not wanted.
    """

    segmenter: Segmenter
    text_prompter: TextPrompter[Any] | None
    reference_prompter: ReferencePrompter | None
    config: PipelineConfig
    closer_looks: CloserLooks
    stricter: float = 0.0

    def prepare(self, query: Query) -> Query:
        """Return the query with its examples encoded.

        Raises:
            InputError: This pipeline cannot answer it.
        """
        if query.text or query.negative_text:
            self._text()
        if not (query.reference or query.negative_reference):
            return query
        encoded = self.encode(query.reference)
        pair(query.text, encoded)  # for its check
        return query.with_references(encoded, self.encode(query.negative_reference))

    def find(self, embedding: ImageEmbedding, query: Query) -> Proposals:
        """Decode everything that a prepared query finds in an encoded image, without ranking it."""
        references = self.encode(query.reference)
        lookalikes = self.encode(query.negative_reference)
        paired, alone = pair(query.text, references)
        found, least = [], query.min_presence
        if not query.finds:
            found.append(self._by_marks(embedding, mark_prompts(query.marks)))
        if alone:
            found.append(self._by_reference(embedding, alone, lookalikes, self._asked(least)))
        if paired:
            found += [
                self._by_both(embedding, phrase, paired[phrase], lookalikes, least)
                if phrase in paired
                else self._by_text(embedding, [phrase], least, self.stricter)
                for phrase in query.text
            ]
        elif query.text:
            found.append(self._by_text(embedding, query.text, least, self.stricter))
        against = []
        if query.negative_text:
            against.append(self._by_text(embedding, query.negative_text))
        if lookalikes and not references:  # otherwise each match is compared with them
            against.append(self._by_reference(embedding, lookalikes, ()))
        return replace(
            Proposals.join(embedding.original_size, found),
            negatives=Proposals.join(embedding.original_size, against) if against else None,
            marks=query.marks if query.finds and query.marks else None,
            image=embedding.image,
        )

    def encode(
        self, examples: Sequence[Reference | EncodedReference]
    ) -> tuple[EncodedReference, ...]:
        """Encode the examples that are not encoded yet."""
        return self._shown().encode(examples) if examples else ()

    def _asked(self, least: float | None, stricter: float | None = None) -> float | None:
        """Return the least presence of examples; None leaves it to the strategy."""
        by = self.stricter if stricter is None else stricter
        if least is not None or by == 0.0:
            return least
        return raised(self._shown().strategy.min_presence, by)

    def _by_text(
        self,
        embedding: ImageEmbedding,
        phrases: Sequence[str],
        least: float | None = None,
        stricter: float = 0.0,
    ) -> Proposals:
        """Return masks of what phrases name, one per prompt, and the absent phrases."""
        found = []
        for start in range(0, len(phrases), _PHRASES_AT_ONCE):
            asked = phrases[start : start + _PHRASES_AT_ONCE]
            sets, rejected = self._text()(embedding, asked, least, stricter=stricter)
            found.append(self._decoded(embedding, sets, rejected))
        return Proposals.join(embedding.original_size, found)

    def _decoded(
        self,
        embedding: ImageEmbedding,
        sets: Sequence[PromptSet],
        rejected: tuple[RejectedMask, ...],
    ) -> Proposals:
        """Return masks of prompts, and what has none."""
        found = Proposals.join(
            embedding.original_size,
            [
                decode_proposals(self.segmenter, embedding, prompts, self.config.decoding)
                for prompts in sets
            ],
        )
        found = replace(found, rejected=rejected)
        calibration = self.config.calibration
        return calibration.applied(found) if calibration else found

    def _by_reference(
        self,
        embedding: ImageEmbedding,
        references: Sequence[EncodedReference],
        lookalikes: Sequence[EncodedReference],
        least: float | None = None,
    ) -> Proposals:
        """Return masks of what references show, and why some have none."""
        matches = self._shown().find(embedding, references, lookalikes, least)
        return Proposals.join(
            embedding.original_size,
            [
                self._matched(embedding, reference.label, match)
                for reference, match in zip(references, matches, strict=True)
            ],
        )

    def _matched(self, embedding: ImageEmbedding, label: str, match: Matches) -> Proposals:
        """Return what one reference found, at the image's size."""
        labels = (label,) * len(match.prompt_scores)
        found = to_proposals(self.segmenter, embedding, match.masks, labels, match.prompt_scores)
        certain = Proposals.certain(embedding.original_size, match.known, label)
        joined = Proposals.join(embedding.original_size, [found, certain])
        return replace(joined, rejected=match.rejected)

    def _by_both(
        self,
        embedding: ImageEmbedding,
        phrase: str,
        reference: EncodedReference,
        lookalikes: Sequence[EncodedReference],
        least: float | None,
    ) -> Proposals:
        """Return masks of what a phrase names and an example shows, as one answer."""
        named, shown = self._text(), self._shown()
        half = self.stricter / 2  # of each side, since their evidence is added
        answers, verdicts = named.ask(embedding, [phrase], least, stricter=half)
        least = self._asked(least, half)
        (match,) = shown.find(embedding, [reference], lookalikes, least)
        return fuse(
            phrase,
            self._decoded(embedding, *named.prompts(embedding, answers, verdicts)),
            self._matched(embedding, phrase, match),
            (verdicts[0].evidence, shown.evidence(match, least)),
            self.config.fusion,
        )

    def _by_marks(self, embedding: ImageEmbedding, prompts: PromptSet) -> Proposals:
        """Return masks of points and boxes; a single click is ambiguous and gives all three."""
        closer = self.config.closer
        if closer is None:
            return self.closer_looks.decode(embedding, prompts)
        return self.closer_looks(embedding, prompts, closer)

    def _text(self) -> TextPrompter[Any]:
        if self.text_prompter is None:
            raise InputError("this pipeline has no text prompter; give points or boxes")
        return self.text_prompter

    def _shown(self) -> ReferencePrompter:
        if self.reference_prompter is None:
            raise InputError("this pipeline has no reference prompter; give text, points or boxes")
        return self.reference_prompter
