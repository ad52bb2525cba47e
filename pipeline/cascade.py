"""Masks refined by decoding them again: from their own tight boxes and logits.

Source: the cascaded post-refinement of Zhang et al. 2023, "Personalize Segment Anything Model
with One Shot" (PerSAM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..models.errors import InputError
from .ranking import select_by_iou_prediction
from .segmenter import Segmenter
from .types import ImageEmbedding, LowResMasks, PromptSet

PARTS = ("points", "boxes", "masks")


def check_parts(parts: Sequence[str]) -> None:
    """Raise InputError if the parts of a first pass are none or unknown."""
    if not parts or set(parts) - set(PARTS):
        raise InputError(f"first_pass must name some of points, boxes and masks, not {parts}")


def decode_cascade(
    segmenter: Segmenter,
    embedding: ImageEmbedding,
    prompts: PromptSet,
    *,
    first_pass: Sequence[str] = PARTS,
    multimask_output: bool = True,
    refine_passes: int = 1,
) -> LowResMasks:
    """Decode one mask for each prompt.

    Of the first pass's three masks the one that the IoU token prefers is taken; each further pass
    gives the single mask of the points together with that mask's tight box and logits.

    Args:
        segmenter: Decodes.
        embedding: Of the image.
        prompts: One or more.
        first_pass: Parts of the prompts that the first pass gets, of ``PARTS``.
        multimask_output: Whether the first pass chooses of three masks or gives the single one,
            which the published models were made for where the prompt leaves no doubt.
        refine_passes: Number of further passes.

    Returns:
        Masks with C of 1.
    """
    first = keep_parts(prompts, first_pass)
    masks = decode_prompts(segmenter, embedding, first, multimask_output=multimask_output)
    masks = masks.select(select_by_iou_prediction(masks.iou_predictions))
    for _ in range(refine_passes):
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
    """Return the prompts without the parts that are not named."""
    points = "points" in parts
    return replace(
        prompts,
        point_coords=prompts.point_coords if points else None,
        point_labels=prompts.point_labels if points else None,
        boxes=prompts.boxes if "boxes" in parts else None,
        mask_input=prompts.mask_input if "masks" in parts else None,
    )
