"""Prompting by references: examples are encoded once, then matched with any image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from ....models.embedding import ImageEmbedding
from ....models.errors import InputError
from ....models.features.dense import DenseFeatures, FeatureExtractor
from ...checks import BoolArray, UInt8Array
from ...compact_mask import CompactMask
from ...decoding.decode import decode_prompts, select_by_iou_prediction
from ...decoding.segmenter import Segmenter
from ...masks import Box, cut, tight_box
from ...result import RejectedMask
from ..evidence import evidence_of
from ..mark_prompts import mark_prompts
from ..seen_once import SeenOnce
from .debias import DebiasedStrategy, find_positional_basis
from .examples import EncodedReference, Reference, Shot, check_mask
from .matching import Matches, MatchingStrategy, collect_tokens, object_cells, unit_tokens
from .target import Target


@dataclass(frozen=True)
class ReferenceConfig:
    """How examples are encoded, and when they need not be matched.

    Attributes:
        min_cells: For an object of fewer cells, only the part of the image around it is encoded.
        context: Side of that part, as a multiple of the longer side of the object's box.
        max_zoom: Maximum enlargement of that part, compared with the whole image.
        same_picture: An image is taken to be the example's own if each of its cells has at least
            this cosine with the example's cell at the same place.
        overlap: In the example's own image, masks that share more than this of the smaller area
            with the example's mask are dropped.

    Raises:
        InputError: A value is out of its range.
    """

    min_cells: int = 16
    context: float = 3.0
    max_zoom: float = 8.0
    same_picture: float = 0.99
    overlap: float = 0.5

    def __post_init__(self) -> None:
        for name in ("context", "max_zoom"):
            if not getattr(self, name) >= 1.0:
                raise InputError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("same_picture", "overlap"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must be between 0 and 1, not {getattr(self, name)}")


class ReferencePrompter:
    """Encodes references and finds what they show.

    Args:
        extractor: Computes the features that are compared.
        segmenter: Turns a reference's box or points into a mask, and decodes prompts.
        strategy: Matches features.
        config: How examples are encoded.
        debias: Whether positional information is removed from features before they are matched;
            see :mod:`~promptseg.pipeline.prompters.reference.debias`.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        segmenter: Segmenter,
        strategy: MatchingStrategy,
        *,
        config: ReferenceConfig | None = None,
        debias: bool = False,
    ) -> None:
        self.extractor = extractor
        self.segmenter = segmenter
        self.strategy = strategy
        self.config = config or ReferenceConfig()
        self.debias = debias
        self._debiased: MatchingStrategy | None = None
        self._see: SeenOnce[DenseFeatures] = SeenOnce(extractor.extract_encoded)

    def encode(
        self, references: Sequence[Reference | EncodedReference]
    ) -> tuple[EncodedReference, ...]:
        """Encode what is not encoded yet, and merge references with the same label.

        Raises:
            InputError: SAM finds no object at a box or a point, or a reference was encoded by
                another model.
        """
        grouped: dict[str, list[EncodedReference]] = {}
        for item in references:
            one = item
            if isinstance(one, Reference):
                one = EncodedReference(one.label, (self._shoot(one),))
            grouped.setdefault(one.label, []).append(one)
        encoded = tuple(
            EncodedReference(
                label,
                tuple(shot for item in items for shot in item.shots),
                tuple(shot for item in items for shot in item.negatives),
            )
            for label, items in grouped.items()
        )
        for reference in encoded:
            if reference.model_id != self.extractor.model_id:
                raise InputError(
                    f"the reference {reference.label!r} was encoded by {reference.model_id!r}, "
                    f"this pipeline compares features of {self.extractor.model_id!r}; encode it "
                    "with this pipeline"
                )
        return encoded

    def find(
        self,
        embedding: ImageEmbedding,
        references: Sequence[EncodedReference],
        negatives: Sequence[EncodedReference] = (),
        min_presence: float | None = None,
    ) -> list[Matches]:
        """Find each reference in an encoded image, whose features are computed once.

        Args:
            embedding: The encoded image.
            references: What to look for.
            negatives: Examples of what not to find, for all references.
            min_presence: Minimum presence of a reference; None for the strategy's own.
        """
        target = Target(self.segmenter, embedding, self.features_of(embedding))
        against = tuple(shot for item in negatives for shot in item.shots)
        found = []
        for reference in references:
            asked = replace(reference, negatives=reference.negatives + against)
            asked = asked.to(target.features.tokens.device)
            matches = self._match()(asked, target, min_presence)
            matches = drop_lookalikes(matches, asked, target)
            found.append(add_known(matches, asked, target, self.config))
        return found

    def evidence(self, matches: Matches, min_presence: float | None = None) -> float:
        """Return how far the presence lies above or below the least that passes, in log-odds."""
        least = self.strategy.min_presence if min_presence is None else min_presence
        return evidence_of(matches.presence, least)

    def features_of(self, embedding: ImageEmbedding) -> DenseFeatures:
        """Return features of an encoded image, cached for as long as the embedding lives."""
        return self._see(embedding)

    def _match(self) -> MatchingStrategy:
        """Return the strategy; debiasing is set up on first use, as the extractor may be lazy."""
        if not self.debias:
            return self.strategy
        if self._debiased is None:
            basis = find_positional_basis(self.extractor)
            self._debiased = DebiasedStrategy(self.strategy, basis)
        return self._debiased

    def _shoot(self, reference: Reference) -> Shot:
        """Encode an example; for a tiny object, only the part of the image around it."""
        if reference.mask is not None:
            mask, features = reference.mask, self.extractor.extract(reference.image)
        else:
            embedding = self.segmenter.encode_image(reference.image)
            mask, features = self._segment(embedding, reference), self.features_of(embedding)
        shot = Shot(features, features.cell_coverage(mask), CompactMask.of(mask))
        if int(object_cells(shot).sum()) >= self.config.min_cells:
            return shot
        box = context_box(mask, self.config.context, self.config.max_zoom)
        part = cut(mask, box)
        if part.shape == mask.shape or part.all():
            return shot
        near = self.extractor.extract(_crop(reference.image, box))
        return Shot(near, near.cell_coverage(part), shot.mask, whole=features)

    def _segment(self, embedding: ImageEmbedding, reference: Reference) -> BoolArray:
        """Return the mask of a reference's box or points; for one point, the best of three."""
        prompts = mark_prompts(reference.marks)
        lone = prompts.boxes is None and len(reference.marks.points) == 1
        masks = decode_prompts(self.segmenter, embedding, prompts, multimask_output=lone)
        masks = masks.select(select_by_iou_prediction(masks.iou_predictions))
        mask: BoolArray = self.segmenter.upscale(embedding, masks).masks[0, 0]
        try:
            check_mask(mask)
        except InputError as error:
            given = "box" if prompts.boxes is not None else "point"
            raise InputError(
                f"the reference's {given} gives no usable mask: {error}; or give a mask"
            ) from error
        return mask


def drop_lookalikes(matches: Matches, reference: EncodedReference, target: Target) -> Matches:
    """Drop masks that are more like a negative example than like any of the examples.

    The mean of the cells that a mask covers, weighted by their shares, is compared by cosine with
    the mean of an example's object cells.
    """
    if not (reference.negatives and len(matches.prompt_scores)):
        return matches
    against = EncodedReference(reference.label, reference.negatives)
    shares = torch.from_numpy(target.cell_shares(matches.masks))
    cells = unit_tokens(target.features)
    means = F.normalize(shares.to(cells) @ cells, dim=1)
    wanted, unwanted = (
        (means @ collect_tokens(item).prototypes.T).amax(1).cpu().numpy()
        for item in (replace(reference, negatives=()), against)
    )
    reasons = {
        int(i): f"more like a negative example ({unwanted[i]:.2f}) than like an example "
        f"({wanted[i]:.2f})"
        for i in np.flatnonzero(unwanted > wanted)
    }
    return drop(matches, reference.label, reasons)


def add_known(
    matches: Matches, reference: EncodedReference, target: Target, config: ReferenceConfig
) -> Matches:
    """In an example's own image, replace what was found there by the example's mask."""
    known = tuple(
        shot.mask
        for shot in reference.shots
        if shot.mask is not None
        and same_picture(shot.picture, target.features, config.same_picture)
    )
    if not known:
        return matches
    found = target.pixels(matches.masks)
    most = np.zeros(len(found))
    for mask in known:
        marked = _resample(mask.full(), (found.shape[1], found.shape[2]))
        smaller = np.minimum(found.sum((1, 2)), marked.sum())
        most = np.maximum(most, (found & marked).sum((1, 2)) / np.maximum(smaller, 1))
    reasons = {
        int(i): f"overlaps the example's own mask ({most[i]:.0%} of the smaller area)"
        for i in np.flatnonzero(most > config.overlap)
    }
    return replace(drop(matches, reference.label, reasons), known=known)


def drop(matches: Matches, label: str, reasons: Mapping[int, str]) -> Matches:
    """Reject some masks, by index, with the reasons."""
    rejected = tuple(
        RejectedMask(
            label,
            reason,
            float(matches.prompt_scores[i]),
            iou_prediction=float(matches.masks.iou_predictions[i, 0]),
        )
        for i, reason in reasons.items()
    )
    kept = np.array([i for i in range(len(matches.prompt_scores)) if i not in reasons], np.intp)
    return replace(
        matches,
        masks=matches.masks.take(kept),
        prompt_scores=matches.prompt_scores[kept],
        rejected=matches.rejected + rejected,
    )


def context_box(mask: BoolArray, context: float, max_zoom: float) -> Box:
    """Return the part of an image around a small object, square if the image leaves room.

    Args:
        mask: (H, W), not empty.
        context: Side of the part, as a multiple of the longer side of the object's box.
        max_zoom: The part's side is at least the image's longer side divided by this.

    Returns:
        XYXY within the image, as pixel edges.
    """
    x0, y0, x1, y1 = tight_box(mask)
    height, width = mask.shape
    side = max(context * max(x1 - x0, y1 - y0), max(height, width) / max_zoom)
    left, right = _span(x0, x1, round(side), width)
    top, bottom = _span(y0, y1, round(side), height)
    return left, top, right, bottom


def same_picture(one: DenseFeatures, other: DenseFeatures, least: float) -> bool:
    """Return whether the features are of the same image.

    Args:
        one: Features of an image.
        other: Features of an image, by the same model.
        least: Minimum cosine of each cell with the other's cell at the same place.
    """
    if one.image_size != other.image_size or one.tokens.shape != other.tokens.shape:
        return False
    return float(F.cosine_similarity(one.tokens, other.tokens, dim=-1).min()) >= least


def _span(start: int, end: int, side: int, length: int) -> tuple[int, int]:
    """Return ``side`` pixels around [start, end), shifted and cut to lie within the length."""
    side = min(side, length)
    first = min(max((start + end - side) // 2, 0), length - side)
    return first, first + side


def _crop(image: UInt8Array, box: Box) -> UInt8Array:
    part: UInt8Array = np.ascontiguousarray(image[box[1] : box[3], box[0] : box[2]])
    return part


def _resample(mask: BoolArray, size: tuple[int, int]) -> BoolArray:
    """Return a mask at another size (h, w), of the pixels of which half is covered."""
    share = torch.from_numpy(mask).float()[None, None]
    resampled: BoolArray = (F.adaptive_avg_pool2d(share, size)[0, 0] >= 0.5).numpy()
    return resampled
