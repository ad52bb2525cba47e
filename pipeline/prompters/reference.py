"""References: examples are encoded once, then matched with any image."""

from __future__ import annotations

from collections.abc import Sequence

from ...models.errors import InputError
from ...models.features.dense import DenseFeatures, FeatureExtractor
from ...models.features.pocket import PocketFeatures
from ..cascade import decode_prompts
from ..ranking import select_by_iou_prediction
from ..reference import EncodedReference, Reference, Shot, check_mask
from ..segmenter import Segmenter
from ..types import BoolArray, ImageEmbedding
from .marks import mark_prompts
from .matching.base import Matches, MatchingStrategy


class ReferencePrompter:
    """Encodes references and finds what they show.

    Args:
        extractor: Gives the features that are compared.
        segmenter: Turns a reference's box or click into a mask, and decodes prompts.
        strategy: How features are matched.
    """

    def __init__(
        self, extractor: FeatureExtractor, segmenter: Segmenter, strategy: MatchingStrategy
    ) -> None:
        self.extractor = extractor
        self.segmenter = segmenter
        self.strategy = strategy

    def encode(
        self, references: Sequence[Reference | EncodedReference]
    ) -> tuple[EncodedReference, ...]:
        """Encode what is not encoded yet; references of one label become one with all examples.

        Raises:
            InputError: SAM finds no object at a box or a point, or a reference was encoded by
                another model.
        """
        shots: dict[str, tuple[Shot, ...]] = {}
        for item in references:
            found = (self._shoot(item),) if isinstance(item, Reference) else item.shots
            shots[item.label] = shots.get(item.label, ()) + found
        encoded = tuple(EncodedReference(label, found) for label, found in shots.items())
        for reference in encoded:
            if reference.model_id != self.extractor.model_id:
                raise InputError(
                    f"the reference {reference.label!r} was encoded by {reference.model_id!r}, "
                    f"this pipeline compares features of {self.extractor.model_id!r}; encode it "
                    "with this pipeline"
                )
        return encoded

    def find(
        self, embedding: ImageEmbedding, references: Sequence[EncodedReference]
    ) -> list[Matches]:
        """Find each reference in an encoded image, whose features are computed once."""
        target = self.features_of(embedding)
        return [
            self.strategy(reference, target, self.segmenter, embedding) for reference in references
        ]

    def features_of(self, embedding: ImageEmbedding) -> DenseFeatures:
        """Features of an encoded image; those that its encoder left are not computed again."""
        maps = embedding.features.backbone_features
        if isinstance(self.extractor, PocketFeatures) and maps:
            return self.extractor.from_maps(
                maps, image_size=embedding.original_size, input_size=embedding.input_size
            )
        return self.extractor.extract(embedding.pixels())

    def _shoot(self, reference: Reference) -> Shot:
        if reference.mask is not None:
            mask, features = reference.mask, self.extractor.extract(reference.image)
        else:
            embedding = self.segmenter.encode_image(reference.image)
            mask, features = self._segment(embedding, reference), self.features_of(embedding)
        return Shot(features, features.cell_coverage(mask))

    def _segment(self, embedding: ImageEmbedding, reference: Reference) -> BoolArray:
        """The mask of a reference's box or points: for a lone point the one SAM prefers."""
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
