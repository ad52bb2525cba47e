"""MobileSAM's image encoder: TinyViT at 1024 pixels.

Sources: Wu et al. 2022, "TinyViT: Fast Pretraining Distillation for Small Vision Transformers";
Zhang et al. 2023, "Faster Segment Anything" (MobileSAM: the last merging keeps the resolution,
and SAM's neck replaces the classifier). Parameter names are the published ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..linear import PointwiseLinear
from .image_encoder import build_neck, check_square_input, window_partition, window_unpartition

NUM_STAGES = 4


class Conv2dBN(nn.Module):
    """A convolution without bias, followed by batch normalisation."""

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            in_chans,
            out_chans,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_chans)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        normalised: Tensor = self.bn(self.c(x))
        return normalised


class PatchEmbed(nn.Module):
    """Two strided convolutions to a quarter of the resolution."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            Conv2dBN(3, embed_dim // 2, kernel_size=3, stride=2),
            nn.GELU(),
            Conv2dBN(embed_dim // 2, embed_dim, kernel_size=3, stride=2),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, C, H / 4, W / 4)."""
        x: Tensor = self.seq(pixel_values)
        return x


class MBConv(nn.Module):
    """Inverted bottleneck: expansion, depthwise convolution and projection, with a residual."""

    def __init__(self, dim: int, *, expand_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * expand_ratio)
        self.conv1 = Conv2dBN(dim, hidden)
        self.conv2 = Conv2dBN(hidden, hidden, kernel_size=3, groups=hidden)
        self.conv3 = Conv2dBN(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        y = F.gelu(self.conv1(x))
        y = F.gelu(self.conv2(y))
        return F.gelu(x + self.conv3(y))


class PatchMerging(nn.Module):
    """Changes the width between stages and, with stride 2, halves the resolution."""

    def __init__(self, dim: int, out_dim: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2dBN(dim, out_dim)
        self.conv2 = Conv2dBN(out_dim, out_dim, kernel_size=3, stride=stride, groups=out_dim)
        self.conv3 = Conv2dBN(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        x = F.gelu(self.conv1(x))
        x = F.gelu(self.conv2(x))
        merged: Tensor = self.conv3(x)
        return merged


def attention_bias_index(window_size: int) -> Tensor:
    """Index (N, N) of the bias of each pair of tokens in a window, with N = window_size ** 2.

    Pairs at the same absolute distance (|dy|, |dx|) share the bias |dy| * window_size + |dx|.
    """
    position = torch.arange(window_size)
    distance = (position[:, None] - position[None, :]).abs()  # (window, window)
    index = distance[:, None, :, None] * window_size + distance[None, :, None, :]
    return index.reshape(window_size**2, window_size**2)


class Attention(nn.Module):
    """Self-attention within a window, with a learned bias for each absolute distance."""

    attention_bias_index: Tensor

    def __init__(self, dim: int, *, num_heads: int, window_size: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide the width, got {num_heads} heads for {dim}")
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = PointwiseLinear(dim, 3 * dim)
        self.proj = PointwiseLinear(dim, dim)
        self.attention_biases = nn.Parameter(torch.empty(num_heads, window_size**2))
        nn.init.normal_(self.attention_biases, std=0.02)
        # Published checkpoints do not contain the index: it follows from the window size.
        self.register_buffer(
            "attention_bias_index", attention_bias_index(window_size), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map windows (B, N, C) to (B, N, C)."""
        # In the projection, each head's queries, keys and values are adjacent.
        qkv = self.qkv(self.norm(x)).unflatten(-1, (self.num_heads, 3, -1))
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # (B, heads, N, c), not copied
        bias = self.attention_biases[:, self.attention_bias_index]  # (heads, N, N)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0))
        attended: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return attended


class Mlp(nn.Module):
    """Layer norm and two linear layers."""

    def __init__(self, dim: int, *, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = PointwiseLinear(dim, hidden_dim)
        self.fc2 = PointwiseLinear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        y: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return y


class TinyViTBlock(nn.Module):
    """Windowed attention, a depthwise convolution and an MLP.

    Args:
        dim: Width of the map.
        num_heads: Attention heads.
        window_size: Side of a window in tokens.
        mlp_ratio: Inner width of the MLP as a multiple of ``dim``.
        local_conv_size: Kernel size of the convolution between attention and MLP.
    """

    def __init__(
        self, dim: int, *, num_heads: int, window_size: int, mlp_ratio: float, local_conv_size: int
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.attn = Attention(dim, num_heads=num_heads, window_size=window_size)
        self.mlp = Mlp(dim, hidden_dim=int(dim * mlp_ratio))
        self.local_conv = Conv2dBN(dim, dim, kernel_size=local_conv_size, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        tokens = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        # Windows are padded before the norm inside the attention, as in the published model.
        windows, padded_size = window_partition(tokens, self.window_size)
        attended = self.attn(windows.flatten(1, 2)).view_as(windows)
        size = (tokens.shape[1], tokens.shape[2])
        tokens = tokens + window_unpartition(attended, padded_size, size)
        mixed: Tensor = self.local_conv(tokens.permute(0, 3, 1, 2))
        tokens = mixed.permute(0, 2, 3, 1)
        update: Tensor = self.mlp(tokens)
        return (tokens + update).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks at one resolution, and the merging to the next stage.

    Args:
        blocks: Modules from (B, C, H, W) to the same shape.
        downsample: The merging; None in the last stage.
    """

    def __init__(self, blocks: list[nn.Module], *, downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """TinyViT from a normalised square image to an embedding at stride 16.

    The first stage is convolutional, the other three attend within windows.

    Args:
        img_size: Side of the square input in pixels; a multiple of 16.
        embed_dims: Width of each of the four stages.
        depths: Number of blocks of each stage.
        num_heads: Attention heads of each stage; the first is not used.
        window_sizes: Side of the windows of each stage in tokens; the first is not used.
        merge_strides: Strides of the three mergings between stages.
        mlp_ratio: Inner width of an MLP as a multiple of its stage's width.
        mbconv_expand_ratio: Inner width of the first stage's blocks, likewise.
        local_conv_size: Kernel size of the convolution inside a transformer block.
        out_chans: Width of the embedding.
    """

    def __init__(
        self,
        *,
        img_size: int = 1024,
        embed_dims: tuple[int, ...] = (64, 128, 160, 320),
        depths: tuple[int, ...] = (2, 2, 6, 2),
        num_heads: tuple[int, ...] = (2, 4, 5, 10),
        window_sizes: tuple[int, ...] = (7, 7, 14, 7),
        merge_strides: tuple[int, ...] = (2, 2, 1),
        mlp_ratio: float = 4.0,
        mbconv_expand_ratio: float = 4.0,
        local_conv_size: int = 3,
        out_chans: int = 256,
    ) -> None:
        super().__init__()
        lengths = [len(embed_dims), len(depths), len(num_heads), len(window_sizes)]
        if lengths != [NUM_STAGES] * 4 or len(merge_strides) != NUM_STAGES - 1:
            raise ValueError(
                "TinyViT has four stages and three mergings, got embed_dims, depths, num_heads, "
                f"window_sizes of {lengths} and {len(merge_strides)} merge_strides"
            )
        self.img_size = img_size
        self.patch_embed = PatchEmbed(embed_dims[0])
        self.layers = nn.ModuleList()
        for stage, dim in enumerate(embed_dims):
            blocks: list[nn.Module] = [
                MBConv(dim, expand_ratio=mbconv_expand_ratio)
                if stage == 0
                else TinyViTBlock(
                    dim,
                    num_heads=num_heads[stage],
                    window_size=window_sizes[stage],
                    mlp_ratio=mlp_ratio,
                    local_conv_size=local_conv_size,
                )
                for _ in range(depths[stage])
            ]
            last = stage == NUM_STAGES - 1
            downsample = (
                None
                if last
                else PatchMerging(dim, embed_dims[stage + 1], stride=merge_strides[stage])
            )
            self.layers.append(Stage(blocks, downsample=downsample))
        self.neck = build_neck(embed_dims[-1], out_chans)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode normalised images.

        Args:
            pixel_values: (B, 3, img_size, img_size).

        Returns:
            (B, out_chans, img_size / 16, img_size / 16).

        Raises:
            InputError: The input does not have that shape.
        """
        check_square_input(pixel_values, self.img_size)
        x = self.patch_embed(pixel_values)
        for stage in self.layers:
            x = stage(x)
        embedding: Tensor = self.neck(x)
        return embedding
