"""SAM's vision transformer as a graph that other runtimes can optimise.

The same function of the same parameters as :class:`~promptseg.models.sam.image_encoder.Block`,
without its blocks of bounded size, which would be thousands of nodes: windows are attended to
together and global attention goes head by head, which bounds the memory all the same.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..sam.image_encoder import (
    Attention,
    Block,
    ImageEncoderViT,
    window_partition,
    window_unpartition,
)


def to_graph(encoder: nn.Module) -> nn.Module:
    """Return an image encoder to export: a copy with plain blocks if it is a ViT, else itself."""
    if not isinstance(encoder, ImageEncoderViT):
        return encoder
    copied = copy.copy(encoder)
    copied._modules = dict(encoder._modules)
    copied.blocks = nn.ModuleList(_GraphBlock(cast(Block, block)) for block in encoder.blocks)
    return copied


class _GraphBlock(nn.Module):
    """A transformer block of whole matrices."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.window_size = block.window_size
        self.attn = _GraphAttention(block.attn)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        size = (x.shape[1], x.shape[2])
        attended = self.norm1(x)
        if self.window_size:
            windows, padded_size = window_partition(attended, self.window_size)
            attended = window_unpartition(self.attn(windows), padded_size, size)
        else:
            attended = self.attn(attended)
        x = x + attended
        return x + self.mlp(self.norm2(x))


class _GraphAttention(nn.Module):
    """Attention on a grid of known size, the embeddings of all distances looked up beforehand."""

    vertical: Tensor
    horizontal: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.num_heads = attention.num_heads
        self.qkv, self.proj = attention.qkv, attention.proj
        for name, table in (
            ("vertical", attention.rel_pos_h),
            ("horizontal", attention.rel_pos_w),
        ):
            position = torch.arange((table.shape[0] + 1) // 2)
            distance = position[:, None] - position[None, :] + len(position) - 1
            self.register_buffer(name, table.detach()[distance])  # (L, L, c)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        count, height, width, _ = x.shape
        parts = self.qkv(x).reshape(count, height * width, 3, self.num_heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, H * W, c)
        scale = q.shape[-1] ** -0.5
        step = self.num_heads if count > 1 else 1
        attended = []
        for start in range(0, self.num_heads, step):
            heads = slice(start, start + step)
            rows = q[:, heads].reshape(count, -1, height, width, q.shape[-1])
            bias_h = rows @ self.vertical.transpose(1, 2)  # (B, heads, H, W, H)
            bias_w = (rows.transpose(2, 3) @ self.horizontal.transpose(1, 2)).transpose(2, 3)
            scores = (q[:, heads] * scale) @ k[:, heads].transpose(-2, -1)
            scores = scores.reshape(*rows.shape[:-1], height, width)
            scores = scores + bias_h.unsqueeze(-1) + bias_w.unsqueeze(-2)
            weights = F.softmax(scores.reshape(count, -1, height * width, height * width), dim=-1)
            attended.append(weights @ v[:, heads])
        out = torch.cat(attended, dim=1).transpose(1, 2)
        return self.proj(out.reshape(count, height, width, -1))
