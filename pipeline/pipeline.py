"""The orchestration: query -> prompts -> masks -> ranking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from ..models.errors import InputError
from .cascade import check_parts, decode_cascade, decode_prompts
from .everything import EverythingConfig, ProgressCallback, segment_everything
from .images import ImageSource, load_image
from .marks import Marks, read_marks
from .prompters.marks import mark_prompts
from .prompters.reference import ReferencePrompter
from .prompters.text import TextPrompter
from .ranking import RankingConfig, rank
from .reference import EncodedReference, Reference, ReferenceQuery, read_references
from .segmenter import Segmenter
from .types import (
    BoolArray,
    Float32Array,
    ImageEmbedding,
    LowResMasks,
    PromptSet,
    RejectedMask,
    Result,
)


@dataclass(frozen=True)
class PipelineConfig:
    """How prompts become masks.

    Attributes:
        ranking: Thresholds and weights of the ranking.
        first_pass: Parts of a phrase's prompts that its masks are first decoded from, of
            "points", "boxes" and "masks".
        refine_passes: Times that they are decoded again, from the points with the masks' own
            tight boxes and logits.
        everything: What everything mode looks at and keeps.

    Raises:
        InputError: ``first_pass`` names no part or an unknown one.
    """

    ranking: RankingConfig = field(default_factory=RankingConfig)
    first_pass: tuple[str, ...] = ("points", "boxes", "masks")
    refine_passes: int = 1
    everything: EverythingConfig = field(default_factory=EverythingConfig)

    def __post_init__(self) -> None:
        check_parts(self.first_pass)


@dataclass(frozen=True, eq=False)
class _Masks:
    """N decoded masks with their scores; (N, ...) each."""

    masks: BoolArray
    labels: tuple[str, ...]
    iou_predictions: Float32Array
    stability_scores: Float32Array
    prompt_scores: Float32Array


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
        text_prompter: TextPrompter | None = None,
        reference_prompter: ReferencePrompter | None = None,
        config: PipelineConfig | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.text_prompter = text_prompter
        self.reference_prompter = reference_prompter
        self.config = config or PipelineConfig()

    def __call__(
        self,
        image: ImageSource,
        *,
        text: str | Sequence[str] | None = None,
        negative_text: str | Sequence[str] | None = None,
        reference: ReferenceQuery | None = None,
        points: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
    ) -> Result:
        """Segment one image.

        Text alone finds what the phrases name, a reference alone what it shows; points and boxes
        alone segment what they mark, a lone click with up to three masks (whole, part, subpart).
        With text or a reference, points and boxes only choose: of what is found that is kept
        which a foreground point or a box marks.

        Args:
            image: A path, a Pillow image or a uint8 array (H, W, 3) RGB.
            text: One or several phrases; each is looked for on its own.
            negative_text: Masks that lie on what these phrases name are dropped.
            reference: One or several examples of what to look for, encoded or not; those of one
                label are examples of the same thing.
            points: (N, 2) in pixels of the image, (x, y).
            point_labels: (N,): 1 foreground, 0 background; all foreground by default.
            boxes: (B, 4) XYXY in pixels of the image.
            top_k: Most masks for each phrase.
            min_score: Least score of a mask.

        Returns:
            Masks at the image's size, best first; it may be empty.

        Raises:
            InputError: The image cannot be read, or the query makes no sense.
        """
        phrases = _read_phrases("text", text)
        negatives = _read_phrases("negative_text", negative_text)
        examples = read_references(reference)
        pixels = load_image(image)
        size = (pixels.shape[0], pixels.shape[1])
        marks = read_marks(points, point_labels, boxes, size)
        if not (phrases or examples or marks):
            raise InputError("say what to look for: give text, a reference, points or boxes")
        if phrases and examples:
            raise InputError("text and references are not combined yet; give one of them")
        ranking = self._ranking(top_k, min_score)
        prompts = PromptSet.empty() if phrases or examples else mark_prompts(marks)
        references = self._encode_references(examples)
        embedding = self.segmenter.encode_image(pixels)
        if phrases:
            return self._find(embedding, phrases, negatives, ranking, marks)
        if references:
            found, rejected = self._match(embedding, references)
            against, _ = self._decode_phrases(embedding, negatives)
            return self._rank(found, ranking, against, marks, rejected)
        found = self._decode_marks(embedding, prompts)
        against, _ = self._decode_phrases(embedding, negatives)
        return self._rank(found, ranking, against)

    def find(
        self,
        embedding: ImageEmbedding,
        text: str | Sequence[str],
        *,
        negative_text: str | Sequence[str] | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
    ) -> Result:
        """Find what phrases name in an image that is already encoded; see :meth:`__call__`."""
        phrases = _read_phrases("text", text)
        negatives = _read_phrases("negative_text", negative_text)
        return self._find(embedding, phrases, negatives, self._ranking(top_k, min_score), None)

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

    def _ranking(self, top_k: int | None, min_score: float | None) -> RankingConfig:
        ranking = self.config.ranking
        if top_k is not None:
            ranking = replace(ranking, top_k=top_k)
        return ranking if min_score is None else replace(ranking, min_score=min_score)

    def _find(
        self,
        embedding: ImageEmbedding,
        phrases: Sequence[str],
        negatives: Sequence[str],
        ranking: RankingConfig,
        marks: Marks | None,
    ) -> Result:
        found, rejected = self._decode_phrases(embedding, phrases)
        against, _ = self._decode_phrases(embedding, negatives)
        return self._rank(found, ranking, against, marks, rejected)

    def _decode_phrases(
        self, embedding: ImageEmbedding, phrases: Sequence[str]
    ) -> tuple[_Masks, tuple[RejectedMask, ...]]:
        """Masks of what the phrases name, one a prompt, and the phrases that are not there."""
        if not phrases:
            return _no_masks(embedding), ()
        if self.text_prompter is None:
            raise InputError("this pipeline has no text prompter; give points or boxes")
        prompts, rejected = self.text_prompter(embedding, phrases)
        if not len(prompts):
            return _no_masks(embedding), rejected
        masks = decode_cascade(
            self.segmenter,
            embedding,
            prompts,
            first_pass=self.config.first_pass,
            refine_passes=self.config.refine_passes,
        )
        return self._finish(embedding, masks, prompts.labels, prompts.prompt_scores), rejected

    def _encode_references(
        self, examples: Sequence[Reference | EncodedReference]
    ) -> tuple[EncodedReference, ...]:
        return self._references().encode(examples) if examples else ()

    def _references(self) -> ReferencePrompter:
        if self.reference_prompter is None:
            raise InputError("this pipeline has no reference prompter; give text, points or boxes")
        return self.reference_prompter

    def _match(
        self, embedding: ImageEmbedding, references: Sequence[EncodedReference]
    ) -> tuple[_Masks, tuple[RejectedMask, ...]]:
        """Masks of what references show, and why there are none of some."""
        matches = self._references().find(embedding, references)
        masks = LowResMasks(
            np.concatenate([match.masks.logits for match in matches]),
            np.concatenate([match.masks.iou_predictions for match in matches]),
        )
        labels = tuple(
            reference.label
            for reference, match in zip(references, matches, strict=True)
            for _ in match.prompt_scores
        )
        scores = np.concatenate([match.prompt_scores for match in matches])
        rejected = tuple(item for match in matches for item in match.rejected)
        return self._finish(embedding, masks, labels, scores), rejected

    def _decode_marks(self, embedding: ImageEmbedding, prompts: PromptSet) -> _Masks:
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
    ) -> _Masks:
        """Masks at the image's size, those of a prompt one after the other."""
        candidates = self.segmenter.upscale(embedding, masks)
        count = candidates.masks.shape[1]
        return _Masks(
            candidates.masks.reshape(-1, *embedding.original_size),
            tuple(label for label in labels for _ in range(count)),
            candidates.iou_predictions.reshape(-1),
            candidates.stability_scores.reshape(-1),
            prompt_scores.repeat(count),
        )

    @staticmethod
    def _rank(
        found: _Masks,
        ranking: RankingConfig,
        against: _Masks,
        marks: Marks | None = None,
        rejected: tuple[RejectedMask, ...] = (),
    ) -> Result:
        return rank(
            found.masks,
            found.labels,
            found.iou_predictions,
            found.stability_scores,
            found.prompt_scores,
            config=ranking,
            negative_masks=against.masks,
            negative_labels=against.labels,
            negative_scores=against.prompt_scores,
            marks=marks,
            already_rejected=rejected,
        )


def _no_masks(embedding: ImageEmbedding) -> _Masks:
    none = np.zeros(0, np.float32)
    return _Masks(np.zeros((0, *embedding.original_size), np.bool_), (), none, none, none)


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
