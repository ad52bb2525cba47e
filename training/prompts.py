"""Training prompts: boxes, clicks, coarse priors, and clicks that correct a prediction."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from promptseg.apps.evaluation.clicks import interior_depth, next_click

CELL = 4  # side of a cell of the decoder's grid, in pixels of the model input


@dataclass(frozen=True, eq=False)
class Prompts:
    """B prompts in pixels of the model input; shapes as in ``Sam.decode``."""

    points: tuple[Tensor, Tensor] | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None


def _to_pixels(cells: np.ndarray) -> np.ndarray:
    return (cells + 0.5) * CELL - 0.5


def _covered(target: Tensor, share: float) -> np.ndarray:
    """Cells (h, w) that the object covers by more than a share; the fullest if there are none."""
    values = target.numpy()
    mask: np.ndarray = values > share
    return mask if mask.any() else values >= values.max()


def _click_inside(mask: np.ndarray, rng: np.random.Generator, centre: bool) -> tuple[float, float]:
    if centre:
        column, row, _ = next_click(mask, np.zeros_like(mask))
    else:
        depth = interior_depth(mask)
        rows, columns = np.nonzero(depth > min(2.0, depth.max() - 0.5))
        pick = rng.integers(len(rows))
        row, column = int(rows[pick]), int(columns[pick])
    x, y = _to_pixels(np.array([column, row], dtype=np.float32))
    return float(x), float(y)


def clicks(targets: Tensor, rng: np.random.Generator) -> Prompts:
    """One foreground click in each target (B, h, w): at its centre or anywhere inside."""
    coords = [_click_inside(_covered(t, 0.5), rng, rng.random() < 0.5) for t in targets]
    return Prompts(points=(torch.tensor(coords)[:, None], torch.ones(len(coords), 1)))


def jittered_boxes(
    targets: Tensor, rng: np.random.Generator, *, jitter: float, limit: float
) -> Tensor:
    """The boxes (B, 4) of targets (B, h, w), with sides moved by up to ``limit`` pixels.

    The standard deviation is ``jitter`` times the length of the box's side, as in SAM's training.
    """
    made = []
    for target in targets:
        rows, columns = np.nonzero(_covered(target, 0.25))
        low = np.array([columns.min(), rows.min()], dtype=np.float32) * CELL
        high = np.array([columns.max() + 1, rows.max() + 1], dtype=np.float32) * CELL
        side = np.tile(high - low, 2)
        noise = np.clip(rng.normal(size=4) * jitter * side, -limit, limit)
        box = np.concatenate([low, high]) + noise.astype(np.float32)
        x0, x1 = sorted(box[[0, 2]])
        y0, y1 = sorted(box[[1, 3]])
        made.append([x0, y0, x1, y1])
    return torch.tensor(np.array(made), dtype=torch.float32)


def boxes(targets: Tensor, rng: np.random.Generator, *, jitter: float, limit: float) -> Prompts:
    """Box prompts from :func:`jittered_boxes`."""
    return Prompts(boxes=jittered_boxes(targets, rng, jitter=jitter, limit=limit))


def coarse_prior(targets: Tensor, square: int, rng: np.random.Generator) -> Prompts:
    """Imitate the prompts from a heat map: a rough mask, its highest point and a loose box.

    The target is averaged over 16 to 64 pixels, perturbed with noise and turned into logits. The
    point and the box are each left out at random.
    """
    factor = int(rng.choice([4, 8, 16]))
    low = F.avg_pool2d(targets[:, None], factor, ceil_mode=True)
    low = low + torch.from_numpy(rng.normal(size=low.shape).astype(np.float32)) * 0.15
    heat = F.interpolate(low, scale_factor=factor, mode="bilinear")
    heat = heat[..., : targets.shape[-2], : targets.shape[-1]]
    peak = heat.flatten(1).amax(1).clamp(min=0.1)[:, None, None, None]
    logits = (heat / peak - rng.uniform(0.3, 0.6)) * float(rng.uniform(4, 12))
    flat = (heat[:, 0] * (0.2 + targets)).flatten(1).argmax(1)
    rows, columns = flat // targets.shape[-1], flat % targets.shape[-1]
    cells = torch.stack([columns, rows], dim=-1).float()
    points = ((cells + 0.5) * CELL - 0.5)[:, None]
    loose = jittered_boxes(targets, rng, jitter=0.2, limit=60.0)
    return Prompts(
        points=(points, torch.ones(len(points), 1)) if rng.random() < 0.8 else None,
        boxes=loose if rng.random() < 0.7 else None,
        masks=to_mask_input(logits, square),
    )


def first_prompts(targets: Tensor, square: int, rng: np.random.Generator) -> Prompts:
    """Prompts for the first round, of one random kind for all targets."""
    kind = rng.random()
    if kind < 0.45:
        return clicks(targets, rng)
    if kind < 0.60:
        return boxes(targets, rng, jitter=0.0, limit=0.0)
    if kind < 0.82:
        return boxes(targets, rng, jitter=0.1, limit=20.0)
    if kind < 0.90:
        box = boxes(targets, rng, jitter=0.1, limit=20.0)
        return replace(box, points=clicks(targets, rng).points)
    return coarse_prior(targets, square, rng)


def heat_prior(
    heat: Tensor, targets: Tensor, square: int, rng: np.random.Generator, *, whole: bool
) -> Prompts:
    """Prompts from the text head's logits for phrases, given as mask input.

    Args:
        heat: The phrases' logits at stride 16, (B, h, w).
        targets: (B, 4 h', 4 w'), on the decoder's grid, which may be padded beyond the heat map.
        square: Side of the mask input.
        rng: Source of randomness.
        whole: Whether each target is everything that its phrase names. If not, each is one object,
            the heat is restricted to a loose box around it, and half of the time the boxes are
            given as well.
    """
    fine = F.interpolate(heat[:, None], scale_factor=4, mode="bilinear")
    fine = fine[..., : targets.shape[-2], : targets.shape[-1]].clamp(-10, 10)
    loose = None
    if not whole:
        loose = jittered_boxes(targets, rng, jitter=0.1, limit=30.0)
        y = (torch.arange(fine.shape[-2]) + 0.5)[:, None] * CELL
        x = (torch.arange(fine.shape[-1]) + 0.5) * CELL
        x0, y0, x1, y1 = (side[:, None, None] for side in loose.unbind(-1))
        inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        fine = fine.masked_fill(~inside[:, None], -10.0)
    return Prompts(boxes=loose if rng.random() < 0.5 else None, masks=to_mask_input(fine, square))


def to_mask_input(logits: Tensor, square: int) -> Tensor:
    """Pad logits (B, 1, h, w) to the model's square mask input by repeating their border."""
    padding = (0, square - logits.shape[-1], 0, square - logits.shape[-2])
    return F.pad(logits, padding, mode="replicate")


def corrected(
    prompts: Prompts,
    targets: Tensor,
    logits: Tensor,
    weight: Tensor,
    square: int,
    rng: np.random.Generator,
) -> Prompts:
    """Add a click where ``logits`` (B, h, w) are wrong and usually give them as mask input."""
    valid = weight.numpy() > 0
    coords, labels = [], []
    for share, logit in zip(targets, logits.numpy() > 0, strict=True):
        target = _covered(share, 0.5)
        error = (target ^ logit) & valid
        if rng.random() < 0.5 or not error.any():
            column, row, label = next_click(target, logit, valid)
        else:
            rows, columns = np.nonzero(error)
            pick = rng.integers(len(rows))
            row, column = int(rows[pick]), int(columns[pick])
            label = int(target[row, column])
        coords.append(_to_pixels(np.array([[column, row]], dtype=np.float32)))
        labels.append([float(label)])
    new = torch.from_numpy(np.stack(coords)), torch.tensor(labels)
    if prompts.points is not None:
        new = torch.cat([prompts.points[0], new[0]], 1), torch.cat([prompts.points[1], new[1]], 1)
    masks = to_mask_input(logits[:, None], square) if rng.random() < 0.9 else None
    return replace(prompts, points=new, masks=masks)
