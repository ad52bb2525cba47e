"""What the decoder gets, prompts, and what it gives: masks at its resolution and the image's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...models.errors import InputError
from ..checks import (
    BoolArray,
    Float32Array,
    Numbers,
    check_shape,
    read_array,
    read_floats,
    set_field,
)
from ..marks import POINT_LABELS


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptSet:
    """B prompts for one image, each with a label and a score.

    Attributes:
        prompt_scores: (B,) float32 in [0, 1], how sure the prompter is of each prompt.
        labels: B phrases, one for each prompt.
        point_coords: (B, N, 2) float32 (x, y) in pixels of the input image, or None.
        point_labels: (B, N) int64: 1 foreground, 0 background, -1 padding; None without points.
        boxes: (B, 4) float32 XYXY in pixels of the input image, or None.
        mask_input: (B, 1, h, w) float32 mask logits at the mask prompt's size, or None.

    Raises:
        InputError: A shape, a label or a coordinate is invalid.
    """

    prompt_scores: Float32Array
    labels: tuple[str, ...]
    point_coords: Float32Array | None = None
    point_labels: NDArray[np.int64] | None = None
    boxes: Float32Array | None = None
    mask_input: Float32Array | None = None

    def __post_init__(self) -> None:
        labels = tuple(self.labels)
        count = len(labels)
        set_field(self, "labels", labels)
        set_field(self, "prompt_scores", read_floats("prompt_scores", self.prompt_scores, (count,)))
        if (self.point_coords is None) != (self.point_labels is None):
            raise InputError("point_coords and point_labels go together; only one was given")
        if self.point_coords is not None:
            coords = read_floats("point_coords", self.point_coords, (count, None, 2))
            point_labels = read_array("point_labels", cast("Numbers", self.point_labels))
            check_shape("point_labels", point_labels.shape, coords.shape[:2])
            if not np.isin(point_labels, POINT_LABELS).all():
                raise InputError("point_labels must be 1 (foreground), 0 (background) or -1")
            set_field(self, "point_coords", coords)
            set_field(self, "point_labels", point_labels.astype(np.int64))
        if self.boxes is not None:
            boxes = read_floats("boxes", self.boxes, (count, 4))
            if (boxes[:, 2:] < boxes[:, :2]).any():
                raise InputError("boxes must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1")
            set_field(self, "boxes", boxes)
        if self.mask_input is not None:
            set_field(
                self,
                "mask_input",
                read_floats("mask_input", self.mask_input, (count, 1, None, None)),
            )
        if count and self.point_coords is None and self.boxes is None and self.mask_input is None:
            raise InputError("a prompt needs points, a box or a mask; none was given")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def layout(self) -> tuple[int, bool, bool]:
        """Points per prompt, and whether there are boxes and masks; equal layouts can be joined."""
        points = 0 if self.point_coords is None else self.point_coords.shape[1]
        return points, self.boxes is not None, self.mask_input is not None

    @classmethod
    def empty(cls) -> PromptSet:
        """Return a set of no prompts."""
        return cls(prompt_scores=np.zeros(0, np.float32), labels=())

    @classmethod
    def join(cls, sets: Sequence[PromptSet]) -> PromptSet:
        """Return the prompts of one or more sets of one layout, in their order."""
        if len(sets) == 1:
            return sets[0]
        if len({item.layout for item in sets}) != 1:
            raise InputError("prompts with different parts cannot be joined")
        return cls(
            prompt_scores=np.concatenate([item.prompt_scores for item in sets]),
            labels=tuple(label for item in sets for label in item.labels),
            point_coords=_joined([item.point_coords for item in sets]),
            point_labels=_joined([item.point_labels for item in sets]),
            boxes=_joined([item.boxes for item in sets]),
            mask_input=_joined([item.mask_input for item in sets]),
        )

    def part(self, block: slice | NDArray[np.intp]) -> PromptSet:
        """Return the prompts of a slice, or of some numbers in their order."""
        numbers = range(len(self))[block] if isinstance(block, slice) else block.tolist()
        return PromptSet(
            prompt_scores=self.prompt_scores[block],
            labels=tuple(self.labels[i] for i in numbers),
            point_coords=None if self.point_coords is None else self.point_coords[block],
            point_labels=None if self.point_labels is None else self.point_labels[block],
            boxes=None if self.boxes is None else self.boxes[block],
            mask_input=None if self.mask_input is None else self.mask_input[block],
        )


def _joined(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if there else None


@dataclass(frozen=True, eq=False)
class LowResMasks:
    """Masks at the decoder's resolution, before they are upscaled to the image's.

    Attributes:
        logits: (B, C, h, w) float32 in the model's padded square frame.
        iou_predictions: (B, C) float32.
    """

    logits: Float32Array
    iou_predictions: Float32Array

    @classmethod
    def join(cls, parts: Sequence[LowResMasks]) -> LowResMasks:
        """Return the masks of one or more parts, in their order."""
        return cls(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.iou_predictions for part in parts]),
        )

    def take(self, rows: NDArray[np.intp] | BoolArray) -> LowResMasks:
        """Return the masks of some prompts: their indices (M,) in any order, or (B,) bool."""
        return LowResMasks(self.logits[rows], self.iou_predictions[rows])

    def select(self, chosen: NDArray[np.intp]) -> LowResMasks:
        """Return the mask with index ``chosen`` (B,) of each prompt; C becomes 1."""
        index = np.arange(len(chosen))[:, None], chosen[:, None]
        return LowResMasks(self.logits[index], self.iou_predictions[index])


@dataclass(frozen=True, eq=False)
class MaskCandidates:
    """Masks decoded for B prompts, C for each (3 with multimask output, else 1).

    Attributes:
        masks: (B, C, H, W) bool at the input image's size.
        iou_predictions: (B, C) float32, the IoU token's estimate of each mask's quality.
        low_res_logits: (B, C, h, w) float32 mask logits, usable as the next mask prompt.
        stability_scores: (B, C) float32 in [0, 1]; the IoU between the mask thresholded one
            logit higher and one logit lower.
    """

    masks: BoolArray
    iou_predictions: Float32Array
    low_res_logits: Float32Array
    stability_scores: Float32Array
