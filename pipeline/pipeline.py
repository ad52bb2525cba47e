"""The orchestration: query -> prompts -> masks -> ranking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from ..models.errors import InputError
from .config import PipelineConfig
from .everything import EverythingConfig, ProgressCallback, segment_everything
from .fusion import pair
from .images import ImageSource, load_image
from .marks import read_marks
from .prompters.marks import mark_prompts
from .prompters.reference import ReferencePrompter
from .prompters.text import TextPrompter
from .proposals import Proposals
from .proposing import Proposer
from .ranking import RankingConfig, rank
from .reference import EncodedReference, Reference, ReferenceQuery, read_references
from .segmenter import Segmenter
from .types import ImageEmbedding, PromptSet, Result


class Pipeline:
    """Finds what a query names or marks in an image, as ranked masks.

    Args:
        segmenter: Encodes images and decodes prompts.
        text_prompter: Turns phrases into prompts; without it there is no text.
        reference_prompter: Finds what references show; without it there are no references.
        config: Thresholds.
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

    def __call__(
        self,
        image: ImageSource | ImageEmbedding,
        *,
        text: str | Sequence[str] | None = None,
        negative_text: str | Sequence[str] | None = None,
        reference: ReferenceQuery | None = None,
        negative_reference: ReferenceQuery | None = None,
        points: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
        no_overlap: bool | None = None,
    ) -> Result:
        """Segment one image.

        Text finds what the phrases name, a reference what it shows; of a phrase and an example of
        the same thing :mod:`~promptseg.pipeline.fusion` makes one answer. Points and boxes alone
        segment what they mark, a lone click with up to three masks (whole, part, subpart).
        With text or a reference, points and boxes only choose: of what is found that is kept
        which a foreground point or a box marks.

        Args:
            image: A path, a Pillow image or a uint8 array (H, W, 3) RGB; or an image that this
                pipeline's segmenter has encoded already, for many queries at the price of one.
            text: One or several phrases; each is looked for on its own.
            negative_text: Masks that lie on what these phrases name are dropped.
            reference: One or several examples of what to look for, encoded or not; those of one
                label are examples of the same thing. With text, an example goes with the phrase
                that it is labelled with, or with the only one.
            negative_reference: Examples of what it is not, such as lookalikes. With a reference,
                masks that are more like them are dropped; without, those that lie on what they
                find.
            points: (N, 2) in pixels of the image, (x, y).
            point_labels: (N,): 1 foreground, 0 background; all foreground by default.
            boxes: (B, 4) XYXY in pixels of the image.
            top_k: Most masks for each phrase.
            min_score: Least score of a mask.
            no_overlap: Whether each pixel goes to the best of the masks that cover it.

        Returns:
            Masks at the image's size, best first; it may be empty.

        Raises:
            InputError: The image cannot be read, or the query makes no sense.
        """
        config = self.ranking(top_k=top_k, min_score=min_score, no_overlap=no_overlap)
        proposals = self.propose(
            image,
            text=text,
            negative_text=negative_text,
            reference=reference,
            negative_reference=negative_reference,
            points=points,
            point_labels=point_labels,
            boxes=boxes,
        )
        return rank(proposals, config)

    def propose(
        self,
        image: ImageSource | ImageEmbedding,
        *,
        text: str | Sequence[str] | None = None,
        negative_text: str | Sequence[str] | None = None,
        reference: ReferenceQuery | None = None,
        negative_reference: ReferenceQuery | None = None,
        points: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
    ) -> Proposals:
        """Everything that :meth:`__call__` does but the ranking, with the same arguments.

        ``rank(proposals, pipe.ranking(top_k=3))`` chooses among the masks, again and again with
        other thresholds, without decoding anything anew.
        """
        phrases = _read_phrases("text", text)
        negatives = _read_phrases("negative_text", negative_text)
        examples = read_references(reference)
        lookalikes = read_references(negative_reference, "negative_reference")
        if isinstance(image, ImageEmbedding):
            self.segmenter.check(image)
        # Nothing is encoded before the whole query is known to make sense.
        picture = image if isinstance(image, ImageEmbedding) else load_image(image)
        size = picture.original_size if isinstance(picture, ImageEmbedding) else picture.shape[:2]
        marks = read_marks(points, point_labels, boxes, (size[0], size[1]))
        if not (phrases or examples or marks):
            raise InputError("say what to look for: give text, a reference, points or boxes")
        prompts = PromptSet.empty() if phrases or examples else mark_prompts(marks)
        if (phrases or negatives) and self.text_prompter is None:
            raise InputError("this pipeline has no text prompter; give points or boxes")
        references = self._encode_references(examples)
        if phrases and references:
            pair(phrases, references)  # refuses what is not clear
        others = self._encode_references(lookalikes)
        embedding = (
            picture if isinstance(picture, ImageEmbedding) else self.segmenter.encode_image(picture)
        )
        named, shown = self.text_prompter, self.reference_prompter
        proposer = Proposer(self.segmenter, self.config)
        if named and shown and phrases and references:
            found = proposer.by_both(named, shown, embedding, phrases, references, others)
        elif named and phrases:
            found = proposer.by_text(named, embedding, phrases)
        elif shown and references:
            found = proposer.by_reference(shown, embedding, references, others)
        else:
            found = proposer.by_marks(embedding, prompts)
        against = []
        if named and negatives:
            against.append(proposer.by_text(named, embedding, negatives))
        if shown and others and not references:  # else each match is held against them
            against.append(proposer.by_reference(shown, embedding, others, ()))
        return replace(
            found,
            negatives=Proposals.join(embedding.original_size, against) if against else None,
            marks=marks if phrases or references else None,
        )

    def ranking(
        self,
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        no_overlap: bool | None = None,
    ) -> RankingConfig:
        """Return the pipeline's own ranking with what is given in place of its values.

        Raises:
            InputError: A value is out of its range.
        """
        own = self.config.ranking
        return replace(
            own,
            top_k=own.top_k if top_k is None else top_k,
            min_score=own.min_score if min_score is None else min_score,
            no_overlap=own.no_overlap if no_overlap is None else no_overlap,
        )

    def ungated(self) -> Pipeline:
        """Return the same pipeline with the presence gate of its text open."""
        prompter = self.text_prompter
        return Pipeline(
            self.segmenter,
            text_prompter=None if prompter is None else prompter.ungated(),
            reference_prompter=self.reference_prompter,
            config=self.config,
        )

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
        image: ImageSource,
        *,
        points_per_side: int | None = None,
        min_mask_region_area: int | None = None,
        config: EverythingConfig | None = None,
        progress: ProgressCallback | None = None,
    ) -> Result:
        """Find masks of all that clicks on a grid find, without a query.

        Args:
            image: A path, a Pillow image or a uint8 array (H, W, 3) RGB.
            points_per_side: Clicks along each side of the grid; by default the config's.
            min_mask_region_area: Holes and islands of fewer pixels are filled and removed; by
                default the config's.
            config: All that can be set; by default the preset's.
            progress: Called with the points done and the points in total.

        Returns:
            Masks at the image's size, best first; see
            :func:`~promptseg.pipeline.everything.segment_everything`.

        Raises:
            InputError: The image cannot be read, or a value is out of its range.
        """
        config = config or self.config.everything
        if points_per_side is not None:
            config = replace(config, points_per_side=points_per_side)
        if min_mask_region_area is not None:
            config = replace(config, min_mask_region_area=min_mask_region_area)
        weight = self.config.ranking.stability_weight
        return segment_everything(
            self.segmenter, image, config, stability_weight=weight, progress=progress
        )

    def _encode_references(
        self, examples: Sequence[Reference | EncodedReference]
    ) -> tuple[EncodedReference, ...]:
        if not examples:
            return ()
        if self.reference_prompter is None:
            raise InputError("this pipeline has no reference prompter; give text, points or boxes")
        return self.reference_prompter.encode(examples)


def _read_phrases(name: str, value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Checked phrases without surrounding space and repetitions, in their order."""
    if value is None:
        return ()
    if not isinstance(value, Iterable):
        raise InputError(f"{name} must be text or a list of texts, got {value!r}")
    phrases = [value] if isinstance(value, str) else list(value)
    for phrase in phrases:
        if not isinstance(phrase, str):
            raise InputError(f"{name} must be text or a list of texts, got {phrase!r}")
        if not phrase.strip():
            raise InputError(f"{name}: the text is empty; name what to look for")
        try:
            phrase.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{name}: {phrase!r} is not valid Unicode text") from error
    return tuple(dict.fromkeys(phrase.strip() for phrase in phrases))
