"""The orchestration: query -> prompts -> masks -> ranking."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import ArrayLike

from ..models.errors import InputError
from .agreement import AgreementConfig, decode_agreeing
from .cascade import check_parts, decode_cascade, decode_prompts
from .everything import EverythingConfig, ProgressCallback, segment_everything
from .images import ImageSource, load_image
from .marks import read_marks
from .masks import MAX_MASK_PIXELS
from .prompters.marks import mark_prompts
from .prompters.reference import ReferencePrompter
from .prompters.text import TextPrompter
from .proposals import Proposals
from .ranking import RankingConfig, rank
from .reference import EncodedReference, Reference, ReferenceQuery, read_references
from .segmenter import Segmenter
from .types import Float32Array, ImageEmbedding, LowResMasks, PromptSet, Result

# Phrases that are answered together; bounds memory, not results.
_PHRASES_AT_ONCE = 16


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
        everything: What everything mode looks at and keeps.

    Raises:
        InputError: ``first_pass`` names no part or an unknown one.
    """

    ranking: RankingConfig = field(default_factory=RankingConfig)
    first_pass: tuple[str, ...] = ("points", "boxes", "masks")
    multimask_output: bool = True
    refine_passes: int = 1
    agreement: AgreementConfig | None = None
    everything: EverythingConfig = field(default_factory=EverythingConfig)

    def __post_init__(self) -> None:
        check_parts(self.first_pass)


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

        Text alone finds what the phrases name, a reference alone what it shows; points and boxes
        alone segment what they mark, a lone click with up to three masks (whole, part, subpart).
        With text or a reference, points and boxes only choose: of what is found that is kept
        which a foreground point or a box marks.

        Args:
            image: A path, a Pillow image or a uint8 array (H, W, 3) RGB; or an image that this
                pipeline's segmenter has encoded already, for many queries at the price of one.
            text: One or several phrases; each is looked for on its own.
            negative_text: Masks that lie on what these phrases name are dropped.
            reference: One or several examples of what to look for, encoded or not; those of one
                label are examples of the same thing.
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
        # Nothing is encoded before the whole query is known to make sense.
        picture = image if isinstance(image, ImageEmbedding) else load_image(image)
        size = picture.original_size if isinstance(picture, ImageEmbedding) else picture.shape[:2]
        marks = read_marks(points, point_labels, boxes, (size[0], size[1]))
        if not (phrases or examples or marks):
            raise InputError("say what to look for: give text, a reference, points or boxes")
        if phrases and examples:
            raise InputError("text and references are not combined yet; give one of them")
        prompts = PromptSet.empty() if phrases or examples else mark_prompts(marks)
        if (phrases or negatives) and self.text_prompter is None:
            raise InputError("this pipeline has no text prompter; give points or boxes")
        references = self._encode_references(examples)
        others = self._encode_references(lookalikes)
        embedding = (
            picture if isinstance(picture, ImageEmbedding) else self.segmenter.encode_image(picture)
        )
        if phrases:
            found = self._decode_phrases(embedding, phrases)
        elif references:
            found = self._match(embedding, references, others)
        else:
            found = self._decode_marks(embedding, prompts)
        against = []
        if negatives:
            against.append(self._decode_phrases(embedding, negatives))
        if others and not references:  # else each match was held against them already
            against.append(self._match(embedding, others, ()))
        joined = Proposals.join(embedding.original_size, against) if against else None
        choosing = marks if phrases or references else None
        return replace(found, negatives=joined, marks=choosing)

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

    def _decode_phrases(self, embedding: ImageEmbedding, phrases: Sequence[str]) -> Proposals:
        """Masks of what the phrases name, one a prompt, and the phrases that are not there."""
        if self.text_prompter is None:
            raise InputError("this pipeline has no text prompter; give points or boxes")
        found = []
        for start in range(0, len(phrases), _PHRASES_AT_ONCE):
            block = phrases[start : start + _PHRASES_AT_ONCE]
            sets, rejected = self.text_prompter(embedding, block)
            found += [self._decode(embedding, prompts) for prompts in sets]
            found.append(replace(Proposals.none(embedding.original_size), rejected=rejected))
        return Proposals.join(embedding.original_size, found)

    def _decode(self, embedding: ImageEmbedding, prompts: PromptSet) -> Proposals:
        """One mask for each prompt, some of them at a time."""
        config, step = self.config, self.segmenter.batch_size
        found = []
        for start in range(0, len(prompts), step):
            block = prompts.part(slice(start, start + step))
            if config.agreement is not None:
                masks = decode_agreeing(self.segmenter, embedding, block, config.agreement)
            else:
                masks = decode_cascade(
                    self.segmenter,
                    embedding,
                    block,
                    first_pass=config.first_pass,
                    multimask_output=config.multimask_output,
                    refine_passes=config.refine_passes,
                )
            found.append(self._finish(embedding, masks, block.labels, block.prompt_scores))
        return Proposals.join(embedding.original_size, found)

    def _encode_references(
        self, examples: Sequence[Reference | EncodedReference]
    ) -> tuple[EncodedReference, ...]:
        return self._references().encode(examples) if examples else ()

    def _references(self) -> ReferencePrompter:
        if self.reference_prompter is None:
            raise InputError("this pipeline has no reference prompter; give text, points or boxes")
        return self.reference_prompter

    def _match(
        self,
        embedding: ImageEmbedding,
        references: Sequence[EncodedReference],
        negatives: Sequence[EncodedReference],
    ) -> Proposals:
        """Masks of what references show, and why there are none of some."""
        matches = self._references().find(embedding, references, negatives)
        found = []
        for reference, match in zip(references, matches, strict=True):
            labels = (reference.label,) * len(match.prompt_scores)
            masks = self._finish(embedding, match.masks, labels, match.prompt_scores)
            found.append(replace(masks, rejected=match.rejected))
            found.append(Proposals.certain(embedding.original_size, match.known, reference.label))
        return Proposals.join(embedding.original_size, found)

    def _decode_marks(self, embedding: ImageEmbedding, prompts: PromptSet) -> Proposals:
        """Masks of points and boxes; a lone click is ambiguous and gives all three of its."""
        coords = prompts.point_coords
        lone = prompts.boxes is None and coords is not None and coords.shape[1] == 1
        masks = decode_prompts(self.segmenter, embedding, prompts, multimask_output=lone)
        return self._finish(embedding, masks, prompts.labels, prompts.prompt_scores)

    def _finish(
        self,
        embedding: ImageEmbedding,
        masks: LowResMasks,
        labels: Sequence[str],
        prompt_scores: Float32Array,
    ) -> Proposals:
        """Masks at the image's size, those of a prompt one after the other."""
        count = masks.iou_predictions.shape[1]
        step = max(1, MAX_MASK_PIXELS // (count * math.prod(embedding.original_size)))
        found = []
        for start in range(0, len(labels), step):
            block = slice(start, start + step)
            some = LowResMasks(masks.logits[block], masks.iou_predictions[block])
            candidates = self.segmenter.upscale(embedding, some)
            found.append(
                Proposals.of(
                    candidates.masks.reshape(-1, *embedding.original_size),
                    [label for label in labels[block] for _ in range(count)],
                    candidates.iou_predictions.reshape(-1),
                    candidates.stability_scores.reshape(-1),
                    prompt_scores[block].repeat(count),
                )
            )
        return Proposals.join(embedding.original_size, found)


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
