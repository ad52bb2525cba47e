"""Pocket's prompts as maps, and how a box is decoded: in two passes, the mask within the box."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

# Standard deviations of the two Gaussians that a click is drawn as, in pixels of the model input.
POINT_SIGMAS = (12.0, 60.0)
_OUTSIDE_BOX = -4.0  # largest logit of a mask beyond its box


def _centres(cells: int, side: int, device: torch.device) -> Tensor:
    """Centres of the cells along a side of the drawn maps, in pixels of the model input."""
    return (torch.arange(cells, device=device) + 0.5) * (side / cells)


def draw_points(
    coords: Tensor, labels: Tensor, size: tuple[int, int], input_size: tuple[int, int]
) -> Tensor:
    """Draw clicks as maps of the nearest click.

    Args:
        coords: (B, N, 2) in pixels of the model input, (x, y).
        labels: (B, N): 1 foreground, 0 background; others are not drawn.
        size: (h, w) of the maps.
        input_size: (H, W) of the model input.

    Returns:
        (B, 2 * len(POINT_SIGMAS), h, w): foreground, then background.
    """
    centres = coords + 0.5
    dx = (_centres(size[1], input_size[1], coords.device) - centres[..., 0, None]).square()
    dy = (_centres(size[0], input_size[0], coords.device) - centres[..., 1, None]).square()
    distance = dy[..., :, None] + dx[..., None, :]  # (B, N, h, w)
    maps = []
    for label in (1, 0):
        off = (labels != label)[..., None, None]
        nearest = distance.masked_fill(off, torch.inf).amin(dim=1)
        maps += [torch.exp(-nearest / (2 * sigma**2)) for sigma in POINT_SIGMAS]
    return torch.stack(maps, dim=1)


def draw_boxes(boxes: Tensor, size: tuple[int, int], input_size: tuple[int, int]) -> Tensor:
    """Draw boxes (B, 4) XYXY as maps (B, 1, h, w) of a size: +1 inside, -1 outside."""
    x = _centres(size[1], input_size[1], boxes.device)
    y = _centres(size[0], input_size[0], boxes.device)
    x0, y0, x1, y1 = (boxes + 0.5).unbind(-1)
    in_x = (x >= x0[:, None]) & (x <= x1[:, None])  # (B, w)
    in_y = (y >= y0[:, None]) & (y <= y1[:, None])  # (B, h)
    inside = in_y[:, :, None] & in_x[:, None, :]
    return inside.unsqueeze(1).to(boxes.dtype) * 2 - 1


def keep_inside(logits: Tensor, drawn: Tensor) -> Tensor:
    """End masks (B, M, h, w) at their boxes, as :func:`draw_boxes` draws them."""
    return torch.where(drawn < 0, logits.clamp(max=_OUTSIDE_BOX), logits)


def to_square(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat the border of logits at the right and the bottom up to a size (h, w)."""
    padding = (0, size[1] - logits.shape[-1], 0, size[0] - logits.shape[-2])
    return F.pad(logits, padding, mode="replicate")


class Decode(Protocol):
    """One pass of the decoder."""

    def __call__(
        self,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        mask_input: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return all masks (B, M, h, w) of the mask input's size, and their predicted IoU."""
        ...


def decode_in_passes(
    decode: Decode,
    points: tuple[Tensor, Tensor] | None,
    boxes: Tensor | None,
    mask_input: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Decode prompts; boxes alone twice.

    The single mask of the first pass is the mask input of the second, as in training, and the
    predicted IoU is the mean of the two.
    """
    if boxes is None or points is not None or mask_input is not None:
        return decode(points, boxes, mask_input)
    first, first_iou = decode(None, boxes, None)
    masks, iou_predictions = decode(None, boxes, first[:, :1])
    return masks, (first_iou + iou_predictions) / 2
