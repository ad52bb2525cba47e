"""What grounding models answer: a heat map or scored boxes for each phrase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError

# Boxes of lower scores are noise with every detector here; thresholds lie well above.
MIN_SCORE = 0.05
MAX_BOXES = 100  # for a phrase
MIN_SIDE = 1.0  # pixels; less is what clipping leaves of a box beside the image


@dataclass(frozen=True, eq=False)
class HeatMap:
    """How well each place of a picture matches a phrase.

    Attributes:
        phrase: The phrase.
        heat: (h, w) float32 in [0, 1], about 0.5 at the border of what the phrase names; the map
            spans the whole picture.
        presence: How sure the model is that what the phrase names is there at all, in [0, 1].
    """

    phrase: str
    heat: NDArray[np.float32]
    presence: float


def sample_cells(maps: Tensor, extent: tuple[float, float], grid: tuple[int, int]) -> Tensor:
    """Sample maps whose last cells may overhang the picture at the picture's own places.

    Args:
        maps: (B, C, h, w).
        extent: Height and width of the picture in cells of the maps.
        grid: Rows and columns wanted.

    Returns:
        (B, C, *grid), bilinear.
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
    """Boxes of what one phrase names, surest first; N may be 0.

    Attributes:
        phrase: The phrase, which was scored on its own.
        boxes_xyxy: (N, 4) float32 in pixels of the image, within it.
        scores: (N,) float32 in [0, 1].
        presence: How sure the detector is that what the phrase names is there at all, in [0, 1]:
            the highest score of all boxes in the image, whether they are kept or not.
    """

    phrase: str
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    presence: float


def best_boxes(
    phrase: str,
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    image_size: tuple[int, int],
) -> Detections:
    """Keep what is worth keeping of all that a detector proposes for a phrase.

    Args:
        phrase: The phrase.
        boxes_xyxy: (Q, 4) in pixels of the image; they may overhang it.
        scores: (Q,) in [0, 1].
        image_size: (H, W).

    Returns:
        At most ``MAX_BOXES`` boxes, clipped to the image, that score ``MIN_SCORE`` or more and
        are at least ``MIN_SIDE`` wide and high.

    Raises:
        InputError: The model overflowed.
    """
    if not (np.isfinite(scores).all() and np.isfinite(boxes_xyxy).all()):
        raise InputError(
            f"the detector gives numbers that are not finite for {phrase!r}; "
            "run it with dtype bf16 or fp32"
        )
    height, width = image_size
    clipped = np.clip(boxes_xyxy, 0, np.array([width, height, width, height], np.float32))
    sides = clipped[:, 2:] - clipped[:, :2]
    # A detector that pads the picture may propose boxes beside it, which tell nothing of it.
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
    """Boxes (..., 4) as centre and size in parts of a frame, as corners in pixels.

    Args:
        boxes: (x, y) of the centre, width and height, in [0, 1].
        size: (H, W) of the frame in pixels.
    """
    centres, sides = boxes.float()[..., :2], boxes.float()[..., 2:]
    corners = torch.cat([centres - sides / 2, centres + sides / 2], dim=-1).cpu().numpy()
    return corners * np.array([size[1], size[0], size[1], size[0]], np.float32)
