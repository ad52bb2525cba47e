"""SAM's mask decoder: tokens and image embedding become masks and their predicted IoU.

Source: Kirillov et al. 2023, "Segment Anything", section 3 and appendix A. Parameter names are
the official ones.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..linear import pointwise_linear
from .layers import LayerNorm2d
from .transformer import TwoWayTransformer


class MLP(nn.Module):
    """Linear layers with ReLU in between (hypernetworks and IoU head)."""

    def __init__(self, *, input_dim: int, hidden_dim: int, output_dim: int, depth: int) -> None:
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (depth - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class MaskDecoder(nn.Module):
    """Predicts masks and their IoU from image and prompt embeddings.

    The first token after the IoU token gives the single mask, the others give whole, part and
    subpart.

    Args:
        transformer_dim: Width of the tokens.
        transformer: The two-way transformer.
        num_multimask_outputs: Number of masks for an ambiguous prompt, besides the single one.
        iou_head_depth: Layers of the IoU head.
        iou_head_hidden_dim: Inner width of the IoU head.
    """

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: TwoWayTransformer,
        num_multimask_outputs: int = 3,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
    ) -> None:
        super().__init__()
        self.transformer_dim = transformer_dim
        self.transformer = transformer
        self.num_mask_tokens = num_multimask_outputs + 1
        self.iou_token = nn.Embedding(1, transformer_dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, transformer_dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(transformer_dim, transformer_dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(transformer_dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(transformer_dim // 4, transformer_dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(
                input_dim=transformer_dim,
                hidden_dim=transformer_dim,
                output_dim=transformer_dim // 8,
                depth=3,
            )
            for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = MLP(
            input_dim=transformer_dim,
            hidden_dim=iou_head_hidden_dim,
            output_dim=self.num_mask_tokens,
            depth=iou_head_depth,
        )

    def forward(
        self,
        *,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts on one image.

        Args:
            image_embeddings: (1, C, H, W).
            image_pe: (1, C, H, W).
            sparse_prompt_embeddings: (B, N, C).
            dense_prompt_embeddings: (B, C, H, W), or (1, C, H, W) if it is the same for all, which
                saves projecting the image for each prompt in the first block.
            multimask_output: Return whole, part and subpart instead of the single mask.

        Returns:
            Mask logits (B, M, 4H, 4W) and predicted IoU (B, M), M = 3 or 1.
        """
        masks, iou_predictions = self.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=image_pe,
            sparse_prompt_embeddings=sparse_prompt_embeddings,
            dense_prompt_embeddings=dense_prompt_embeddings,
        )
        return self.choose_outputs(masks, iou_predictions, multimask_output)

    @staticmethod
    def choose_outputs(
        masks: Tensor, iou_predictions: Tensor, multimask_output: bool
    ) -> tuple[Tensor, Tensor]:
        """Select the three ambiguous ones or the single one of all masks (B, 4, ...)."""
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return masks[:, chosen], iou_predictions[:, chosen]

    def run_transformer(
        self, source: Tensor, image_pe: Tensor, sparse_prompt_embeddings: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Let tokens and image attend to each other.

        Args:
            source: Image plus dense prompt embeddings (B or 1, C, H, W).
            image_pe: (1, C, H, W).
            sparse_prompt_embeddings: (B, N, C).

        Returns:
            The IoU token (B, C), the mask tokens (B, 4, C) and the image, flattened, (B, HW, C).
        """
        batch_size = sparse_prompt_embeddings.shape[0]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat(
            [output_tokens.expand(batch_size, -1, -1), sparse_prompt_embeddings], dim=1
        )
        hidden, image = self.transformer(source, image_pe, tokens)
        return hidden[:, 0], hidden[:, 1 : 1 + self.num_mask_tokens], image

    def upscale(self, image: Tensor) -> Tensor:
        """Apply the upscaling layers to cells (B, N, C); returns (B, N * 16, C / 8).

        The 16 cells that come from one are adjacent: two by two, and again two by two in each. With
        the channels last, both convolutions are matrix products and the norm needs no copies.
        """
        double, norm, activation, double_again, last_activation = self.output_upscaling
        x = cast(LayerNorm2d, norm).channels_last(_doubled(image, double))
        upscaled: Tensor = last_activation(_doubled(activation(x), double_again))
        return upscaled

    def hypernetwork_weights(self, mask_tokens: Tensor) -> Tensor:
        """Map mask tokens (B, 4, C) to the weights (B, 4, C / 8) of their masks' dot products."""
        return torch.stack(
            [mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )

    def predict_masks(
        self,
        *,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """All four masks (B, 4, 4H, 4W) and their predicted IoU (B, 4)."""
        source = image_embeddings + dense_prompt_embeddings
        iou_token, mask_tokens, image = self.run_transformer(
            source, image_pe, sparse_prompt_embeddings
        )
        masks = self.hypernetwork_weights(mask_tokens) @ self.upscale(image).transpose(1, 2)
        height, width = source.shape[-2:]
        return _to_map(masks, (height, width)), self.iou_prediction_head(iou_token)


def _doubled(x: Tensor, convolution: nn.Module) -> Tensor:
    """Apply a transposed convolution of kernel and stride 2 to cells (B, N, C): (B, N * 4, C')."""
    if not isinstance(convolution, nn.ConvTranspose2d) or convolution.bias is None:
        raise TypeError(f"not a transposed convolution with a bias: {convolution}")
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (2 * 2 * C', C)
    y = pointwise_linear(x, weight, convolution.bias.repeat(4))
    return y.unflatten(-1, (4, -1)).flatten(1, 2)


def _to_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Put what was computed of :meth:`MaskDecoder.upscale` in place: (B, M, 4H, 4W)."""
    height, width = size
    parts = x.unflatten(2, (height, width, 2, 2, 2, 2))
    ordered = parts.permute(0, 1, 2, 4, 6, 3, 5, 7)
    return ordered.reshape(*x.shape[:2], 4 * height, 4 * width)
