"""Positional debiasing: removes from features what depends only on a cell's position.

After INSID3 (2025), "In-Context Segmentation with DINOv3". Vision transformers' features encode a
cell's position besides its content, so that cells at similar positions match. A black image has the
same content everywhere; with E (C, n) its cells of length 1 less their mean, and U the left
singular vectors of E with the largest singular values,

    x' = (I - U U^T) x, scaled to length 1

is applied to the cells of the examples and of the image alike. The paper removes 500 of the 1024
directions of DINOv3 ViT-L; by default the same share is removed for other models.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ....models.errors import InputError
from ....models.features.dense import DenseFeatures, FeatureExtractor
from .examples import EncodedReference, Shot
from .matching import Matches, MatchingStrategy, unit_tokens
from .target import Target

# Directions removed, as a share of the channels.
PUBLISHED_SHARE = 500 / 1024
# Side in pixels of the black image; extractors resize it to their input size.
BLACK_SIDE = 1024


@dataclass(frozen=True, eq=False)
class PositionalBasis:
    """Directions of a model's features that encode position.

    Attributes:
        directions: (C, k), orthonormal; k may be 0.
        model_id: Name of the model.
    """

    directions: Tensor
    model_id: str

    def remove(self, features: DenseFeatures) -> DenseFeatures:
        """Return features of length 1 without these directions.

        A cell that lies within these directions becomes 0.

        Raises:
            ValueError: The features are from another model.
        """
        if features.model_id != self.model_id:
            raise ValueError(
                f"this basis is of {self.model_id!r}, the features are of {features.model_id!r}"
            )
        tokens = unit_tokens(features)
        left = tokens - (tokens @ self.directions) @ self.directions.T
        # Only rounding errors are left of a vector within the directions.
        left = torch.where(left.norm(dim=1, keepdim=True) > 1e-4, left, 0)
        return replace(features, tokens=F.normalize(left, dim=1).view_as(features.tokens))


def find_positional_basis(
    extractor: FeatureExtractor, *, components: int | None = None
) -> PositionalBasis:
    """Find the directions of a model's features that encode position.

    Args:
        extractor: The model.
        components: Number of directions; by default the published share of the channels. There
            are fewer if the black image's features vary in fewer, as those of a convolutional
            network do, which differ at the edges only.

    Raises:
        InputError: The number is negative, or leaves no direction.
    """
    black = extractor.extract(np.zeros((BLACK_SIDE, BLACK_SIDE, 3), np.uint8))
    cells = unit_tokens(black)  # (n, C)
    channels = cells.shape[1]
    wanted = round(PUBLISHED_SHARE * channels) if components is None else components
    if not 0 <= wanted < channels:
        raise InputError(
            f"components must be from 0 to {channels - 1}, since there are {channels} channels, "
            f"not {wanted}"
        )
    varied = (cells - cells.mean(0)).T
    directions, values, _ = torch.linalg.svd(varied, full_matrices=False)
    # Directions of rounding errors are arbitrary; the tolerance is that of matrix_rank.
    least = max(varied.shape) * torch.finfo(values.dtype).eps * max(1.0, float(values.max()))
    kept = min(wanted, int((values > least).sum()))
    return PositionalBasis(directions[:, :kept].contiguous(), black.model_id)


class DebiasedStrategy:
    """A strategy that matches features without positional information.

    Args:
        strategy: The strategy that is given the debiased features.
        basis: Directions that encode position, of the same model as the features.
    """

    def __init__(self, strategy: MatchingStrategy, basis: PositionalBasis) -> None:
        self.strategy = strategy
        self.basis = basis

    @property
    def min_presence(self) -> float:
        """Minimum presence for the object to count as present."""
        return self.strategy.min_presence

    def __call__(
        self, reference: EncodedReference, target: Target, min_presence: float | None = None
    ) -> Matches:
        """As :class:`~promptseg.pipeline.prompters.reference.matching.MatchingStrategy` says."""
        debiased = replace(
            reference,
            shots=tuple(self._remove(shot) for shot in reference.shots),
            negatives=tuple(self._remove(shot) for shot in reference.negatives),
        )
        unbiased = replace(target, features=self.basis.remove(target.features))
        return self.strategy(debiased, unbiased, min_presence)

    def _remove(self, shot: Shot) -> Shot:
        return replace(shot, features=self.basis.remove(shot.features))
