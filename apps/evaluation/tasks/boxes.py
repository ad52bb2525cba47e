"""Boxes: the mask for each object's tight box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ....pipeline.checks import UInt8Array
from ....pipeline.decoding.prompts import MaskCandidates
from ....pipeline.masks import tight_box
from ..metrics import boundary_f, mask_iou
from ..pictures import Picture, Target, large
from .base import Row, Shown, Task, lowest_iou, mean, open_picture


class BoxTask(Task):
    """One row per object that covers at least 1% of the picture."""

    name: ClassVar[str] = "boxes"

    def measure(self, picture: Picture) -> list[Row]:
        """Decode all boxes of a picture at once."""
        image, truth = open_picture(picture)
        objects = large(truth.objects)
        if not objects:
            return []
        found = self._decode(image, objects)
        return [
            {
                "label": item.label,
                "object": i,
                "area": item.area,
                "iou": mask_iou(found.masks[i, 0], item.mask, truth.valid),
                "boundary": boundary_f(found.masks[i, 0], item.mask, truth.valid),
                "predicted": float(found.iou_predictions[i, 0]),
            }
            for i, item in enumerate(objects)
        ]

    def _decode(self, image: UInt8Array, objects: Sequence[Target]) -> MaskCandidates:
        boxes = np.array([tight_box(item.mask) for item in objects])
        embedding = self.pipe.segmenter.encode_image(image)
        return self.pipe.segmenter.decode(embedding, boxes=boxes, multimask_output=False)

    def figures(self, rows: Sequence[Row]) -> dict[str, float]:
        """Mean IoU and boundary F, and how far the predicted IoU is off."""
        if not rows:
            return {}
        return {
            "objects": len(rows),
            "mIoU": mean(row["iou"] for row in rows),
            "boundary F": mean(row["boundary"] for row in rows),
            "IoU error": mean(abs(row["iou"] - row["predicted"]) for row in rows),
        }

    def worst(self, rows: Sequence[Row], count: int) -> list[Row]:
        """Objects with the lowest IoU."""
        return lowest_iou(rows, count)

    def show(self, picture: Picture, rows: Sequence[Row]) -> list[Shown]:
        """Decode the boxes of these rows again."""
        image, truth = open_picture(picture)
        objects = [large(truth.objects)[row["object"]] for row in rows]
        found = self._decode(image, objects)
        return [
            Shown(
                caption=f"{row['label']}  IoU {row['iou']:.2f}",
                image=image,
                prediction=found.masks[i, 0],
                target=item.mask,
                box=tight_box(item.mask),
            )
            for i, (row, item) in enumerate(zip(rows, objects, strict=True))
        ]
