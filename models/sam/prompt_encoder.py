"""SAM's prompt encoder: points, boxes and masks become tokens and a dense map.

Source: Kirillov et al. 2023, "Segment Anything", appendix A. Parameter names are the official
ones.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from .layers import LayerNorm2d


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of positions (Tancik et al. 2020).

    Args:
        num_pos_feats: Number of frequencies, half the width of an encoding (sines and cosines).
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_pos_feats: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, num_pos_feats))

    def encode(self, coords: Tensor) -> Tensor:
        """Encode (..., 2) positions (x, y), normalised to [0, 1], as (..., C)."""
        projected = (2 * coords - 1) @ self.positional_encoding_gaussian_matrix * (2 * math.pi)
        return torch.cat([projected.sin(), projected.cos()], dim=-1)

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Encode the cell centres of a grid of ``size`` (H, W), as (C, H, W)."""
        height, width = size
        matrix = self.positional_encoding_gaussian_matrix
        y = (torch.arange(height, device=matrix.device, dtype=matrix.dtype) + 0.5) / height
        x = (torch.arange(width, device=matrix.device, dtype=matrix.dtype) + 0.5) / width
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (H, W, 2)
        return self.encode(grid).permute(2, 0, 1)

    def forward_with_coords(self, coords: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Encode (B, N, 2) positions in pixels of an image of ``image_size`` (H, W)."""
        height, width = image_size
        return self.encode(coords / coords.new_tensor([width, height]))


class PromptEncoder(nn.Module):
    """Turns points, boxes and masks into sparse and dense prompt embeddings.

    Args:
        embed_dim: Width of the embeddings.
        image_embedding_size: (H, W) of the grid of the image embedding.
        input_image_size: (H, W) of the padded model input in pixels.
        mask_in_chans: Inner width of the mask path.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        image_embedding_size: tuple[int, int],
        input_image_size: tuple[int, int],
        mask_in_chans: int = 16,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.input_image_size = input_image_size
        self.image_embedding_size = image_embedding_size
        self.mask_input_size = (4 * image_embedding_size[0], 4 * image_embedding_size[1])
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        # 0: background point, 1: foreground point, 2 and 3: corners of a box.
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = self._build_mask_downscaling(mask_in_chans, in_chans=1)
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def _build_mask_downscaling(self, mask_in_chans: int, *, in_chans: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(in_chans, mask_in_chans // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans // 4),
            nn.GELU(),
            nn.Conv2d(mask_in_chans // 4, mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans),
            nn.GELU(),
            nn.Conv2d(mask_in_chans, self.embed_dim, kernel_size=1),
        )

    def get_dense_pe(self) -> Tensor:
        """Position encoding of the image grid, (1, C, H, W)."""
        return self.pe_layer(self.image_embedding_size).unsqueeze(0)

    def _kind(self, index: int) -> Tensor:
        return cast(nn.Embedding, self.point_embeddings[index]).weight  # (1, C)

    def _embed_points(self, points: Tensor, labels: Tensor, *, pad: bool) -> Tensor:
        points = points + 0.5  # centres of pixels
        if pad:  # without a box, a padding point takes its place
            points = torch.cat([points, points.new_zeros(points.shape[0], 1, 2)], dim=1)
            labels = torch.cat([labels, labels.new_full((labels.shape[0], 1), -1)], dim=1)
        encoded = self.pe_layer.forward_with_coords(points, self.input_image_size)
        labels = labels.unsqueeze(-1)
        encoded = torch.where(labels == -1, self.not_a_point_embed.weight, encoded)
        for label in (0, 1):
            kind = self._kind(label)
            encoded = torch.where(labels == label, encoded + kind, encoded)
        return encoded

    def _embed_boxes(self, boxes: Tensor) -> Tensor:
        corners = (boxes + 0.5).reshape(-1, 2, 2)
        encoded = self.pe_layer.forward_with_coords(corners, self.input_image_size)
        kinds = torch.cat([self._kind(2), self._kind(3)])
        return encoded + kinds

    def embed_sparse(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, batch_size: int
    ) -> Tensor:
        """Embed points (coordinates, labels) and boxes as tokens (B, N, C); N may be 0."""
        tokens = []
        if points is not None:
            coords, labels = points
            tokens.append(self._embed_points(coords, labels, pad=boxes is None))
        if boxes is not None:
            tokens.append(self._embed_boxes(boxes))
        if not tokens:
            return self.no_mask_embed.weight.new_zeros(batch_size, 0, self.embed_dim)
        return torch.cat(tokens, dim=1)

    def forward(
        self,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        masks: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Embed B prompts of any combination of kinds.

        Args:
            points: Coordinates (B, N, 2) in pixels of the model input, (x, y), and labels
                (B, N): 1 foreground, 0 background, -1 padding.
            boxes: (B, 4) XYXY in pixels of the model input.
            masks: (B, 1, 4H, 4W) logits, for an embedding grid of (H, W).

        Returns:
            Sparse embeddings (B, N', C) and dense embeddings (B, C, H, W).
        """
        batch_size = prompt_batch_size(points, boxes, masks)
        sparse = self.embed_sparse(points, boxes, batch_size)
        if masks is not None:
            dense = self.mask_downscaling(masks)
        else:
            dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(
                batch_size, -1, *self.image_embedding_size
            )
        return sparse, dense


def prompt_batch_size(
    points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
) -> int:
    """Number of prompts B that the given parts describe; 1 if nothing is given."""
    if points is not None:
        return points[0].shape[0]
    if boxes is not None:
        return boxes.shape[0]
    return masks.shape[0] if masks is not None else 1
