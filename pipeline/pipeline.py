"""The orchestration: query -> prompts -> masks -> ranking."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from ..models.errors import InputError
from .images import ImageSource, load_image
from .prompters.geometry import geometry_prompts
from .prompters.text import TextPrompter
from .ranking import (
    RankingConfig,
    keep_marked,
    masks_to_boxes,
    rank,
    select_by_iou_prediction,
)
from .segmenter import Segmenter
from .types import (
    BoolArray,
    Float32Array,
    ImageEmbedding,
    MaskCandidates,
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

    Raises:
        InputError: ``first_pass`` names no part or an unknown one.
    """

    ranking: RankingConfig = field(default_factory=RankingConfig)
    first_pass: tuple[str, ...] = ("points", "boxes", "masks")
    refine_passes: int = 1

    def __post_init__(self) -> None:
        if not self.first_pass or set(self.first_pass) - {"points", "boxes", "masks"}:
            raise InputError(
                f"first_pass must name some of points, boxes and masks, not {self.first_pass}"
            )


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
        text_prompter: Turns phrases into prompts.
        config: Thresholds.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        text_prompter: TextPrompter,
        config: PipelineConfig | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.text_prompter = text_prompter
        self.config = config or PipelineConfig()

    def __call__(
        self,
        image: ImageSource,
        *,
        text: str | Sequence[str] | None = None,
        negative_text: str | Sequence[str] | None = None,
        points: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
    ) -> Result:
        """Segment one image.

        Text alone finds what the phrases name; points and boxes alone segment what they mark;
        with both, of what the phrases name only that is kept which the points and boxes mark.

        Args:
            image: A path, a Pillow image or a uint8 array (H, W, 3) RGB.
            text: One or several phrases; each is looked for on its own.
            negative_text: Masks that lie on what these phrases name are dropped.
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
        pixels = load_image(image)
        size = (pixels.shape[0], pixels.shape[1])
        marks = geometry_prompts(points, point_labels, boxes, size)
        if not (phrases or len(marks)):
            raise InputError("say what to look for: give text, points or boxes")
        ranking = self._ranking(top_k, min_score)
        embedding = self.segmenter.encode_image(pixels)
        if not phrases:
            against, _ = self._decode_phrases(embedding, negatives)
            return self._rank(self._decode_marks(embedding, marks), ranking, against, ())
        # Marks choose among all that was found, so that top_k comes last.
        result = self._find(embedding, phrases, negatives, replace(ranking, top_k=None))
        return keep_marked(result, points, point_labels, boxes, top_k=ranking.top_k)

    def find(
        self,
        embedding: ImageEmbedding,
        text: str | Sequence[str],
        *,
        negative_text: str | Sequence[str] | None = None,
    ) -> Result:
        """Find what phrases name in an image that is already encoded; see :meth:`__call__`."""
        phrases = _read_phrases("text", text)
        negatives = _read_phrases("negative_text", negative_text)
        return self._find(embedding, phrases, negatives, self.config.ranking)

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
    ) -> Result:
        found, rejected = self._decode_phrases(embedding, phrases)
        against, _ = self._decode_phrases(embedding, negatives)
        return self._rank(found, ranking, against, rejected)

    def _decode_phrases(
        self, embedding: ImageEmbedding, phrases: Sequence[str]
    ) -> tuple[_Masks, tuple[RejectedMask, ...]]:
        """Masks of what the phrases name, one a prompt, and the phrases that are not there."""
        if not phrases:
            return _no_masks(embedding), ()
        prompts, rejected = self.text_prompter(embedding, phrases)
        if not len(prompts):
            return _no_masks(embedding), rejected
        candidates = self._decode(
            embedding, _keep_parts(prompts, self.config.first_pass), multimask_output=True
        )
        candidates = candidates.select(select_by_iou_prediction(candidates.iou_predictions))
        for _ in range(self.config.refine_passes):
            masks = candidates.masks[:, 0]
            empty = ~masks.any((1, 2))
            boxes = masks_to_boxes(masks)
            if prompts.boxes is not None:
                boxes[empty] = prompts.boxes[empty]
            again = replace(prompts, boxes=boxes, mask_input=candidates.low_res_logits)
            candidates = self._decode(embedding, again, multimask_output=False)
        return (
            _Masks(
                candidates.masks[:, 0],
                prompts.labels,
                candidates.iou_predictions[:, 0],
                candidates.stability_scores[:, 0],
                prompts.prompt_scores,
            ),
            rejected,
        )

    def _decode(
        self, embedding: ImageEmbedding, prompts: PromptSet, *, multimask_output: bool
    ) -> MaskCandidates:
        return self.segmenter.decode(
            embedding,
            point_coords=prompts.point_coords,
            point_labels=prompts.point_labels,
            boxes=prompts.boxes,
            mask_input=prompts.mask_input,
            multimask_output=multimask_output,
        )

    def _decode_marks(self, embedding: ImageEmbedding, prompts: PromptSet) -> _Masks:
        """Masks of points and boxes; a lone click is ambiguous and gives all three of its."""
        coords = prompts.point_coords
        lone = prompts.boxes is None and coords is not None and coords.shape[1] == 1
        candidates = self._decode(embedding, prompts, multimask_output=True)
        if not lone:
            candidates = candidates.select(select_by_iou_prediction(candidates.iou_predictions))
        count = candidates.masks.shape[1]
        return _Masks(
            candidates.masks.reshape(-1, *embedding.original_size),
            tuple(label for label in prompts.labels for _ in range(count)),
            candidates.iou_predictions.reshape(-1),
            candidates.stability_scores.reshape(-1),
            prompts.prompt_scores.repeat(count),
        )

    @staticmethod
    def _rank(
        found: _Masks,
        ranking: RankingConfig,
        against: _Masks,
        rejected: tuple[RejectedMask, ...],
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
            already_rejected=rejected,
        )


def _keep_parts(prompts: PromptSet, parts: Sequence[str]) -> PromptSet:
    points = "points" in parts
    return replace(
        prompts,
        point_coords=prompts.point_coords if points else None,
        point_labels=prompts.point_labels if points else None,
        boxes=prompts.boxes if "boxes" in parts else None,
        mask_input=prompts.mask_input if "masks" in parts else None,
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
    return tuple(dict.fromkeys(phrase.strip() for phrase in phrases))
