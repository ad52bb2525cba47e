"""Prompts to masks: decoded, refined from the mask's own tight box and logits, and upscaled.

The source of the refinement is the cascade of Zhang et al. 2023, "Personalize Segment Anything
Model with One Shot" (PerSAM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...models.embedding import ImageEmbedding
from ...models.errors import InputError
from ..checks import Float32Array
from ..proposals import Proposals
from .parts import split_apart
from .prompts import LowResMasks, PromptSet
from .segmenter import Segmenter

PARTS = ("points", "boxes", "masks")


@dataclass(frozen=True)
class DecodingConfig:
    """How a prompt becomes a mask.

    Attributes:
        first_pass: Parts of the prompts that the first decoding uses, out of "points", "boxes" and
            "masks".
        multimask_output: Whether the first decoding chooses among three masks (whole, part,
            subpart) or takes the single one, which the published models give for unambiguous
            prompts.
        refine_passes: How often the mask is decoded again, from the points together with its own
            tight box and logits.
        part_share: Least area, as a share of the largest, of a component that lies apart and
            becomes a mask of its own; None keeps masks whole.

    Raises:
        InputError: ``first_pass`` names no part or an unknown one, ``refine_passes`` is negative,
            or ``part_share`` is not above 0 and at most 1.
    """

    first_pass: tuple[str, ...] = PARTS
    multimask_output: bool = True
    refine_passes: int = 1
    part_share: float | None = None

    def __post_init__(self) -> None:
        if not self.first_pass or set(self.first_pass) - set(PARTS):
            raise InputError(
                f"first_pass must name some of points, boxes and masks, not {self.first_pass}"
            )
        if self.refine_passes < 0:
            raise InputError(f"refine_passes must be 0 or more, not {self.refine_passes}")
        if self.part_share is not None and not 0.0 < self.part_share <= 1.0:
            raise InputError(f"part_share must be above 0 and at most 1, not {self.part_share!r}")


def decode_proposals(
    segmenter: Segmenter, embedding: ImageEmbedding, prompts: PromptSet, config: DecodingConfig
) -> Proposals:
    """Decode one mask for each prompt, a block of prompts at a time; parts of it may lie apart.

    Args:
        segmenter: Runs the mask decoder.
        embedding: The encoded image.
        prompts: Any number of prompts.
        config: How a prompt becomes a mask.
    """
    step = segmenter.batch_size
    found = []
    for start in range(0, len(prompts), step):
        block = prompts.part(slice(start, start + step))
        masks = decode_cascade(segmenter, embedding, block, config)
        labels, scores = block.labels, block.prompt_scores
        if config.part_share is not None:
            threshold = segmenter.model.mask_threshold
            masks, origins = split_apart(masks, threshold, config.part_share)
            labels, scores = tuple(labels[i] for i in origins), scores[origins]
        found.append(to_proposals(segmenter, embedding, masks, labels, scores))
    return Proposals.join(embedding.original_size, found)


def to_proposals(
    segmenter: Segmenter,
    embedding: ImageEmbedding,
    masks: LowResMasks,
    labels: Sequence[str],
    prompt_scores: Float32Array,
) -> Proposals:
    """Upscale masks to the image's size, as run lengths; the masks of a prompt stay adjacent.

    Args:
        segmenter: The segmenter that decoded the masks.
        embedding: The encoded image.
        masks: C masks for each of B prompts.
        labels: B phrases.
        prompt_scores: (B,).
    """
    count = masks.iou_predictions.shape[1]
    logits = masks.logits.reshape(-1, *masks.logits.shape[-2:])
    found = list(segmenter.upscale_compact(embedding, logits))
    return Proposals(
        image_size=embedding.original_size,
        masks=tuple(item.mask for item in found),
        labels=tuple(label for label in labels for _ in range(count)),
        iou_predictions=masks.iou_predictions.reshape(-1),
        stability_scores=np.array([item.stability_score for item in found], np.float32),
        prompt_scores=np.asarray(prompt_scores, np.float32).repeat(count),
    )


def decode_cascade(
    segmenter: Segmenter,
    embedding: ImageEmbedding,
    prompts: PromptSet,
    config: DecodingConfig,
) -> LowResMasks:
    """Decode one mask for each prompt.

    The first decoding keeps the mask with the highest predicted IoU; each further one decodes a
    single mask from the points together with that mask's tight box and logits.

    Args:
        segmenter: Runs the mask decoder.
        embedding: The encoded image.
        prompts: One or more prompts.
        config: Parts, masks and passes of the decoding.

    Returns:
        One mask for each prompt: C is 1.
    """
    first = keep_parts(prompts, config.first_pass)
    masks = decode_prompts(segmenter, embedding, first, multimask_output=config.multimask_output)
    masks = masks.select(select_by_iou_prediction(masks.iou_predictions))
    for _ in range(config.refine_passes):
        boxes = segmenter.low_res_boxes(embedding, masks)
        if prompts.boxes is not None:
            empty = ~boxes.any(1)
            boxes[empty] = prompts.boxes[empty]
        again = replace(prompts, boxes=boxes, mask_input=masks.logits)
        masks = decode_prompts(segmenter, embedding, again, multimask_output=False)
    return masks


def decode_prompts(
    segmenter: Segmenter,
    embedding: ImageEmbedding,
    prompts: PromptSet,
    *,
    multimask_output: bool,
) -> LowResMasks:
    """Decode prompts once."""
    return segmenter.decode_low_res(
        embedding,
        point_coords=prompts.point_coords,
        point_labels=prompts.point_labels,
        boxes=prompts.boxes,
        mask_input=prompts.mask_input,
        multimask_output=multimask_output,
    )


def keep_parts(prompts: PromptSet, parts: Sequence[str]) -> PromptSet:
    """Return the prompts with only the named parts."""
    points = "points" in parts
    return replace(
        prompts,
        point_coords=prompts.point_coords if points else None,
        point_labels=prompts.point_labels if points else None,
        boxes=prompts.boxes if "boxes" in parts else None,
        mask_input=prompts.mask_input if "masks" in parts else None,
    )


def select_by_iou_prediction(iou_predictions: Float32Array) -> NDArray[np.intp]:
    """Return (B,) the index of each prompt's candidate with the highest predicted IoU.

    Args:
        iou_predictions: (B, C).
    """
    best: NDArray[np.intp] = np.argmax(iou_predictions, axis=1)
    return best
