"""Points: simulated clicks on each object, as in the protocol of Segment Anything.

Once through ``pipe(points=...)``, as users click, and twice through the decoder alone, which tells
what its IoU token and its single mask are worth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....models.embedding import ImageEmbedding
from ....pipeline.decoding.prompts import MaskCandidates
from ..clicks import next_click
from ..metrics import boundary_f, mask_iou
from ..pictures import BoolMask, Picture, Target, large
from .base import Row, Shown, Task, mean, open_picture

CLICKS = (1, 2, 3, 5)
# The worst rows are chosen after so many clicks: a single one is often ambiguous.
_TELLING = 3


@dataclass(frozen=True, eq=False)
class _Step:
    """The state after a click."""

    clicks: tuple[tuple[float, float, int], ...]
    found: MaskCandidates
    chosen: int

    @property
    def mask(self) -> BoolMask:
        mask: BoolMask = self.found.masks[0, self.chosen]
        return mask


@dataclass(frozen=True, eq=False)
class _Answer:
    """The pipeline's best mask after some clicks, and how often it covers a background click."""

    clicks: int
    mask: BoolMask
    background: int
    covered: int


class PointTask(Task):
    """One row per object that covers at least 1% of the picture, clicked on five times, in turn.

    First the pipeline answers each time all clicks so far, then three masks are decoded and the
    IoU token chooses, then the single mask is. Each click falls on the centre of the largest error
    of the mask so far, whose logits are the decoder's next prompt.
    """

    name: ClassVar[str] = "points"

    def measure(self, picture: Picture) -> list[Row]:
        """Click on every object of a picture."""
        image, truth = open_picture(picture)
        objects = large(truth.objects)
        if not objects:
            return []
        embedding = self.pipe.segmenter.encode_image(image)
        rows = []
        for i, item in enumerate(objects):
            row: Row = {"label": item.label, "object": i, "area": item.area}
            for answer in self._ask_through(embedding, item, truth.valid):
                if answer.clicks in CLICKS:
                    row[str(answer.clicks)] = {
                        "pipeline": mask_iou(answer.mask, item.mask, truth.valid),
                        "background": answer.background,
                        "covered": answer.covered,
                    }
            for step in self._click_through(embedding, item, truth.valid, multimask=True):
                if len(step.clicks) in CLICKS:
                    row[str(len(step.clicks))] |= {
                        "ious": [mask_iou(m, item.mask, truth.valid) for m in step.found.masks[0]],
                        "predicted": step.found.iou_predictions[0].tolist(),
                        "boundary": boundary_f(step.mask, item.mask, truth.valid),
                    }
            for step in self._click_through(embedding, item, truth.valid, multimask=False):
                if len(step.clicks) in CLICKS:
                    row[str(len(step.clicks))] |= {
                        "single": mask_iou(step.mask, item.mask, truth.valid),
                        "single predicted": float(step.found.iou_predictions[0, 0]),
                    }
            rows.append(row)
        return rows

    def _ask_through(
        self, embedding: ImageEmbedding, item: Target, valid: BoolMask
    ) -> Iterator[_Answer]:
        """Click as a user of the pipeline does, who sees its best mask."""
        coords: list[tuple[int, int]] = []
        labels: list[int] = []
        mask = np.zeros_like(item.mask)
        for _ in range(max(CLICKS)):
            x, y, label = next_click(item.mask & valid, mask, valid)
            coords.append((x, y))
            labels.append(label)
            found = self.pipe(embedding, points=coords, point_labels=labels)
            mask = found.masks[0] if len(found) else np.zeros_like(item.mask)
            outside = [place for place, is_on in zip(coords, labels, strict=True) if not is_on]
            covered = sum(bool(mask[row, column]) for column, row in outside)
            yield _Answer(len(coords), mask, len(outside), covered)

    def _click_through(
        self, embedding: ImageEmbedding, item: Target, valid: BoolMask, *, multimask: bool
    ) -> Iterator[_Step]:
        clicks: list[tuple[float, float, int]] = []
        mask = np.zeros_like(item.mask)
        logits = None
        for _ in range(max(CLICKS)):
            clicks.append(next_click(item.mask & valid, mask, valid))
            found = self.pipe.segmenter.decode(
                embedding,
                point_coords=[[(x, y) for x, y, _ in clicks]],
                point_labels=[[label for _, _, label in clicks]],
                mask_input=logits,
                multimask_output=multimask,
            )
            step = _Step(tuple(clicks), found, int(found.iou_predictions[0].argmax()))
            mask, logits = step.mask, found.low_res_logits[:, step.chosen : step.chosen + 1]
            yield step

    def figures(self, rows: Sequence[Row]) -> dict[str, float]:
        """Mean IoU of the three ways to get a mask, and the accuracy of the IoU token."""
        if not rows:
            return {}
        figures: dict[str, float] = {"objects": len(rows)}
        for number in CLICKS:
            steps = [row[str(number)] for row in rows]
            ious = np.array([step["ious"] for step in steps])
            predicted = np.array([step["predicted"] for step in steps])
            chosen = np.arange(len(ious)), predicted.argmax(1)
            errors = np.abs(ious - predicted)
            background = sum(step["background"] for step in steps)
            if background:
                covered = sum(step["covered"] for step in steps)
                figures[f"{number} background covered"] = covered / background
            figures |= {
                f"{number} pipeline": mean(step["pipeline"] for step in steps),
                f"{number} single": mean(step["single"] for step in steps),
                f"{number} selected": float(ious[chosen].mean()),
                f"{number} best": float(ious.max(1).mean()),
                f"{number} boundary F": mean(step["boundary"] for step in steps),
                f"{number} IoU error": float(errors.mean()),
                f"{number} IoU error, selected": float(errors[chosen].mean()),
                f"{number} IoU error, single": mean(
                    abs(step["single"] - step["single predicted"]) for step in steps
                ),
                f"{number} picks best": float((ious[chosen] == ious.max(1)).mean()),
            }
        return figures

    def scored(self, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """The predicted IoU of the chosen mask after each number of clicks, and its IoU."""
        steps = [row[str(number)] for row in rows for number in CLICKS]
        chosen = [int(np.argmax(step["predicted"])) for step in steps]
        return [
            (step["predicted"][i], step["ious"][i]) for i, step in zip(chosen, steps, strict=True)
        ]

    def worst(self, rows: Sequence[Row], count: int) -> list[Row]:
        """Objects whose chosen mask has the lowest IoU after three clicks."""
        return sorted(rows, key=lambda row: (_telling_iou(row), -row["area"]))[:count]

    def show(self, picture: Picture, rows: Sequence[Row]) -> list[Shown]:
        """Click through these rows again."""
        image, truth = open_picture(picture)
        objects = large(truth.objects)
        embedding = self.pipe.segmenter.encode_image(image)
        shown = []
        for row in rows:
            item = objects[row["object"]]
            steps = self._click_through(embedding, item, truth.valid, multimask=True)
            step = next(step for step in steps if len(step.clicks) == _TELLING)
            caption = f"{row['label']}  {_TELLING} clicks  IoU {_telling_iou(row):.2f}"
            shown.append(Shown(caption, image, step.mask, item.mask, clicks=step.clicks))
        return shown


def _telling_iou(row: Row) -> float:
    step = row[str(_TELLING)]
    return float(step["ious"][int(np.argmax(step["predicted"]))])
