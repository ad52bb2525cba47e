"""The trained half of the pocket grounder: image features and phrases in one space.

A small convolutional head maps the tuned backbone's stride-16 features to vectors. Their dot
product with a linear map of a phrase's MiniLM embedding is the logit that the phrase names what is
there. A second logit, from the hottest cells and the image's mean vector, says whether the phrase's
object is in the image at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .blocks import ConvNextBlock

TEXT_DIM = 384  # of MiniLM
HOTTEST_CELLS = 8  # their mean logit enters the presence


@dataclass(frozen=True)
class TextHeadConfig:
    """Sizes of the head.

    Attributes:
        in_channels: Channels of the backbone's last two maps together.
        dim: Width of the shared space.
        depth: ConvNeXt blocks.
    """

    in_channels: int = 472
    dim: int = 192
    depth: int = 2


class TextHead(nn.Module):
    """Dense and global agreement of an image with phrases.

    Args:
        config: Sizes of the head.
    """

    def __init__(self, config: TextHeadConfig | None = None) -> None:
        super().__init__()
        config = config or TextHeadConfig()
        dim = config.dim
        self.project = nn.Conv2d(config.in_channels, dim, kernel_size=1)
        self.blocks = nn.Sequential(
            *(ConvNextBlock(dim, kernel_size=7, expansion=2) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.local = nn.Linear(dim, dim)
        self.pooled = nn.Linear(dim, dim)
        self.local_text = nn.Linear(TEXT_DIM, dim)
        self.pooled_text = nn.Linear(TEXT_DIM, dim)
        self.local_bias = nn.Linear(TEXT_DIM, 1)
        self.pooled_bias = nn.Linear(TEXT_DIM, 1)
        self.peak_weight = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.local_bias.weight)
        nn.init.constant_(self.local_bias.bias, -4.0)
        nn.init.zeros_(self.pooled_bias.weight)
        nn.init.zeros_(self.pooled_bias.bias)

    def embed(self, features: Tensor) -> Tensor:
        """Compute vectors of an image's cells.

        Args:
            features: The backbone's last two maps, concatenated (1, in_channels, h, w) and cropped
                to the image.

        Returns:
            (dim, h, w).
        """
        cells = self.blocks(self.project(features))[0]
        return self.norm(cells.permute(1, 2, 0)).permute(2, 0, 1)

    def score(self, cells: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Score every phrase at every cell and for the whole image.

        Args:
            cells: (dim, h, w), the result of :meth:`embed`.
            text: MiniLM embeddings (P, 384) of length 1.

        Returns:
            Logits (P, h, w) that the phrase names what is at a cell, and logits (P,) that it
            names anything in the image.
        """
        flat = cells.flatten(1).T
        scaled = text * TEXT_DIM**0.5  # entries of about 1
        scale = flat.shape[1] ** -0.5
        local = self.local_text(scaled) @ self.local(flat).T * scale + self.local_bias(text)
        pooled = self.pooled_text(scaled) @ self.pooled(flat).mean(0) * scale
        count = min(HOTTEST_CELLS, local.shape[1])
        peak = local.topk(count, dim=1).values.mean(1)
        presence = self.peak_weight * peak + pooled + self.pooled_bias(text)[:, 0]
        return local.unflatten(1, cells.shape[1:]), presence

    def forward(self, features: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Embed an image's features and score phrases: :meth:`embed`, then :meth:`score`."""
        return self.score(self.embed(features), text)
