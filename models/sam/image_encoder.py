"""SAM's image encoder: a plain vision transformer with windowed and global attention.

Sources: Kirillov et al. 2023, "Segment Anything", appendix A; Li et al. 2022, "Exploring Plain
Vision Transformer Backbones for Object Detection" (windows); Li et al. 2022, "MViTv2" (the
decomposed relative positions). Parameter names are the official ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..linear import PointwiseLinear, multiplies_by_onednn, pointwise_linear
from .layers import LayerNorm2d
from .transformer import MLPBlock

# Attention is computed in blocks whose position bias has at most this many elements: 4 MiB of
# float32, which stays in a CPU's last-level cache between being built and being added.
MAX_BIAS_ELEMENTS = 2**20
# Number of tokens that pass through a linear layer together. What comes out then stays in a CPU's
# last-level cache, and is not so large that the system clears new memory for it each time.
BLOCK_TOKENS = 1024
HALF_BLOCK_TOKENS = 2048  # the same in 16 bits, whose weights are prepared anew for each block

NORM_EPS = 1e-6


def window_partition(x: Tensor, window_size: int) -> tuple[Tensor, tuple[int, int]]:
    """Split a map into windows, padding it with zeros at the bottom and the right.

    Args:
        x: (B, H, W, C).
        window_size: Side of a window in tokens.

    Returns:
        Windows (B * n, window_size, window_size, C) and the padded size (H', W').
    """
    height, width = x.shape[1:3]
    pad_h, pad_w = -height % window_size, -width % window_size
    if pad_h or pad_w:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    padded_size = (height + pad_h, width + pad_w)
    rows, columns = padded_size[0] // window_size, padded_size[1] // window_size
    x = x.reshape(x.shape[0], rows, window_size, columns, window_size, x.shape[-1])
    return x.transpose(2, 3).flatten(0, 2), padded_size


def window_unpartition(
    windows: Tensor, padded_size: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Undo :func:`window_partition`.

    Args:
        windows: (B * n, window_size, window_size, C).
        padded_size: (H', W') from :func:`window_partition`.
        size: (H, W) before padding.

    Returns:
        The map (B, H, W, C).
    """
    window_size = windows.shape[1]
    rows, columns = padded_size[0] // window_size, padded_size[1] // window_size
    x = windows.reshape(-1, rows, columns, *windows.shape[1:]).transpose(2, 3)
    x = x.reshape(x.shape[0], *padded_size, x.shape[-1])
    return x[:, : size[0], : size[1]]


def block_tokens(x: Tensor) -> int:
    """Return how many tokens pass through a linear layer together."""
    half = x.element_size() == 2 or torch.is_autocast_enabled(x.device.type)
    return HALF_BLOCK_TOKENS if half else BLOCK_TOKENS


def _window_spans(length: int, window_size: int) -> Iterator[tuple[slice, slice, int]]:
    """Parts of a side of a grid: the tokens, the windows they fill, and how far they fill those."""
    whole = length // window_size
    if whole:
        yield slice(0, whole * window_size), slice(0, whole), window_size
    if length % window_size:
        yield slice(whole * window_size, length), slice(whole, whole + 1), length % window_size


def _relative_positions(length: int, rel_pos: Tensor) -> Tensor:
    """Embeddings (length, length, c) of all distances, from a table (2 * length - 1, c)."""
    position = torch.arange(length, device=rel_pos.device)
    distance = position[:, None] - position[None, :]
    return rel_pos.index_select(0, distance.flatten() + length - 1).view(length, length, -1)


def _attention_blocks(
    batch_size: int, num_heads: int, num_tokens: int
) -> Iterator[tuple[slice, slice, slice]]:
    """Slices over batch, heads and queries with at most MAX_BIAS_ELEMENTS of bias (or one row)."""
    per_head = num_tokens * num_tokens
    images = max(1, MAX_BIAS_ELEMENTS // (num_heads * per_head))
    heads = max(1, min(num_heads, MAX_BIAS_ELEMENTS // per_head))
    queries = max(1, min(num_tokens, MAX_BIAS_ELEMENTS // num_tokens))
    for image in range(0, batch_size, images):
        for head in range(0, num_heads, heads):
            for query in range(0, num_tokens, queries):
                yield (
                    slice(image, image + images),
                    slice(head, head + heads),
                    slice(query, query + queries),
                )


def attention_with_relative_positions(
    q: Tensor, k: Tensor, v: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, size: tuple[int, int]
) -> Tensor:
    """Attention on a grid with decomposed relative positions, without all scores in memory.

    softmax(q k^T / sqrt(c) + q . R_h[y - y'] + q . R_w[x - x']) v, in blocks of queries.

    Args:
        q: Queries (B, heads, H * W, c).
        k: Keys, of the same shape.
        v: Values, of the same shape.
        rel_pos_h: Embeddings of vertical distances (2 * H - 1, c).
        rel_pos_w: Embeddings of horizontal distances (2 * W - 1, c).
        size: The grid (H, W).

    Returns:
        (B, H * W, heads, c).
    """
    batch_size, num_heads, num_tokens, head_dim = q.shape
    grid = q.reshape(batch_size, num_heads, *size, head_dim)
    bias_h = torch.einsum("bnhwc,hkc->bnhwk", grid, _relative_positions(size[0], rel_pos_h))
    bias_w = torch.einsum("bnhwc,wkc->bnhwk", grid, _relative_positions(size[1], rel_pos_w))
    # (B, heads, H * W, H or W), in float32, which CPUs add faster than bfloat16.
    bias_h, bias_w = bias_h.flatten(2, 3).float(), bias_w.flatten(2, 3).float()
    out = q.new_empty(batch_size, num_tokens, num_heads, head_dim)
    for image, head, query in _attention_blocks(batch_size, num_heads, num_tokens):
        block = (image, head, query)
        attended = _attend(q[block], k[image, head], v[image, head], bias_h[block], bias_w[block])
        out[image, query, head] = attended.transpose(1, 2)
    return out


def _attend(q: Tensor, k: Tensor, v: Tensor, bias_h: Tensor, bias_w: Tensor) -> Tensor:
    """Attention of queries (B, heads, Q, c) whose bias is the sum of one by row and by column."""
    bias_h, bias_w = bias_h.unsqueeze(-1), bias_w.unsqueeze(-2)  # (B, heads, Q, H, 1) and W
    if q.shape[:2].numel() > 1 or not multiplies_by_onednn(q):
        bias = (bias_h + bias_w).flatten(-2)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    # One head, whose scores for these queries are held whole, as its bias is above.
    scores = pointwise_linear(q[0, 0] * q.shape[-1] ** -0.5, k[0, 0])
    grid = scores.view(-1, bias_h.shape[-2], bias_w.shape[-1])
    grid += bias_h[0, 0]
    grid += bias_w[0, 0]
    return pointwise_linear(scores.softmax(-1), v[0, 0].T)[None, None]


class Attention(nn.Module):
    """Multi-head self-attention on a grid with decomposed relative positions.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads; must divide ``dim``.
        size: (H, W) of the grid.
    """

    def __init__(self, dim: int, *, num_heads: int, size: tuple[int, int]) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide the width, got {num_heads} heads for {dim}")
        head_dim = dim // num_heads
        self.num_heads = num_heads
        self.qkv = PointwiseLinear(dim, 3 * dim)
        self.proj = PointwiseLinear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.empty(2 * size[0] - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.empty(2 * size[1] - 1, head_dim))
        nn.init.normal_(self.rel_pos_h, std=0.02)
        nn.init.normal_(self.rel_pos_w, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the whole of a grid: (B, H, W, C) to (B, H, W, C)."""
        batch_size, height, width, _ = x.shape
        tokens = x.flatten(1, 2)
        # In blocks, which are put together as each head's own (3, B, heads, H * W, c).
        qkv = torch.cat(
            [self._split_heads(self.qkv(block)) for block in tokens.split(block_tokens(x), dim=1)],
            dim=3,
        )
        out = self._attend(qkv, (height, width)).flatten(2)
        blocks = [self.proj(block) for block in out.split(block_tokens(x), dim=1)]
        return torch.cat(blocks, dim=1).view(batch_size, height, width, -1)

    def in_windows(self, x: Tensor, window_size: int) -> Tensor:
        """Attend within windows of a grid: (B, H, W, C) to (B, H, W, C).

        Windows that reach beyond the grid are filled up with zeros, of which queries, keys and
        values are the bias: only the grid's own tokens are projected.
        """
        rows = max(1, block_tokens(x) // (window_size * x.shape[2]))  # of windows, together
        parts = [self._in_windows(part, window_size) for part in x.split(rows * window_size, dim=1)]
        return torch.cat(parts, dim=1)

    def _in_windows(self, x: Tensor, window_size: int) -> Tensor:
        """Attend within rows of windows, of which the grid may show less: (B, h, W, C)."""
        batch_size, height, width, _ = x.shape
        rows, columns = -(-height // window_size), -(-width // window_size)
        padded_size = rows * window_size, columns * window_size
        qkv = self.qkv(x)
        windows = qkv.new_empty(batch_size, rows, columns, window_size, window_size, qkv.shape[-1])
        windows[:, -1] = windows[:, :, -1] = self.qkv.bias.to(qkv.dtype)
        grid = windows.transpose(2, 3)  # (B, rows, window_size, columns, window_size, 3 * C)
        for y, filled_rows, inner_y in _window_spans(height, window_size):
            for x_, filled_columns, inner_x in _window_spans(width, window_size):
                part = qkv[:, y, x_].unflatten(2, (-1, inner_x)).unflatten(1, (-1, inner_y))
                grid[:, filled_rows, :inner_y, filled_columns, :inner_x] = part
        tokens = windows.view(-1, window_size**2, qkv.shape[-1])
        out = self._attend(self._split_heads(tokens), (window_size, window_size))
        out = out.view(-1, window_size, window_size, x.shape[-1])
        # Flat, since a product with a map that is not contiguous copies the weights for each row.
        tokens = window_unpartition(out, padded_size, (height, width)).flatten(0, 2)
        projected: Tensor = self.proj(tokens)
        return projected.view(x.shape)

    def _split_heads(self, qkv: Tensor) -> Tensor:
        """Map (B, N, 3 * C) to queries, keys and values (3, B, heads, N, c)."""
        return qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def _attend(self, qkv: Tensor, size: tuple[int, int]) -> Tensor:
        """Map (3, B, heads, H * W, c) to (B, H * W, heads, c)."""
        q, k, v = qkv.unbind(0)
        return attention_with_relative_positions(q, k, v, self.rel_pos_h, self.rel_pos_w, size)


class Block(nn.Module):
    """A transformer block with attention inside windows or over the whole grid.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads.
        mlp_ratio: Inner width of the MLP as a multiple of ``dim``.
        window_size: Side of a window in tokens; 0 attends over the whole grid.
        grid_size: (H, W) of the whole grid.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        mlp_ratio: float,
        window_size: int,
        grid_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(
            dim,
            num_heads=num_heads,
            size=(window_size, window_size) if window_size else grid_size,
        )
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = MLPBlock(embedding_dim=dim, mlp_dim=int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        attended = self.norm1(x)
        if self.window_size:
            attended = self.attn.in_windows(attended, self.window_size)
        else:
            attended = self.attn(attended)
        x = x + attended
        blocks = torch.split(x.flatten(0, 2), block_tokens(x))
        return torch.cat([block + self.mlp(self.norm2(block)) for block in blocks]).view_as(x)


class PatchEmbed(nn.Module):
    """Turns patches into tokens by one convolution.

    Args:
        patch_size: Side of a patch in pixels.
        embed_dim: Width of the tokens.
    """

    def __init__(self, *, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, H / patch_size, W / patch_size, C), contiguous."""
        tokens: Tensor = self.proj(pixel_values)
        return tokens.permute(0, 2, 3, 1).contiguous()


def build_neck(in_chans: int, out_chans: int) -> nn.Sequential:
    """Convolutions from an encoder's last map to the width of the decoder."""
    return nn.Sequential(
        nn.Conv2d(in_chans, out_chans, kernel_size=1, bias=False),
        LayerNorm2d(out_chans),
        nn.Conv2d(out_chans, out_chans, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_chans),
    )


def check_square_input(pixel_values: Tensor, image_size: int) -> None:
    """Raise InputError unless ``pixel_values`` is (B, 3, image_size, image_size)."""
    if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, image_size, image_size):
        raise InputError(
            f"the image encoder expects (B, 3, {image_size}, {image_size}), got "
            f"{tuple(pixel_values.shape)}; resize the long side and pad to a square first"
        )


class ImageEncoderViT(nn.Module):
    """Vision transformer from a normalised square image to an embedding on the grid of patches.

    Args:
        img_size: Side of the square input in pixels; a multiple of ``patch_size``.
        patch_size: Side of a patch in pixels.
        embed_dim: Width of the tokens.
        depth: Number of blocks.
        num_heads: Attention heads of a block.
        mlp_ratio: Inner width of an MLP as a multiple of ``embed_dim``.
        out_chans: Width of the embedding.
        window_size: Side of the windows in tokens.
        global_attn_indexes: Indices of the blocks that attend over the whole grid instead.
    """

    def __init__(
        self,
        *,
        img_size: int = 1024,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        out_chans: int = 256,
        window_size: int = 14,
        global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11),
    ) -> None:
        super().__init__()
        if img_size % patch_size:
            raise ValueError(
                f"img_size must be a multiple of patch_size, got {img_size} and {patch_size}"
            )
        grid = img_size // patch_size
        self.img_size = img_size
        self.patch_embed = PatchEmbed(patch_size=patch_size, embed_dim=embed_dim)
        self.pos_embed = nn.Parameter(torch.empty(1, grid, grid, embed_dim))
        nn.init.normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                window_size=0 if index in global_attn_indexes else window_size,
                grid_size=(grid, grid),
            )
            for index in range(depth)
        )
        self.neck = build_neck(embed_dim, out_chans)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode normalised images.

        Args:
            pixel_values: (B, 3, img_size, img_size).

        Returns:
            (B, out_chans, img_size / patch_size, img_size / patch_size).

        Raises:
            InputError: The input does not have that shape.
        """
        check_square_input(pixel_values, self.img_size)
        x = self.patch_embed(pixel_values) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return embedding
