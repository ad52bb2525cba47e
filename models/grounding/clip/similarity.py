"""How similar CLIP finds places, images and texts: the formulas alone, without a model.

Sources: Radford et al. 2021, "Learning transferable visual models from natural language
supervision" (templates, global score); Li et al. 2023, "CLIP Surgery" (subtracting the empty
text). All features are of length 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_NO_SPAN = 1e-6  # smaller differences of cosines are rounding errors


def average_templates(features: Tensor) -> Tensor:
    """Average the features (T, C), of any length, of a phrase's templates to one of length 1."""
    return F.normalize(F.normalize(features, dim=-1).mean(0), dim=-1)


def similarity_to_text(cells: Tensor, text: Tensor, empty: Tensor) -> Tensor:
    """Similarity of cells to a text, minus their similarity to the empty text.

    Args:
        cells: (N, C).
        text: (C,).
        empty: (C,) of the text "".

    Returns:
        (N,); only differences between cells are meaningful.
    """
    return cells @ (text - empty)


def min_max(similarity: Tensor) -> Tensor:
    """Scale a map linearly so that it spans [0, 1]; a flat map becomes 0."""
    low, high = similarity.amin(), similarity.amax()
    if float(high - low) <= _NO_SPAN:
        return torch.zeros_like(similarity)
    return (similarity - low) / (high - low)


def global_presence(cls: Tensor, text: Tensor, rivals: Tensor, logit_scale: float) -> float:
    """How much better a text describes the whole image than its rivals do.

    Args:
        cls: (C,) of the whole image.
        text: (C,).
        rivals: (R, C) of the texts that it is compared with; with R = 0 the result is 1.
        logit_scale: The factor that CLIP scales cosines by, about 100 once trained.

    Returns:
        The text's share of the softmax over it and its rivals, in [0, 1].
    """
    logits = logit_scale * (torch.cat([text[None], rivals]) @ cls)
    return float(logits.softmax(0)[0])
