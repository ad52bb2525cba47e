"""How near the answers of one segmenter are to those of another that runs the same model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..images import ImageSource
from .segmenter import Segmenter

_GRID = (0.25, 0.5, 0.75)
# XYXY in parts of the image's sides.
_BOXES = ((0.05, 0.05, 0.95, 0.95), (0.3, 0.3, 0.7, 0.7), (0.1, 0.4, 0.5, 0.9))


@dataclass(frozen=True)
class Agreement:
    """The largest differences over the same prompts on the same pictures.

    Attributes:
        logits: Of a low-resolution logit.
        largest_logit: Largest absolute logit of the reference, for comparison.
        iou_prediction: Of a predicted IoU.
        mean_iou: IoU of the masks of the two, on average.
        least_iou: The same, of the least alike pair.
        masks: Number of pairs.
    """

    logits: float
    largest_logit: float
    iou_prediction: float
    mean_iou: float
    least_iou: float
    masks: int

    def is_exact(self, tolerance: float = 1e-3) -> bool:
        """Whether logits differ by no more than a part of the largest one (or of 1)."""
        return self.logits <= tolerance * max(1.0, self.largest_logit)


def compare_segmenters(
    reference: Segmenter, other: Segmenter, pictures: Sequence[ImageSource]
) -> Agreement:
    """Decode single clicks, boxes, both together, and masks again, with both segmenters.

    Args:
        reference: Whose masks are also the prompts of the last round.
        other: Another segmenter with a model of the same sizes.
        pictures: One or more images.
    """
    rows, ious = [], []
    for picture in pictures:
        ours, theirs = reference.encode_image(picture), other.encode_image(picture)
        before = None
        for prompts in _prompts(ours.original_size):
            if before is not None:  # the same boxes, again
                prompts = {**prompts, "mask_input": before.logits[:, :1]}
            a = reference.decode_low_res(ours, **prompts)
            b = other.decode_low_res(theirs, **prompts)
            before = a if "boxes" in prompts else None
            rows.append(
                (
                    np.abs(a.logits - b.logits).max(),
                    np.abs(a.logits).max(),
                    np.abs(a.iou_predictions - b.iou_predictions).max(),
                )
            )
            masks = reference.upscale(ours, a).masks, other.upscale(theirs, b).masks
            inner, outer = (f(*masks).sum((-2, -1)) for f in (np.logical_and, np.logical_or))
            ious.append((inner / np.maximum(outer, 1) + (outer == 0)).ravel())
    logits, largest, iou_prediction = np.max(rows, axis=0).tolist()
    all_ious = np.concatenate(ious)
    return Agreement(
        logits=logits,
        largest_logit=largest,
        iou_prediction=iou_prediction,
        mean_iou=float(all_ious.mean()),
        least_iou=float(all_ious.min()),
        masks=len(all_ious),
    )


def _prompts(size: tuple[int, int]) -> Iterator[Mapping[str, Any]]:
    height, width = size
    clicks = [[(x * width, y * height)] for y in _GRID for x in _GRID]
    boxes = np.array(_BOXES) * (width, height, width, height)
    middles = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    points = {"point_coords": middles, "point_labels": np.ones((len(boxes), 1))}
    yield {"point_coords": clicks, "point_labels": np.ones((len(clicks), 1))}
    yield {"boxes": boxes}
    yield {"boxes": boxes, **points, "multimask_output": False}
