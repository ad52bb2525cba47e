"""Training prompts: boxes, clicks, coarse priors, and corrective clicks on a prediction's error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from targets import CELL
from torch import Tensor
from torch.nn import functional as F

from promptseg.apps.evaluation.clicks import interior_depth, next_click


@dataclass(frozen=True, eq=False)
class Prompts:
    """B prompts in pixels of the model input; shapes as in ``Sam.decode``."""

    points: tuple[Tensor, Tensor] | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None


def _to_pixels(cells: np.ndarray) -> np.ndarray:
    return (cells + 0.5) * CELL - 0.5


def _covered(target: Tensor, share: float) -> np.ndarray:
    """Cells (h, w) of which the object covers more than a share; of a thin one the fullest."""
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
    """One foreground click in each target (B, h, w): its centre or anywhere inside."""
    coords = [_click_inside(_covered(t, 0.5), rng, rng.random() < 0.5) for t in targets]
    return Prompts(points=(torch.tensor(coords)[:, None], torch.ones(len(coords), 1)))


def with_padding(clicked: Sequence[Sequence[tuple[float, float, int]]]) -> tuple[Tensor, Tensor]:
    """Clicks (x, y, label) of B prompts as coordinates (B, N, 2) and labels (B, N), -1 padding."""
    longest = max(len(row) for row in clicked)
    filled = [[*row, *[(0.0, 0.0, -1)] * (longest - len(row))] for row in clicked]
    both = torch.tensor(filled, dtype=torch.float32)
    return both[..., :2].contiguous(), both[..., 2].contiguous()


def clicks_beside(
    targets: Tensor, others: Sequence[Tensor], valid: Tensor, rng: np.random.Generator
) -> Prompts:
    """A foreground click in each target and one or two background clicks next to it.

    Args:
        targets: (B, h, w).
        others: All objects (h, w) of the scene, the targets among them or not.
        valid: 1 where a cell counts, (h, w).
        rng: Source of the choice.
    """
    rows: list[list[tuple[float, float, int]]] = []
    for target in targets:
        mask = _covered(target, 0.5)
        clicked = [(*_click_inside(mask, rng, bool(rng.random() < 0.5)), 1)]
        for place in _neighbours(target, others, valid, rng):
            clicked.append((*_click_inside(place, rng, bool(rng.random() < 0.5)), 0))
        rows.append(clicked)
    return Prompts(points=with_padding(rows))


def _neighbours(
    target: Tensor, others: Sequence[Tensor], valid: Tensor, rng: np.random.Generator
) -> list[np.ndarray]:
    """One or two places (h, w) beside a target: the nearest other objects, or a ring around it."""
    outside = (target.numpy() < 0.02) & (valid.numpy() > 0)
    distance = ndimage.distance_transform_edt(~_covered(target, 0.5))
    found: list[tuple[float, np.ndarray]] = []
    for other in others:
        place = (other.numpy() > 0.9) & outside
        # A part of the target, or what holds it, is no neighbour.
        if place.sum() >= 4 and place.sum() > 0.8 * (other.numpy() > 0.9).sum():
            found.append((float(distance[place].min()), place))
    found.sort(key=lambda item: item[0])
    near = [place for gap, place in found[:2] if gap < 12]
    if near:
        return near[: int(rng.integers(1, 3))]
    ring = outside & (distance > 2) & (distance < 14)
    return [ring] if ring.any() else []


def one_of_several(
    heat: Tensor,
    targets: Tensor,
    others: Sequence[Sequence[Tensor]],
    square: int,
    rng: np.random.Generator,
) -> Prompts:
    """Ask for one object of a word's heat: a click in it, background clicks in the others.

    Half of the time the heat is cold where another object's centre is nearer.

    Args:
        heat: The words' logits (B, 1, h, w) on the decoder's grid.
        targets: The objects (B, h, w).
        others: For each target the word's other objects (h, w).
        square: Side of the mask input.
        rng: Source of the choice.
    """
    rows = [
        [(*_middle(target, rng), 1), *((*_middle(other, rng), 0) for other in beside[:6])]
        for target, beside in zip(targets, others, strict=True)
    ]
    prior = heat
    if rng.random() < 0.5:
        y = (torch.arange(heat.shape[-2])[:, None] + 0.5) * CELL - 0.5
        x = (torch.arange(heat.shape[-1]) + 0.5) * CELL - 0.5
        cold = [
            torch.stack([(y - cy) ** 2 + (x - cx) ** 2 for cx, cy, _ in row]).argmin(0) != 0
            for row in rows
        ]
        prior = heat.masked_fill(torch.stack(cold)[:, None], -10.0)
    loose = jittered_boxes(targets, rng, jitter=0.1, limit=30.0)
    return Prompts(
        points=with_padding(rows),
        boxes=loose if rng.random() < 0.4 else None,
        masks=to_mask_input(prior, square),
    )


def _middle(target: Tensor, rng: np.random.Generator) -> tuple[float, float]:
    """A click in an object near its centre of mass, or else at its deepest place."""
    mask = _covered(target, 0.5)
    rows, columns = np.nonzero(mask)
    row = rows.mean() + rng.normal() * 0.1 * np.ptp(rows)
    column = columns.mean() + rng.normal() * 0.1 * np.ptp(columns)
    row = int(np.clip(round(row), 0, mask.shape[0] - 1))
    column = int(np.clip(round(column), 0, mask.shape[1] - 1))
    if not mask[row, column]:
        return _click_inside(mask, rng, True)
    x, y = _to_pixels(np.array([column, row], dtype=np.float32))
    return float(x), float(y)


def jittered_boxes(
    targets: Tensor, rng: np.random.Generator, *, jitter: float, limit: float
) -> Tensor:
    """The boxes (B, 4) of targets (B, h, w), their sides moved by up to ``limit`` pixels.

    The standard deviation is ``jitter`` of the box's side, as in SAM's training.
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
    """Prompts of :func:`jittered_boxes`."""
    return Prompts(boxes=jittered_boxes(targets, rng, jitter=jitter, limit=limit))


def coarse_prior(targets: Tensor, square: int, rng: np.random.Generator) -> Prompts:
    """What a heat map gives: a rough mask, its highest point and a loose box.

    The target is averaged over 16 to 64 pixels, disturbed and turned into logits.
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
    """Prompts of one kind for all targets."""
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
    """What the text head gives for phrases: its logits as mask input.

    Args:
        heat: Logits (B, 1, h, w) of the phrases on the decoder's grid.
        targets: (B, h, w).
        square: Side of the mask input.
        rng: Source of the boxes' noise.
        whole: The targets are all that the phrases name. Otherwise they are one object each: the
            heat is then kept to a loose box around it, which half of the prompts also give.
    """
    loose = None
    if not whole:
        loose = jittered_boxes(targets, rng, jitter=0.1, limit=30.0)
        y = (torch.arange(heat.shape[-2]) + 0.5)[:, None] * CELL
        x = (torch.arange(heat.shape[-1]) + 0.5) * CELL
        x0, y0, x1, y1 = (side[:, None, None] for side in loose.unbind(-1))
        inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        heat = heat.masked_fill(~inside[:, None], -10.0)
    return Prompts(boxes=loose if rng.random() < 0.5 else None, masks=to_mask_input(heat, square))


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
    """Add a click on the error of ``logits`` (B, h, w) and give them as mask input."""
    counted = weight.expand_as(targets).numpy() > 0
    coords, labels = [], []
    for share, logit, valid in zip(targets, logits.numpy() > 0, counted, strict=True):
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
