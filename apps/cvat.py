"""Annotates in CVAT: what phrases name in a task's images, or what is clicked there.

A module for ``cvat-cli`` (see docs/cvat.md):

    cvat-cli task auto-annotate ID --function-module promptseg.apps.cvat -p labels=str:cat,dog

Source: the interfaces of ``cvat_sdk.auto_annotation``, version 2.80.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk import models
from cvat_sdk.masks import encode_mask
from PIL import Image

from ..models.errors import InputError
from ..pipeline.presets.load import load
from ..pipeline.query import split_phrases
from .exports.outlines import edge_polygons
from .exports.simplify import simplify as simplified

if TYPE_CHECKING:
    from ..models.embedding import ImageEmbedding
    from ..pipeline.compact_mask import CompactMask
    from ..pipeline.pipeline import Pipeline
    from ..pipeline.result import Result

Point: TypeAlias = "tuple[float, float]"


def create(
    labels: str = "",
    clicks: bool = False,
    preset: str = "pocket",
    device: str = "cpu",
    weights: str = "",
    min_presence: float | None = None,
    min_score: float | None = None,
    top_k: int | None = None,
    simplify: float = 0.0,
) -> Detector | Clicker:
    """Return what ``cvat-cli`` calls for each image; its arguments are those of ``-p``.

    Args:
        labels: Phrases to look for, separated by commas: the names of the task's labels.
        clicks: Whether to answer clicks and boxes instead; there are no labels then.
        preset: The models.
        device: Where they run.
        weights: Folder to look for weights in first.
        min_presence: Least presence of a phrase; None for the preset's own.
        min_score: Least score of a mask where CVAT gives no threshold.
        top_k: Most masks for each phrase.
        simplify: Pixels that polygons may deviate, for those who ask CVAT for polygons.

    Raises:
        InputError: There are neither labels nor clicks, or both, or a value is out of range.
    """
    phrases = split_phrases(labels)
    if bool(phrases) == bool(clicks):
        raise InputError(
            "say what to look for, -p labels=str:cat,dog, or answer clicks, -p clicks=bool:true"
        )
    pipeline = load(preset, device=device, weights=weights or None)
    if clicks:
        return Clicker(pipeline)
    return Detector(
        pipeline,
        phrases,
        min_presence=min_presence,
        min_score=min_score,
        top_k=top_k,
        simplify=simplify,
    )


class Detector:
    """Finds what phrases name, as masks or polygons.

    Args:
        pipeline: Finds masks.
        labels: The phrases, which are the names of the labels.
        min_presence: Least presence of a phrase.
        min_score: Least score of a mask where CVAT gives no threshold.
        top_k: Most masks for each phrase.
        simplify: Pixels that polygons may deviate from the masks.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        labels: Sequence[str],
        *,
        min_presence: float | None = None,
        min_score: float | None = None,
        top_k: int | None = None,
        simplify: float = 0.0,
    ) -> None:
        self.pipeline = pipeline
        self.labels = tuple(labels)
        self.min_presence = min_presence
        self.min_score = min_score
        self.top_k = top_k
        self.simplify = simplify

    @property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """The labels that are found."""
        return cvataa.DetectionFunctionSpec(
            labels=[
                cvataa.label_spec(name, number, type="mask")
                for number, name in enumerate(self.labels)
            ]
        )

    def detect(
        self, context: cvataa.DetectionFunctionContext, image: Image.Image
    ) -> list[models.LabeledShapeRequest]:
        """Return a shape for each mask; none if nothing is there.

        A mask of several parts becomes a group of polygons where CVAT asks for polygons.

        Raises:
            InputError: The image cannot be read; the message names it.
        """
        least = self.min_score if context.conf_threshold is None else context.conf_threshold
        try:
            result = self.pipeline(
                image,
                self.labels,
                min_presence=self.min_presence,
                min_score=least,
                top_k=self.top_k,
            )
        except InputError as error:
            raise InputError(f"{context.frame_name}: {error}") from error
        shapes = []
        for i, mask in enumerate(result.compact_masks):
            label = self.labels.index(result.labels[i])
            if context.conv_mask_to_poly:
                shapes += self._polygons(label, mask, group=i + 1)
            elif mask.area:
                shapes.append(cvataa.mask(label, _encode(mask)))
        return shapes

    def _polygons(
        self, label: int, mask: CompactMask, group: int
    ) -> list[models.LabeledShapeRequest]:
        polygons = [simplified(polygon, self.simplify) for polygon in edge_polygons(mask)]
        group = group if len(polygons) > 1 else 0
        return [
            cvataa.polygon(label, polygon.ravel().tolist(), group=group) for polygon in polygons
        ]


class Clicker:
    """Segments what is clicked or boxed, with background clicks; for CVAT's AI tools.

    Args:
        pipeline: Encodes images and decodes clicks.
    """

    # A box alone is enough, and so is a click.
    spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def preprocess_image(
        self, context: cvataa.InteractionFunctionContext, image: Image.Image
    ) -> ImageEmbedding:
        """Encode an image once, for all clicks on it."""
        return self.pipeline.encode_image(image)

    def detect(
        self,
        context: cvataa.InteractionFunctionContext,
        pp_image: ImageEmbedding,
        prompts: cvataa.InteractionPrompts,
    ) -> list[cvataa.InteractionResultShape]:
        """Return the best mask of the clicks so far; none if nothing marks an object."""
        box = prompts.bounding_box
        if not prompts.pos_points and box is None:
            return []
        height, width = pp_image.original_size
        points = [*prompts.pos_points, *prompts.neg_points]
        labels = [1] * len(prompts.pos_points) + [0] * len(prompts.neg_points)
        corners = None if box is None else _sorted_box(*box)
        limit = np.array([width, height], np.float32)
        result = self.pipeline(
            pp_image,
            points=np.clip(np.array(points, np.float32), 0, limit) if points else None,
            point_labels=labels if points else None,
            boxes=None if corners is None else np.clip(corners, 0, np.tile(limit, 2)),
            top_k=1,
        )
        return [_interaction_shape(result, i) for i in range(len(result))]


def _sorted_box(corner: Point, opposite: Point) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    (x0, y0), (x1, y1) = corner, opposite
    return np.array([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)], np.float32)


def _interaction_shape(result: Result, i: int) -> cvataa.InteractionResultShape:
    confidence = models.AttributeValRequest(
        spec_id=int(cvataa.InteractionResultAttributes.CONFIDENCE),
        value=f"{min(1.0, max(0.0, float(result.scores[i]))):.4f}",
    )
    return cvataa.InteractionResultShape(
        type="mask", points=_encode(result.compact_masks[i]), attributes=[confidence]
    )


def _encode(mask: CompactMask) -> list[float]:
    encoded: list[float] = encode_mask(mask.full(), mask.box if mask.area else None)
    return encoded
