"""How similar CLIP finds places, pictures and texts: the formulas, free of any model.

Sources: Radford et al. 2021, "Learning transferable visual models from natural language
supervision" (templates, global score); Li et al. 2023, "CLIP Surgery" (the empty text and the
label set as what is redundant). All features are of length 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

REDUNDANCY_SCALE = 2.0  # of the similarities that weigh the labels of a set
_NO_SPAN = 1e-6  # differences of cosines up to this are rounding


def average_templates(features: Tensor) -> Tensor:
    """One feature (C,) of a phrase from those of its templates (T, C), of any length."""
    return F.normalize(F.normalize(features, dim=-1).mean(0), dim=-1)


def similarity_to_text(cells: Tensor, text: Tensor, empty: Tensor) -> Tensor:
    """Similarity of cells to a single text, less what they have in common with the empty text.

    Args:
        cells: (N, C).
        text: (C,).
        empty: Of the text "", (C,).

    Returns:
        (N,), of which only the differences between cells mean anything.
    """
    return cells @ (text - empty)


def similarity_to_labels(cells: Tensor, cls: Tensor, text: Tensor) -> Tensor:
    """Similarity of cells to the labels of a set, less what all labels share.

    CLIP Surgery multiplies a cell and a text channel by channel, weighs the products by how much
    the whole picture looks like the label, w = softmax(2 cls.text) / mean, takes off the mean
    over the labels and sums over the channels. All of this but the weights is linear, so that the
    sum over the channels may come first: the products of N cells and P labels are never held.

    Args:
        cells: (N, C).
        cls: Of the whole picture, (C,).
        text: Of the labels, (P, C).

    Returns:
        (P, N).
    """
    share = (REDUNDANCY_SCALE * (text @ cls)).softmax(0)
    weighted = (share / share.mean())[:, None] * (text @ cells.T)
    return weighted - weighted.mean(0)


def min_max(similarity: Tensor) -> Tensor:
    """Scale a map to [0, 1] from its own least to its own greatest value; a flat one to 0."""
    low, high = similarity.amin(), similarity.amax()
    if float(high - low) <= _NO_SPAN:
        return torch.zeros_like(similarity)
    return (similarity - low) / (high - low)


def global_presence(cls: Tensor, text: Tensor, rivals: Tensor, logit_scale: float) -> float:
    """How much likelier the whole picture goes with a text than with its rivals.

    Args:
        cls: Of the whole picture, (C,).
        text: (C,).
        rivals: Of the texts that it is held against, (R, C); R may be 0, which gives 1.
        logit_scale: What CLIP multiplies its cosines with, about 100 once trained.

    Returns:
        The text's share of the softmax over it and its rivals, in [0, 1].
    """
    logits = logit_scale * (torch.cat([text[None], rivals]) @ cls)
    return float(logits.softmax(0)[0])
