"""Clicks on a grid over the image, and the masks that they give at the decoder's resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...models.embedding import ImageEmbedding
from ..masks import box_nms
from .prompts import LowResMasks
from .segmenter import Segmenter

# Points whose candidates are held at a time, before they are filtered.
_POINTS_AT_ONCE = 64


def point_grid(points_per_side: int) -> NDArray[np.float64]:
    """Return the (n * n, 2) centres (x, y) of n x n equal cells of the unit square, by rows."""
    centres = (np.arange(points_per_side) + 0.5) / points_per_side
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)


def decode_points(
    segmenter: Segmenter, embedding: ImageEmbedding, points: NDArray[np.float64]
) -> LowResMasks:
    """Decode clicks (N, 2), each on its own, to the whole, the part and the subpart that it means.

    Returns:
        One candidate in each row: (3 N, 1, h, w), those of a click adjacent.
    """
    found = segmenter.decode_low_res(
        embedding,
        point_coords=points[:, None],
        point_labels=np.ones((len(points), 1)),
        multimask_output=True,
    )
    return LowResMasks(
        found.logits.reshape(-1, 1, *found.logits.shape[-2:]),
        found.iou_predictions.reshape(-1, 1),
    )


def propose_on_grid(
    segmenter: Segmenter,
    embedding: ImageEmbedding,
    points_per_side: int,
    *,
    min_iou_prediction: float = 0.0,
    nms_iou: float = 0.7,
) -> LowResMasks:
    """Propose masks all over an image, for whoever chooses among them by other evidence.

    Nothing is upscaled: what costs most of everything mode's memory, and the more time the larger
    the image, is left to the few that are chosen.

    Args:
        segmenter: Decodes the clicks.
        embedding: The encoded image.
        points_per_side: Clicks along each side of the grid.
        min_iou_prediction: Least predicted IoU of a mask; 0 keeps all.
        nms_iou: Of two masks whose boxes' IoU is above this, the one of higher predicted IoU
            stays.

    Returns:
        (N, 1, h, w), highest predicted IoU first, none of them empty; N may be 0.
    """
    points = point_grid(points_per_side) * embedding.original_size[::-1]
    found = []
    for start in range(0, len(points), _POINTS_AT_ONCE):
        some = decode_points(segmenter, embedding, points[start : start + _POINTS_AT_ONCE])
        kept = (some.logits > segmenter.model.mask_threshold).any(axis=(1, 2, 3))
        if min_iou_prediction > 0:
            kept &= some.iou_predictions[:, 0] >= min_iou_prediction
        found.append(some.take(np.flatnonzero(kept)))
    masks = LowResMasks.join(found)
    boxes = segmenter.low_res_boxes(embedding, masks)
    scores = masks.iou_predictions[:, 0].astype(np.float64)
    return masks.take(box_nms(boxes, scores, nms_iou))
