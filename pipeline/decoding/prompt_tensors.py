"""Prompts from outside: checked, and as tensors in the model's frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...models.embedding import ImageEmbedding
from ...models.errors import InputError
from ...models.sam.sam import PromptableModel
from ..checks import Numbers, check_shape, read_array
from ..marks import check_boxes, check_points


@dataclass(frozen=True, eq=False)
class PromptTensors:
    """Checked prompts in the model's frame, (B, ...) each."""

    count: int
    point_coords: Tensor | None
    point_labels: Tensor | None
    boxes: Tensor | None
    mask_input: Tensor | None


def read_prompts(
    model: PromptableModel,
    embedding: ImageEmbedding,
    point_coords: Numbers | None,
    point_labels: Numbers | None,
    boxes: Numbers | None,
    mask_input: Numbers | None,
) -> PromptTensors:
    """Check prompts on an encoded image and convert them to the model's frame.

    Raises:
        InputError: See :meth:`Segmenter.decode`.
    """

    def tensor(array: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(array.astype(np.float32)).to(model.device)

    if (point_coords is None) != (point_labels is None):
        raise InputError("point_coords and point_labels come together: give both or neither")
    size = embedding.original_size
    counts: dict[str, int] = {}
    coords = labels = corners = prior = None
    if point_coords is not None and point_labels is not None:
        coords = _read("point_coords", point_coords, (None, None, 2))
        labels = _read("point_labels", point_labels, coords.shape[:2])
        check_points(coords, labels, size)
        counts["point_coords"] = len(coords)
    if boxes is not None:
        corners = _read("boxes", boxes, (None, 4))
        check_boxes(corners, size)
        counts["boxes"] = len(corners)
    if mask_input is not None:
        prior = _read("mask_input", mask_input, (None, 1, *model.mask_input_size))
        counts["mask_input"] = len(prior)
    if not counts:
        raise InputError("there is nothing to segment: give points, boxes or mask_input")
    if len(set(counts.values())) > 1:
        given = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise InputError(f"all parts must be given for the same number of prompts, got {given}")
    scale = (embedding.input_size[1] / size[1], embedding.input_size[0] / size[0])
    return PromptTensors(
        count=next(iter(counts.values())),
        point_coords=None if coords is None else tensor(coords * scale),
        point_labels=None if labels is None else tensor(labels),
        boxes=None if corners is None else tensor(corners * (scale + scale)),
        mask_input=None if prior is None else tensor(prior),
    )


def cut(tensor: Tensor | None, block: slice) -> Tensor | None:
    """Return some of the prompts; None for a part that they lack."""
    return None if tensor is None else tensor[block]


def _read(name: str, value: Numbers, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """Return finite numbers of a shape (None: any size), or raise InputError."""
    array = read_array(name, value)
    try:
        check_shape(name, array.shape, shape)
    except InputError as error:
        if array.ndim != len(shape) - 1:
            raise
        raise InputError(
            f"{error}; the first dimension counts prompts, so for one prompt add [None]"
        ) from error
    return array
