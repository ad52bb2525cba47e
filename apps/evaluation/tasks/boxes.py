"""Boxes: the mask for each object's tight box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ....pipeline.checks import UInt8Array
from ....pipeline.masks import tight_box
from ..metrics import boundary_f, mask_iou
from ..pictures import BoolMask, Picture, Target, large
from .base import Row, Shown, Task, lowest_iou, mean, open_picture


class BoxTask(Task):
    """One row per object that covers at least 1% of the picture."""

    name: ClassVar[str] = "boxes"

    def measure(self, picture: Picture) -> list[Row]:
        """Give all boxes of a picture at once."""
        image, truth = open_picture(picture)
        objects = large(truth.objects)
        if not objects:
            return []
        answers = self._ask(image, objects)
        return [
            {
                "label": item.label,
                "object": i,
                "area": item.area,
                "iou": mask_iou(mask, item.mask, truth.valid),
                "boundary": boundary_f(mask, item.mask, truth.valid),
                "predicted": predicted,
            }
            for i, (item, (mask, predicted)) in enumerate(zip(objects, answers, strict=True))
        ]

    def _ask(self, image: UInt8Array, objects: Sequence[Target]) -> list[tuple[BoolMask, float]]:
        """The mask for the box of each object and its predicted IoU."""
        boxes = [tight_box(item.mask) for item in objects]
        embedding = self.pipe.segmenter.encode_image(image)
        found = [self.pipe(embedding, boxes=[box]) for box in boxes]
        return [
            (result.masks[0], float(result.iou_predictions[0]))
            if len(result)
            else (np.zeros_like(item.mask), 0.0)
            for result, item in zip(found, objects, strict=True)
        ]

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

    def scored(self, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """The predicted IoU of each box's mask, and its IoU."""
        return [(row["predicted"], row["iou"]) for row in rows]

    def worst(self, rows: Sequence[Row], count: int) -> list[Row]:
        """Objects with the lowest IoU."""
        return lowest_iou(rows, count)

    def show(self, picture: Picture, rows: Sequence[Row]) -> list[Shown]:
        """Decode the boxes of these rows again."""
        image, truth = open_picture(picture)
        objects = [large(truth.objects)[row["object"]] for row in rows]
        answers = self._ask(image, objects)
        return [
            Shown(
                caption=f"{row['label']}  IoU {row['iou']:.2f}",
                image=image,
                prediction=mask,
                target=item.mask,
                box=tight_box(item.mask),
            )
            for row, item, (mask, _) in zip(rows, objects, answers, strict=True)
        ]
