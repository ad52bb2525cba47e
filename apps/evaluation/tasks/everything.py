"""Everything: which objects are among the masks that are found without a query."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ..metrics import mask_iou
from ..pictures import Picture, large
from .base import Row, Shown, Task, lowest_iou, mean, open_picture

# As in COCO's average recall: 0.50, 0.55, ..., 0.95.
_LEVELS = np.linspace(0.5, 0.95, 10)


class EverythingTask(Task):
    """One row per object that covers at least 1% of the picture, and one for the picture."""

    name: ClassVar[str] = "everything"

    def measure(self, picture: Picture) -> list[Row]:
        """Segment a picture, encoding included, and look for its objects among the masks."""
        image, truth = open_picture(picture)
        started = time.perf_counter()
        found = self.pipe.everything(image)
        seconds = time.perf_counter() - started
        rows: list[Row] = [{"masks": len(found), "seconds": seconds}]
        for i, item in enumerate(large(truth.objects)):
            ious = [mask_iou(mask, item.mask, truth.valid) for mask in found.masks]
            row = {"label": item.label, "object": i, "area": item.area}
            rows.append({**row, "iou": max(ious, default=0.0)})
        return rows

    def figures(self, rows: Sequence[Row]) -> dict[str, float]:
        """Recall of objects, and its cost."""
        figures: dict[str, float] = {}
        ious = np.array([row["iou"] for row in rows if "label" in row])
        if ious.size:
            figures |= {
                "objects": len(ious),
                "best IoU": float(ious.mean()),
                "recall at 0.50": float((ious >= 0.5).mean()),
                "recall at 0.75": float((ious >= 0.75).mean()),
                "average recall": float((ious[:, None] >= _LEVELS).mean()),
            }
        pictures = [row for row in rows if "label" not in row]
        if pictures:
            figures |= {
                "pictures": len(pictures),
                "masks a picture": mean(row["masks"] for row in pictures),
                "seconds a picture": mean(row["seconds"] for row in pictures),
            }
        return figures

    def worst(self, rows: Sequence[Row], count: int) -> list[Row]:
        """Objects whose best mask has the lowest IoU."""
        return lowest_iou((row for row in rows if "label" in row), count)

    def show(self, picture: Picture, rows: Sequence[Row]) -> list[Shown]:
        """Segment the picture again and take each object's best mask."""
        image, truth = open_picture(picture)
        objects = large(truth.objects)
        masks = self.pipe.everything(image).masks
        shown = []
        for row in rows:
            target = objects[row["object"]].mask
            best = max(
                masks,
                key=lambda mask: mask_iou(mask, target, truth.valid),
                default=np.zeros_like(target),
            )
            shown.append(Shown(f"{row['label']}  IoU {row['iou']:.2f}", image, best, target))
        return shown
