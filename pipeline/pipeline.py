"""The orchestration: query -> prompts -> masks -> ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..models.embedding import ImageEmbedding
from ..models.errors import InputError
from .checks import Numbers
from .config import PipelineConfig
from .decoding.clicks import decode_marked
from .decoding.closer import CloserLooks
from .decoding.decode import decode_proposals, to_proposals
from .decoding.everything import EverythingConfig, ProgressCallback, segment_everything
from .decoding.prompts import PromptSet
from .decoding.segmenter import Segmenter
from .images import ImageSource, load_own_image
from .prompters.mark_prompts import mark_prompts
from .prompters.reference.examples import (
    EncodedReference,
    Reference,
    ReferenceQuery,
    read_references,
)
from .prompters.reference.matching import Matches
from .prompters.reference.prompter import ReferencePrompter
from .prompters.text.prompter import TextPrompter
from .proposals import Proposals
from .query import Phrases, Query, pair
from .result import RejectedMask, Result
from .scoring.fusion import fuse
from .scoring.ranking import RankingConfig, rank

# Phrases answered at a time; bounds memory and does not change results.
_PHRASES_AT_ONCE = 16


class Pipeline:
    """Finds what a query names, shows or marks in an image, as ranked masks.

    Args:
        segmenter: Encodes images and decodes prompts.
        text_prompter: Turns phrases into prompts; None for a pipeline that takes no text.
        reference_prompter: Finds what references show; None for a pipeline that takes none.
        config: Settings of all stages.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        text_prompter: TextPrompter[Any] | None = None,
        reference_prompter: ReferencePrompter | None = None,
        config: PipelineConfig | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.text_prompter = text_prompter
        self.reference_prompter = reference_prompter
        self.config = config or PipelineConfig()
        self._closer_looks = CloserLooks(segmenter, partial(decode_marked, segmenter))

    def __call__(
        self,
        image: ImageSource | ImageEmbedding,
        text: Phrases = None,
        *,
        negative_text: Phrases = None,
        reference: ReferenceQuery | None = None,
        negative_reference: ReferenceQuery | None = None,
        points: Numbers | None = None,
        point_labels: Numbers | None = None,
        boxes: Numbers | None = None,
        min_presence: float | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
        no_overlap: bool | None = None,
    ) -> Result:
        """Segment one image.

        Text finds what the phrases name, a reference what it shows; a phrase and an example of
        the same thing are combined into one answer (see
        :mod:`~promptseg.pipeline.scoring.fusion`). Points and boxes alone segment what they mark;
        a single click gives up to three masks (whole, part, subpart). With text or a reference,
        points and boxes only choose among the masks found: those marked by a foreground point or
        a box are kept.

        Args:
            image: Anything that :func:`~promptseg.pipeline.images.load_image` reads, or an
                embedding from :meth:`encode_image`, which saves encoding it for each query.
            text: Phrases to look for; :class:`~promptseg.pipeline.query.Query` describes this and
                the next seven arguments in full.
            negative_text: Phrases whose masks are not wanted.
            reference: Examples of what to look for.
            negative_reference: Examples of what not to find.
            points: (x, y) in pixels of the image.
            point_labels: 1 foreground, 0 background.
            boxes: XYXY in pixels of the image.
            min_presence: Minimum presence of what text and references mean; 0 finds it anyway.
            top_k: Maximum number of masks for each phrase.
            min_score: Minimum score of a mask.
            no_overlap: Whether each pixel goes to the best of the masks that cover it.

        Returns:
            Masks at the image's size, best first; it may be empty.

        Raises:
            InputError: The image cannot be read, or the query is invalid.
        """
        ranking = self._ranking(top_k, min_score, no_overlap)
        query = Query(
            text,
            negative_text=negative_text,
            reference=reference,
            negative_reference=negative_reference,
            points=points,
            point_labels=point_labels,
            boxes=boxes,
            min_presence=min_presence,
        )
        return rank(self.propose(image, query), ranking)

    def encode_image(self, image: ImageSource) -> ImageEmbedding:
        """Encode an image once, for any number of queries.

        Raises:
            InputError: The image cannot be read.
        """
        return self.segmenter.encode_image(image)

    def propose(self, image: ImageSource | ImageEmbedding, query: Query) -> Proposals:
        """Decode everything that a query finds, without ranking it.

        :meth:`rank` then chooses among the masks; ranking them again with other thresholds decodes
        nothing again.

        Args:
            image: As for :meth:`__call__`.
            query: What to look for.

        Raises:
            InputError: The image cannot be read, a mark lies outside it, or this pipeline cannot
                answer the query.
        """
        # The whole query is checked before anything is encoded.
        if isinstance(image, ImageEmbedding):
            self.segmenter.check(image)
            query.check_fits(image.original_size)
        else:
            image = load_own_image(image)
            query.check_fits((image.shape[0], image.shape[1]))
        prompts = None if query.finds else mark_prompts(query.marks)
        if query.text or query.negative_text:
            self._text()
        references = self._encode_references(query.reference)
        lookalikes = self._encode_references(query.negative_reference)
        paired, alone = pair(query.text, references)
        embedding = (
            image if isinstance(image, ImageEmbedding) else self.segmenter.encode_pixels(image)
        )
        found, least = [], query.min_presence
        if prompts is not None:
            found.append(self._by_marks(embedding, prompts))
        if alone:
            found.append(self._by_reference(embedding, alone, lookalikes, least))
        if paired:
            found += [
                self._by_both(embedding, phrase, paired[phrase], lookalikes, least)
                if phrase in paired
                else self._by_text(embedding, [phrase], least)
                for phrase in query.text
            ]
        elif query.text:
            found.append(self._by_text(embedding, query.text, least))
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

    def rank(
        self,
        proposals: Proposals,
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        no_overlap: bool | None = None,
    ) -> Result:
        """Rank proposals with the pipeline's own settings.

        :func:`~promptseg.pipeline.scoring.ranking.rank` takes every setting of the ranking.

        Args:
            proposals: What :meth:`propose` returned.
            top_k: As for :meth:`__call__`.
            min_score: As for :meth:`__call__`.
            no_overlap: As for :meth:`__call__`.

        Raises:
            InputError: A value is out of its range.
        """
        return rank(proposals, self._ranking(top_k, min_score, no_overlap))

    def encode_reference(self, reference: ReferenceQuery) -> EncodedReference:
        """Encode examples of one thing once, for any number of images.

        Args:
            reference: One or several examples, all with the same label.

        Returns:
            A value that :meth:`__call__` takes for ``reference``.

        Raises:
            InputError: The labels differ, SAM finds no object at a box or a point, or this
                pipeline has no reference prompter.
        """
        encoded = self._encode_references(read_references(reference))
        if len(encoded) != 1:
            labels = ", ".join(repr(item.label) for item in encoded)
            raise InputError(
                f"encode references of one label at a time, got {labels or 'no reference'}"
            )
        return encoded[0]

    def everything(
        self,
        image: ImageSource | ImageEmbedding,
        *,
        points_per_side: int | None = None,
        min_mask_region_area: int | None = None,
        config: EverythingConfig | None = None,
        progress: ProgressCallback | None = None,
    ) -> Result:
        """Segment everything that clicks on a grid find, without a query.

        Args:
            image: As for :meth:`__call__`.
            points_per_side: Clicks along each side of the grid; by default the config's.
            min_mask_region_area: Holes of fewer pixels are filled and islands of fewer pixels
                removed; by default the config's.
            config: All settings; by default the preset's.
            progress: Called with the number of points done and the total.

        Returns:
            Masks at the image's size, best first; see
            :func:`~promptseg.pipeline.decoding.everything.segment_everything`.

        Raises:
            InputError: The image cannot be read, or a value is out of its range.
        """
        proposals = self.propose_everything(
            image,
            points_per_side=points_per_side,
            min_mask_region_area=min_mask_region_area,
            config=config,
            progress=progress,
        )
        weight = self.config.ranking.stability_weight
        return rank(proposals, RankingConfig(stability_weight=weight))

    def propose_everything(
        self,
        image: ImageSource | ImageEmbedding,
        *,
        points_per_side: int | None = None,
        min_mask_region_area: int | None = None,
        config: EverythingConfig | None = None,
        progress: ProgressCallback | None = None,
    ) -> Proposals:
        """Do what :meth:`everything` does, except for the ranking; same arguments."""
        config = config or self.config.everything
        if points_per_side is not None:
            config = replace(config, points_per_side=points_per_side)
        if min_mask_region_area is not None:
            config = replace(config, min_mask_region_area=min_mask_region_area)
        if isinstance(image, ImageEmbedding):
            self.segmenter.check(image)
        return segment_everything(self.segmenter, image, config, progress=progress)

    def _ranking(
        self, top_k: int | None, min_score: float | None, no_overlap: bool | None
    ) -> RankingConfig:
        """Return the pipeline's ranking settings with the given values replaced."""
        own = self.config.ranking
        return replace(
            own,
            top_k=own.top_k if top_k is None else top_k,
            min_score=own.min_score if min_score is None else min_score,
            no_overlap=own.no_overlap if no_overlap is None else no_overlap,
        )

    def _encode_references(
        self, examples: Sequence[Reference | EncodedReference]
    ) -> tuple[EncodedReference, ...]:
        return self._shown().encode(examples) if examples else ()

    def _by_text(
        self, embedding: ImageEmbedding, phrases: Sequence[str], least: float | None = None
    ) -> Proposals:
        """Return masks of what phrases name, one per prompt, and the absent phrases."""
        found = []
        for start in range(0, len(phrases), _PHRASES_AT_ONCE):
            asked = phrases[start : start + _PHRASES_AT_ONCE]
            sets, rejected = self._text()(embedding, asked, least)
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
        answers, verdicts = named.ask(embedding, [phrase], least)
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
            return decode_marked(self.segmenter, embedding, prompts)
        return self._closer_looks(embedding, prompts, closer)

    def _text(self) -> TextPrompter[Any]:
        if self.text_prompter is None:
            raise InputError("this pipeline has no text prompter; give points or boxes")
        return self.text_prompter

    def _shown(self) -> ReferencePrompter:
        if self.reference_prompter is None:
            raise InputError("this pipeline has no reference prompter; give text, points or boxes")
        return self.reference_prompter
