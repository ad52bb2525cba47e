"""Rows of the results: how an image's result lies in a Parquet file.

A row has ``id`` and ``uri``; ``height`` and ``width``; ``masks`` and ``rejected`` with the fields
of :meth:`~promptseg.pipeline.result.Result.to_dict`, masks as COCO run lengths; ``error``, null if
there was none; and the ``preset`` and ``version`` of promptseg that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.compact_mask import CompactMask
from ...pipeline.result import RejectedMask, Result

if TYPE_CHECKING:
    import pyarrow as pa

_SCORES = ("score", "iou_prediction", "stability_score", "prompt_score")


def schema() -> pa.Schema:
    """Return the schema of the results."""
    import pyarrow as pa

    run_lengths = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    scores = [(name, pa.float64()) for name in _SCORES]
    box = ("box_xyxy", pa.list_(pa.float64()))
    mask = [("label", pa.string()), *scores, box, ("area", pa.int64())]
    rejected = [("label", pa.string()), ("reason", pa.string()), *scores]
    rejected += [("presence", pa.float64()), box]
    return pa.schema(
        [
            ("id", pa.string()),
            ("uri", pa.string()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("masks", pa.list_(pa.struct([*mask, ("segmentation", run_lengths)]))),
            ("rejected", pa.list_(pa.struct([*rejected, ("segmentation", run_lengths)]))),
            ("error", pa.string()),
            ("preset", pa.string()),
            ("version", pa.string()),
        ]
    )


def fields_of(result: Result) -> dict[str, Any]:
    """Return the fields of a row that a result fills."""
    record = result.to_dict()
    height, width = result.image_size
    return {
        "height": height,
        "width": width,
        "masks": record["masks"],
        "rejected": record["rejected"],
    }


def result_of(row: Mapping[str, Any]) -> Result:
    """Return the result of a row without an error."""
    size = row["height"], row["width"]
    masks = row["masks"]

    def scores(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.array([item[name] for item in masks], np.float32)

    return Result(
        image_size=size,
        compact_masks=tuple(_mask_of(item, size) for item in masks),
        labels=[item["label"] for item in masks],
        scores=scores("score"),
        iou_predictions=scores("iou_prediction"),
        stability_scores=scores("stability_score"),
        prompt_scores=scores("prompt_score"),
        rejected=tuple(_rejected_of(item, size) for item in row["rejected"]),
    )


def _mask_of(item: Mapping[str, Any], size: tuple[int, int]) -> CompactMask:
    x0, y0, x1, y1 = (int(value) for value in item["box_xyxy"])
    counts = item["segmentation"]["counts"].encode("ascii")
    return CompactMask(size, (x0, y0, x1, y1), item["area"], counts)


def _rejected_of(item: Mapping[str, Any], size: tuple[int, int]) -> RejectedMask:
    segmentation, box = item["segmentation"], item["box_xyxy"]
    mask = None
    if segmentation is not None:
        from pycocotools import mask as coco_mask

        x, y, width, height = (int(edge) for edge in coco_mask.toBbox(segmentation))
        counts = segmentation["counts"].encode("ascii")
        area = int(coco_mask.area(segmentation))
        mask = CompactMask(size, (x, y, x + width, y + height), area, counts)
    return RejectedMask(
        item["label"],
        item["reason"],
        item["prompt_score"],
        iou_prediction=item["iou_prediction"],
        stability_score=item["stability_score"],
        score=item["score"],
        box_xyxy=None if box is None else (box[0], box[1], box[2], box[3]),
        compact_mask=mask,
        presence=item["presence"],
    )
