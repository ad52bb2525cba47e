"""Dense features of CLIP's vision transformers, by other paths through the trained weights.

CLIP is trained on one vector for the whole picture, and its queries and keys attend to places
that have little to do with their own. Two training-free remedies:

- "surgery", Li et al. 2023, "CLIP Surgery": beside the last blocks runs a second path, in which
  values attend to values; it reads the original path's tokens, skips the feed-forward layers, and
  starts from the original path's tokens before those blocks.
- "sclip", Wang et al. 2023, "SCLIP": in the last block queries attend to queries and keys to keys;
  all else stays.

The model is open_clip's; what is here calls its parts in another order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer

DenseAttention = Literal["surgery", "sclip", "none"]

_QUERY, _KEY, _VALUE = range(3)


def value_attention(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Attend from values to values: softmax(v v^T / sqrt(d)) v, (1, N, D) to (1, N, D)."""
    value = _heads(attention, x, _VALUE)
    return _join(attention, F.scaled_dot_product_attention(value, value, value))


def self_self_attention(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Attend by likeness: (softmax(q q^T / sqrt(d)) + softmax(k k^T / sqrt(d))) v.

    Args:
        attention: Of a block.
        x: (1, N, D).

    Returns:
        (1, N, D). The weights of a token sum to 2, as in the paper.
    """
    query, key, value = (_heads(attention, x, part) for part in (_QUERY, _KEY, _VALUE))
    like_queries = F.scaled_dot_product_attention(query, query, value)
    like_keys = F.scaled_dot_product_attention(key, key, value)
    return _join(attention, like_queries + like_keys)


def _heads(attention: nn.MultiheadAttention, x: Tensor, part: int) -> Tensor:
    """Queries, keys or values, (1, heads, N, d)."""
    weight = attention.in_proj_weight.chunk(3)[part]
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)[part]
    return F.linear(x, weight, bias).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)


def _join(attention: nn.MultiheadAttention, heads: Tensor) -> Tensor:
    return attention.out_proj(heads.transpose(1, 2).flatten(2))


def resize_positions(
    positions: Tensor, native: tuple[int, int], grid: tuple[int, int], mode: str
) -> Tensor:
    """Bring position embeddings to another grid.

    Args:
        positions: (1 + h w, D), the class token's first.
        native: h and w that the model was trained with.
        grid: Rows and columns wanted.
        mode: "bilinear" or "bicubic".

    Returns:
        (1 + rows * columns, D); at the native grid the positions themselves.
    """
    if grid == native:
        return positions
    patches = positions[1:].T.reshape(1, -1, *native)
    resized = F.interpolate(patches, size=grid, mode=mode, align_corners=False)
    return torch.cat([positions[:1], resized[0].flatten(1).T])


def dense_features(
    visual: VisionTransformer, pixels: Tensor, *, attention: DenseAttention, blocks: int
) -> tuple[Tensor, Tensor]:
    """Features of the cells and of the whole picture.

    Args:
        visual: Image encoder; its blocks are left as they are.
        pixels: (1, 3, H, W), sides whole multiples of the patch size.
        attention: Which path; "none" gives the tokens as trained.
        blocks: How many of the last blocks "surgery" changes, all at most.

    Returns:
        (h, w, C) and (C,) of any length, the latter by the original path: that of ``visual``
        itself where the grid is the native one.
    """
    x, grid = _embed(visual, pixels, "bicubic" if attention == "sclip" else "bilinear")
    layers = list(visual.transformer.resblocks)
    dense: Tensor | None = None
    for left, block in zip(range(len(layers), 0, -1), layers, strict=True):
        if attention == "surgery" and left <= blocks:
            start = x if dense is None else dense
            dense = start + block.ls_1(value_attention(block.attn, block.ln_1(x)))
        elif attention == "sclip" and left == 1:
            dense = x + block.ls_1(self_self_attention(block.attn, block.ln_1(x)))
            dense = dense + block.ls_2(block.mlp(block.ln_2(dense)))
        x = block(x)
    cells = (x if dense is None else dense)[0, 1:]
    cells = visual.ln_post(cells) @ visual.proj
    return cells.unflatten(0, grid), _pool(visual, x[0]) @ visual.proj


def _embed(visual: VisionTransformer, pixels: Tensor, mode: str) -> tuple[Tensor, tuple[int, int]]:
    """Tokens (1, 1 + h w, D) as they enter the first block, and their grid."""
    patches = visual.conv1(pixels)
    grid = (patches.shape[2], patches.shape[3])
    first = visual.class_embedding[None, None]
    positions = resize_positions(visual.positional_embedding, visual.grid_size, grid, mode)
    return visual.ln_pre(torch.cat([first, patches.flatten(2).mT], dim=1) + positions), grid


def _pool(visual: VisionTransformer, x: Tensor) -> Tensor:
    """The whole picture's token (D,) of (1 + h w, D)."""
    normed = x if visual.final_ln_after_pool else visual.ln_post(x)
    pooled = normed[0] if visual.pool_type == "tok" else normed[1:].mean(0)
    return visual.ln_post(pooled) if visual.final_ln_after_pool else pooled
