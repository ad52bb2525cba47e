"""Losses for promptable segmentation, as in Segment Anything, appendix A."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_losses(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy plus dice loss of every mask.

    Args:
        logits: (B, M, h, w).
        targets: Share of each cell that belongs to the object, (B, h, w) in [0, 1].
        weight: 1 for cells that count, else 0, (h, w).

    Returns:
        (B, M).
    """
    wanted = targets[:, None].expand_as(logits)
    cells = weight.sum().clamp(min=1)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    entropy = (entropy * weight).sum((-2, -1)) / cells
    share = logits.sigmoid() * weight
    wanted = wanted * weight
    overlap = 2 * (share * wanted).sum((-2, -1)) + 1
    dice = 1 - overlap / (share.sum((-2, -1)) + wanted.sum((-2, -1)) + 1)
    return 2 * entropy + dice


@torch.no_grad()
def true_iou(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """IoU (B, M) of the thresholded masks; shapes as in :func:`mask_losses`."""
    masks = (logits > 0) & (weight > 0)
    wanted = ((targets > 0.5) & (weight > 0))[:, None]
    union = (masks | wanted).sum((-2, -1)).clamp(min=1)
    return (masks & wanted).sum((-2, -1)) / union


def prompt_loss(
    logits: Tensor, iou_predictions: Tensor, targets: Tensor, weight: Tensor, spread: float
) -> Tensor:
    """Loss of one round of decoding, a scalar.

    The single mask and the best of the ambiguous ones learn the object. All ambiguous masks also
    learn from their mean loss, weighted by ``spread``, so that none of them stops learning. The
    IoU head learns every mask's true IoU.

    Args:
        logits: (B, 4, h, w).
        iou_predictions: (B, 4).
        targets: (B, h, w).
        weight: (h, w).
        spread: Weight of the ambiguous masks' mean loss.
    """
    losses = mask_losses(logits, targets, weight)
    best = losses[:, 1:].amin(1) + spread * losses[:, 1:].mean(1)
    iou = F.smooth_l1_loss(iou_predictions, true_iou(logits, targets, weight), beta=0.05)
    return (losses[:, 0] + best).mean() + iou


def text_loss(
    local: Tensor,
    presence: Tensor,
    targets: Tensor,
    cell_weight: Tensor,
    phrase_weight: Tensor,
) -> Tensor:
    """Loss of the text head on one picture, a scalar.

    A phrase that is present must be found as a region and as present; one that is absent must be
    found nowhere.

    Args:
        local: Logits (P, h, w), with the N phrases that are present first.
        presence: Logits (P,), in the same order.
        targets: Share of each cell that each present phrase covers, (N, h, w), N <= P.
        cell_weight: 1 for cells that count, else 0, (h, w).
        phrase_weight: Weight of each absent phrase, (P - N,).
    """
    count = len(targets)
    cells = cell_weight.sum().clamp(min=1)
    here, gone = local[:count], local[count:]
    loss = local.sum() * 0
    if count:
        entropy = F.binary_cross_entropy_with_logits(here, targets, reduction="none")
        share, wanted = here.sigmoid() * cell_weight, targets * cell_weight
        overlap = 2 * (share * wanted).sum((-2, -1)) + 1
        dice = 1 - overlap / (share.sum((-2, -1)) + wanted.sum((-2, -1)) + 1)
        loss = loss + 2 * (entropy * cell_weight).sum((-2, -1)).mean() / cells + dice.mean()
        loss = loss + F.softplus(-presence[:count]).mean()
    if len(gone):
        per_phrase = (F.softplus(gone) * cell_weight).sum((-2, -1)) / cells
        loss = loss + (per_phrase * phrase_weight).sum() / 8
        loss = loss + (F.softplus(presence[count:]) * phrase_weight).sum() / 10
    return loss
