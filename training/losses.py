"""Losses: promptable segmentation as in Segment Anything, appendix A; words; objects."""

from __future__ import annotations

import torch
from targets import CELL, ObjectTargets, TextTargets
from torch import Tensor
from torch.nn import functional as F

HOT_SHARE = 0.1  # of the cells that may be a word's, that its weak loss asks to be hot
_ABSENT_LOCAL, _ABSENT_PRESENCE = 6.0, 6.0  # divisors: there are many absent words
_LARGEST_ABSENT = 100  # more absent words than this weigh no more together


def edges(targets: Tensor) -> Tensor:
    """1 at the cells at an object's border, 0 elsewhere; (B, h, w), as ``targets``."""
    solid = (targets > 0.5).float()
    most = F.max_pool2d(solid[:, None], 3, 1, 1)[:, 0]
    least = -F.max_pool2d(-solid[:, None], 3, 1, 1)[:, 0]
    return ((most != least) | ((targets > 0) & (targets < 1))).float()


def mask_losses(
    logits: Tensor, targets: Tensor, weight: Tensor, edge_weight: float = 0.0
) -> Tensor:
    """Cross-entropy plus dice of every mask.

    Args:
        logits: (B, M, h, w).
        targets: Share of the cell that belongs to the object, (B, h, w) in [0, 1].
        weight: 1 where a cell counts, else 0, (h, w) or (B, h, w).
        edge_weight: How much more a cell at the object's border counts in the cross-entropy.

    Returns:
        (B, M).
    """
    weight = weight.expand_as(targets)[:, None]
    wanted = targets[:, None].expand_as(logits)
    raised = weight * (1 + edge_weight * edges(targets)[:, None])
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    entropy = (entropy * raised).sum((-2, -1)) / raised.sum((-2, -1)).clamp(min=1)
    share = logits.sigmoid() * weight
    wanted = wanted * weight
    overlap = 2 * (share * wanted).sum((-2, -1)) + 1
    dice = 1 - overlap / (share.sum((-2, -1)) + wanted.sum((-2, -1)) + 1)
    return 2 * entropy + dice


@torch.no_grad()
def true_iou(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """IoU (B, M) of the thresholded masks; shapes as in :func:`mask_losses`."""
    valid = (weight > 0).expand_as(targets)[:, None]
    masks = (logits > 0) & valid
    wanted = (targets > 0.5)[:, None] & valid
    union = (masks | wanted).sum((-2, -1)).clamp(min=1)
    return (masks & wanted).sum((-2, -1)) / union


def click_loss(logits: Tensor, points: tuple[Tensor, Tensor]) -> Tensor:
    """What clicks that are not obeyed cost: a scalar.

    Every mask must be below zero, with a margin of 1, at a background click; the single mask and
    the best ambiguous one above it at a foreground click.

    Args:
        logits: (B, 4, h, w).
        points: Coordinates (B, N, 2) in pixels of the model input and labels (B, N); -1 is padding.
    """
    coords, labels = points
    height, width = logits.shape[-2:]
    cells = ((coords + 0.5) / CELL).long()
    column = cells[..., 0].clamp(0, width - 1)
    row = cells[..., 1].clamp(0, height - 1)
    index = (row * width + column)[:, None].expand(-1, logits.shape[1], -1)
    at = logits.flatten(2).gather(2, index)  # (B, 4, N)
    off = F.softplus(at + 1).mean(1) * (labels == 0)
    on = (F.softplus(1 - at[:, 0]) + F.softplus(1 - at[:, 1:].amax(1))) / 2 * (labels == 1)
    return (off + on).sum() / (labels >= 0).sum().clamp(min=1)


def prompt_loss(
    logits: Tensor,
    iou_predictions: Tensor,
    targets: Tensor,
    weight: Tensor,
    spread: float,
    edge_weight: float = 0.0,
) -> Tensor:
    """Loss of one round of decoding, a scalar.

    The single mask and the best of the ambiguous ones learn the object; the others get
    ``spread`` of their own loss so that none dies; the IoU head learns every mask's true IoU.

    Args:
        logits: (B, 4, h, w).
        iou_predictions: (B, 4).
        targets: (B, h, w).
        weight: (h, w) or (B, h, w).
        spread: Share of the mean loss of the ambiguous masks.
        edge_weight: As in :func:`mask_losses`.
    """
    losses = mask_losses(logits, targets, weight, edge_weight)
    best = losses[:, 1:].amin(1) + spread * losses[:, 1:].mean(1)
    iou = F.smooth_l1_loss(iou_predictions, true_iou(logits, targets, weight), beta=0.05)
    return (losses[:, 0] + best).mean() + iou


def text_loss(
    local: Tensor, presence: Tensor, targets: TextTargets, weak_weight: float = 1.0
) -> Tensor:
    """Loss of the text head on one scene, a scalar.

    What is there must be found as a region and as present; what is not must be nowhere. A word
    without a mask must be somewhere where it may be (multiple-instance learning).

    Args:
        local: Logits (P, h, w) of the words of ``targets``.
        presence: Logits (P,).
        targets: Of the scene.
        weak_weight: How much words without masks count.
    """
    count = len(targets.masks)
    cells = max(1, local[0].numel()) if len(local) else 1
    weights = targets.weights
    loss = local.sum() * 0
    if count:
        here, weight = local[:count], weights[:count]
        entropy = F.binary_cross_entropy_with_logits(here, targets.masks, reduction="none")
        share, wanted = here.sigmoid() * weight, targets.masks * weight
        overlap = 2 * (share * targets.masks).sum((-2, -1)) + 1
        dice = 1 - overlap / (share.sum((-2, -1)) + wanted.sum((-2, -1)) + 1)
        known = weight.sum((-2, -1)).clamp(min=1)
        loss = loss + 2 * ((entropy * weight).sum((-2, -1)) / known).mean() + dice.mean()
    if len(local) > count:
        fewer = min(1.0, _LARGEST_ABSENT / (len(local) - count))
        per_word = (F.softplus(local[count:]) * weights[count:]).sum((-2, -1)) / cells
        loss = loss + fewer * per_word.sum() / _ABSENT_LOCAL
    there = targets.present * targets.present_weight
    gone = (1 - targets.present) * targets.present_weight
    loss = loss + (F.softplus(-presence) * there).sum() / there.sum().clamp(min=1)
    fewer = min(1.0, _LARGEST_ABSENT / float(gone.sum().clamp(min=1)))
    loss = loss + fewer * (F.softplus(presence) * gone).sum() / _ABSENT_PRESENCE
    for number, inside in targets.weak:
        places = local[number][inside]
        if len(places):
            hot = places.topk(max(1, round(HOT_SHARE * len(places)))).values
            loss = loss + weak_weight * F.softplus(-hot.mean()) / len(targets.weak) ** 0.5
    return loss


def object_loss(boxes: Tensor, confidence: Tensor, targets: ObjectTargets) -> Tensor:
    """Loss of the object head on one scene, a scalar.

    Every cell of an object must give its box, by the generalised IoU (Rezatofighi et al. 2019),
    and say how well it does. Large objects count more than small ones, but less than their cells.

    Args:
        boxes: (h, w, 4) in pixels of the model input.
        confidence: (h, w) logits.
        targets: Of the scene.
    """
    owned = targets.owner >= 0
    if not owned.any():
        return boxes.sum() * 0
    own = targets.owner[owned]
    weight = torch.bincount(own, minlength=len(targets.boxes)).float().clamp(min=1) ** -0.6
    weight = weight[own] / weight[own].sum()
    iou, generalised = box_iou(boxes[owned], targets.boxes[own])
    sure = F.binary_cross_entropy_with_logits(
        confidence[owned], iou.detach().clamp(0, 1), reduction="none"
    )
    return (weight * ((1 - generalised) + 0.5 * sure)).sum()


def box_iou(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (N,) of boxes (N, 4) XYXY with as many others."""
    low, high = (
        torch.maximum(boxes[:, :2], others[:, :2]),
        torch.minimum(boxes[:, 2:], others[:, 2:]),
    )
    shared = (high - low).clamp(min=0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (others[:, 2:] - others[:, :2]).prod(1) - shared
    union = union.clamp(min=1e-6)
    low, high = (
        torch.minimum(boxes[:, :2], others[:, :2]),
        torch.maximum(boxes[:, 2:], others[:, 2:]),
    )
    hull = (high - low).prod(1).clamp(min=1e-6)
    return shared / union, shared / union - (hull - union) / hull
