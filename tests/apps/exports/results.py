"""Results to export."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptseg.pipeline.result import Result

SIZE = (40, 60)


def result_of(masks: Sequence[np.ndarray], labels: Sequence[str]) -> Result:
    """A result of these masks, each score different."""
    stack = np.array(masks)
    steps = np.arange(len(stack), dtype=np.float32) / 64
    return Result.of(
        masks=stack,
        labels=list(labels),
        scores=0.9 - steps,
        iou_predictions=0.8 - steps,
        stability_scores=0.7 - steps,
        prompt_scores=0.6 - steps,
    )


def make_result(*labels: str) -> Result:
    """A result with a disc for each label, side by side and touching."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    masks = []
    for i in range(len(labels)):
        disc = (rows - 12 - 4 * i) ** 2 + (columns - 9 - 15 * i) ** 2 <= 8**2
        masks.append(disc & ~np.any(masks, axis=0) if masks else disc)
    return result_of(masks, labels)


def hard_masks() -> dict[str, np.ndarray]:
    """Masks that formats have trouble with, by what they are."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    far = np.hypot(rows - 20, columns - 28)
    empty = np.zeros(SIZE, bool)
    masks = {
        "ring": (far <= 18) & (far >= 9),
        "rings": ((far <= 19) & (far >= 14)) | ((far <= 10) & (far >= 5)),
        "diagonal": abs(rows - columns) == 0,
        "whole image": ~empty,
    }
    for name, place in {
        "pixel": np.s_[7, 9],
        "corner pixel": np.s_[39, 59],
        "row": np.s_[3, 5:50],
        "column": np.s_[:, 59],
        "left half": np.s_[:, :30],
        "right half": np.s_[:, 30:],
    }.items():
        masks[name] = empty.copy()
        masks[name][place] = True
    masks["two parts"] = masks["pixel"] | (far <= 9)
    masks["touching corners"] = empty.copy()
    masks["touching corners"][:10, :10] = masks["touching corners"][10:30, 10:30] = True
    return masks
