"""The answers of grounding models: a heat map or scored boxes for each phrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError

ViewT = TypeVar("ViewT")

# With every detector here, boxes of lower scores are noise; useful thresholds are far higher.
MIN_SCORE = 0.05
MAX_BOXES = 100  # per phrase
MIN_SIDE = 1.0  # pixels; clipping leaves slivers of boxes beside the image


@dataclass(frozen=True, eq=False)
class ObjectField:
    """For each cell of a heat map, the box of the object that it is part of, of any class.

    Attributes:
        boxes_xyxy: (h, w, 4) float32 in cells of the heat map; they may overhang it.
        confidence: (h, w) float32 in [0, 1], the expected IoU of each box with its object's.
    """

    boxes_xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HeatMap:
    """How well each place of an image matches a phrase.

    Attributes:
        phrase: The phrase.
        heat: (h, w) float32 in [0, 1], about 0.5 at the border of what the phrase names; the map
            spans the whole image.
        presence: How sure the model is that the object is in the image at all, in [0, 1].
        hint: What a person who finds nothing should know about the phrase; "" for nothing.
        objects: Tells the objects of a hot region apart; None if the model cannot.
    """

    phrase: str
    heat: NDArray[np.float32]
    presence: float
    hint: str = ""
    objects: ObjectField | None = None


def sample_cells(maps: Tensor, extent: tuple[float, float], grid: tuple[int, int]) -> Tensor:
    """Resample maps whose last cells may overhang the image to a grid that spans it exactly.

    Args:
        maps: (B, C, h, w).
        extent: Height and width of the image in cells of the maps.
        grid: Rows and columns of the new grid.

    Returns:
        (B, C, *grid), bilinearly interpolated.
    """
    rows, columns = maps.shape[-2:]
    y = (torch.arange(grid[0], device=maps.device) + 0.5) / grid[0] * extent[0]
    x = (torch.arange(grid[1], device=maps.device) + 0.5) / grid[1] * extent[1]
    places = torch.meshgrid(2 * x / columns - 1, 2 * y / rows - 1, indexing="xy")
    return F.grid_sample(
        maps,
        torch.stack(places, dim=-1).expand(len(maps), -1, -1, -1),
        padding_mode="border",
        align_corners=False,
    )


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of the objects that one phrase names, highest score first; N may be 0.

    Attributes:
        phrase: The phrase, scored independently of others.
        boxes_xyxy: (N, 4) float32 in pixels, within the image.
        scores: (N,) float32 in [0, 1].
        presence: How sure the detector is that the object is in the image at all, in [0, 1]: the
            highest score of any box in the image, kept or not.
        hint: What a person who finds nothing should know about the phrase; "" for nothing.
    """

    phrase: str
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    presence: float
    hint: str = ""


class Detector(Protocol[ViewT]):
    """A model that encodes an image once and then finds boxes for any number of phrases."""

    def look(self, image: NDArray[np.uint8]) -> ViewT:
        """Encode an image (H, W, 3) uint8 RGB."""
        ...

    def ground(self, phrases: Sequence[str], view: ViewT) -> list[Detections]:
        """Boxes of each phrase, in the order of the phrases.

        Args:
            phrases: What to look for.
            view: The result of :meth:`look`.
        """
        ...


def best_boxes(
    phrase: str,
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    image_size: tuple[int, int],
) -> Detections:
    """Select the useful boxes from everything that a detector proposes for a phrase.

    Args:
        phrase: The phrase.
        boxes_xyxy: (Q, 4) in pixels of the image; they may overhang it.
        scores: (Q,) in [0, 1].
        image_size: (H, W).

    Returns:
        The best boxes, clipped to the image: at most ``MAX_BOXES``, with scores of at least
        ``MIN_SCORE`` and sides of at least ``MIN_SIDE``.

    Raises:
        InputError: A score or box is not finite, because the model overflowed.
    """
    if not (np.isfinite(scores).all() and np.isfinite(boxes_xyxy).all()):
        raise InputError(
            f"the detector gives numbers that are not finite for {phrase!r}; "
            "run it with dtype bf16 or fp32"
        )
    height, width = image_size
    clipped = np.clip(boxes_xyxy, 0, np.array([width, height, width, height], np.float32))
    sides = clipped[:, 2:] - clipped[:, :2]
    # A detector that pads the image may propose boxes in the padding; they do not count.
    inside = (sides >= MIN_SIDE).all(1)
    kept = np.flatnonzero(inside & (scores >= MIN_SCORE))
    kept = kept[np.argsort(-scores[kept], kind="stable")][:MAX_BOXES]
    return Detections(
        phrase=phrase,
        boxes_xyxy=clipped[kept].astype(np.float32),
        scores=scores[kept].astype(np.float32),
        presence=float(scores[inside].max(initial=0.0)),
    )


def corners_xyxy(boxes: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """Convert boxes from relative centre and size to corners in pixels.

    Args:
        boxes: (..., 4): x and y of the centre, width and height, as fractions of a frame.
        size: (H, W) of the frame in pixels.

    Returns:
        (..., 4) float32, XYXY.
    """
    centres, sides = boxes.float()[..., :2], boxes.float()[..., 2:]
    corners = torch.cat([centres - sides / 2, centres + sides / 2], dim=-1).cpu().numpy()
    return corners * np.array([size[1], size[0], size[1], size[0]], np.float32)
