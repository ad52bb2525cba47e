"""Dense features of CLIP's vision transformers, without training.

CLIP is trained on one vector for the whole image, and its queries and keys attend to places that
have little to do with their own. "Surgery" (Li et al. 2023, "CLIP Surgery") therefore runs a second
path beside the last blocks, in which values attend to values: it reads the tokens of the original
path, skips the feed-forward layers, and starts from the tokens before those blocks.

The model is open_clip's; the functions here call its parts in another order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer

DenseAttention = Literal["surgery", "none"]


def value_attention(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Attend from values to values: softmax(v v^T / sqrt(d)) v, (1, N, D) to (1, N, D)."""
    weight = attention.in_proj_weight.chunk(3)[2]
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)[2]
    value = F.linear(x, weight, bias).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    attended = F.scaled_dot_product_attention(value, value, value)  # (1, heads, N, d)
    return attention.out_proj(attended.transpose(1, 2).flatten(2))


def resize_positions(positions: Tensor, native: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Resize position embeddings to another grid, bilinearly.

    Args:
        positions: (1 + h * w, D), that of the class token first.
        native: The grid (h, w) that the model was trained with.
        grid: Rows and columns of the new grid.

    Returns:
        (1 + rows * columns, D); at the native grid, ``positions`` unchanged.
    """
    if grid == native:
        return positions
    patches = positions[1:].T.reshape(1, -1, *native)
    resized = F.interpolate(patches, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], resized[0].flatten(1).T])


def dense_features(
    visual: VisionTransformer, pixels: Tensor, *, attention: DenseAttention, blocks: int
) -> tuple[Tensor, Tensor]:
    """Features of the cells and of the whole image.

    Args:
        visual: The image encoder, which is not changed.
        pixels: (1, 3, H, W), sides whole multiples of the patch size.
        attention: The path of the cells; "none" gives the tokens as trained.
        blocks: Number of last blocks that "surgery" changes; a larger number means all.

    Returns:
        Features of any length: (h, w, C) of the cells and (C,) of the whole image. The latter
        takes the original path; at the native grid it equals the output of ``visual``.
    """
    x, grid = _embed(visual, pixels)
    layers = list(visual.transformer.resblocks)
    dense: Tensor | None = None
    for left, block in zip(range(len(layers), 0, -1), layers, strict=True):
        if attention == "surgery" and left <= blocks:
            start = x if dense is None else dense
            dense = start + block.ls_1(value_attention(block.attn, block.ln_1(x)))
        x = block(x)
    cells = (x if dense is None else dense)[0, 1:]
    cells = visual.ln_post(cells) @ visual.proj
    return cells.unflatten(0, grid), _pool(visual, x[0]) @ visual.proj


def _embed(visual: VisionTransformer, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Tokens (1, 1 + h * w, D) as they enter the first block, and their grid (h, w)."""
    patches = visual.conv1(pixels)
    grid = (patches.shape[2], patches.shape[3])
    first = visual.class_embedding[None, None]
    positions = resize_positions(visual.positional_embedding, visual.grid_size, grid)
    return visual.ln_pre(torch.cat([first, patches.flatten(2).mT], dim=1) + positions), grid


def _pool(visual: VisionTransformer, x: Tensor) -> Tensor:
    """The token (D,) of the whole image, from all tokens (1 + h * w, D)."""
    normed = x if visual.final_ln_after_pool else visual.ln_post(x)
    pooled = normed[0] if visual.pool_type == "tok" else normed[1:].mean(0)
    return visual.ln_post(pooled) if visual.final_ln_after_pool else pooled
