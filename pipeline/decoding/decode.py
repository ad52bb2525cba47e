"""Decodes prompts to proposals at the image's size, in blocks of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...models.embedding import ImageEmbedding
from ..checks import Float32Array
from ..masks import MAX_MASK_PIXELS
from ..proposals import Proposals
from .candidates import LowResMasks
from .cascade import DecodingConfig, decode_cascade
from .prompts import PromptSet
from .segmenter import Segmenter


def decode_proposals(
    segmenter: Segmenter, embedding: ImageEmbedding, prompts: PromptSet, config: DecodingConfig
) -> Proposals:
    """Decode one mask for each prompt, a block of prompts at a time.

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
        found.append(to_proposals(segmenter, embedding, masks, block.labels, block.prompt_scores))
    return Proposals.join(embedding.original_size, found)


def to_proposals(
    segmenter: Segmenter,
    embedding: ImageEmbedding,
    masks: LowResMasks,
    labels: Sequence[str],
    prompt_scores: Float32Array,
) -> Proposals:
    """Upscale masks to the image's size; the masks of a prompt stay adjacent.

    Args:
        segmenter: The segmenter that decoded the masks.
        embedding: The encoded image.
        masks: C masks for each of B prompts.
        labels: B phrases.
        prompt_scores: (B,).
    """
    count = masks.iou_predictions.shape[1]
    step = max(1, MAX_MASK_PIXELS // (count * math.prod(embedding.original_size)))
    found = []
    for start in range(0, len(labels), step):
        block = slice(start, start + step)
        some = LowResMasks(masks.logits[block], masks.iou_predictions[block])
        candidates = segmenter.upscale(embedding, some)
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
