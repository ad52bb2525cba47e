"""From a checked query to proposals: prompts are made, decoded and brought to the image's size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .agreement import decode_agreeing
from .cascade import decode_cascade, decode_prompts
from .config import PipelineConfig
from .fusion import fuse, pair
from .masks import MAX_MASK_PIXELS
from .prompters.matching.base import Matches
from .prompters.reference import ReferencePrompter
from .prompters.text import TextPrompter
from .proposals import Proposals
from .reference import EncodedReference
from .segmenter import Segmenter
from .types import Float32Array, ImageEmbedding, LowResMasks, PromptSet

# Phrases that are answered together; bounds memory, not results.
_PHRASES_AT_ONCE = 16


class Proposer:
    """Decodes all that queries find in encoded images.

    Args:
        segmenter: Decodes prompts.
        config: How.
    """

    def __init__(self, segmenter: Segmenter, config: PipelineConfig) -> None:
        self.segmenter = segmenter
        self.config = config

    def by_text(
        self, prompter: TextPrompter[Any], embedding: ImageEmbedding, phrases: Sequence[str]
    ) -> Proposals:
        """Masks of what the phrases name, one a prompt, and the phrases that are not there."""
        found = []
        for start in range(0, len(phrases), _PHRASES_AT_ONCE):
            block = phrases[start : start + _PHRASES_AT_ONCE]
            sets, rejected = prompter(embedding, block)
            found += [self._decode(embedding, prompts) for prompts in sets]
            found.append(replace(Proposals.none(embedding.original_size), rejected=rejected))
        return Proposals.join(embedding.original_size, found)

    def by_both(
        self,
        text_prompter: TextPrompter[Any],
        reference_prompter: ReferencePrompter,
        embedding: ImageEmbedding,
        phrases: Sequence[str],
        references: Sequence[EncodedReference],
        negatives: Sequence[EncodedReference],
    ) -> Proposals:
        """Masks of what phrases name and examples show, of those that belong together as one."""
        examples, alone = pair(phrases, references)
        found = [self.by_reference(reference_prompter, embedding, alone, negatives)]
        for phrase in phrases:
            judged = text_prompter.ask(embedding, [phrase])
            sets, rejected = text_prompter.prompts(embedding, judged)
            named = Proposals.join(
                embedding.original_size, [self._decode(embedding, prompts) for prompts in sets]
            )
            named = replace(named, rejected=rejected)
            if phrase in examples:
                (match,) = reference_prompter.find(embedding, [examples[phrase]], negatives)
                shown = self._decoded(embedding, phrase, match)
                evidence = judged[0].verdict.evidence, reference_prompter.evidence(match)
                named = fuse(phrase, named, shown, evidence, self.config.fusion)
            found.append(named)
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

    def by_reference(
        self,
        prompter: ReferencePrompter,
        embedding: ImageEmbedding,
        references: Sequence[EncodedReference],
        negatives: Sequence[EncodedReference],
    ) -> Proposals:
        """Masks of what references show, and why there are none of some."""
        matches = prompter.find(embedding, references, negatives)
        return Proposals.join(
            embedding.original_size,
            [
                self._decoded(embedding, reference.label, match)
                for reference, match in zip(references, matches, strict=True)
            ],
        )

    def _decoded(self, embedding: ImageEmbedding, label: str, match: Matches) -> Proposals:
        """What one reference found, at the image's size."""
        labels = (label,) * len(match.prompt_scores)
        masks = self._finish(embedding, match.masks, labels, match.prompt_scores)
        return Proposals.join(
            embedding.original_size,
            [
                replace(masks, rejected=match.rejected),
                Proposals.certain(embedding.original_size, match.known, label),
            ],
        )

    def by_marks(self, embedding: ImageEmbedding, prompts: PromptSet) -> Proposals:
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
