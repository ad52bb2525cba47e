"""Configurations of the published SAM models, and building models from them.

Each model is described by a JSON file in ``models/configs``, which is read into one of these
dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from .image_encoder import ImageEncoderViT
from .mask_decoder import MaskDecoder
from .prompt_encoder import PromptEncoder
from .sam import PIXEL_MEAN, PIXEL_STD, Sam
from .tiny_vit import TinyViT
from .transformer import TwoWayTransformer


@dataclass(frozen=True, kw_only=True)
class SamConfig:
    """Settings that all SAMs share; those of the image encoder are in the subclasses.

    Attributes:
        image_size: Side of the square model input in pixels.
        patch_size: Side of a cell of the embedding in pixels of the input.
        prompt_embed_dim: Width of the image and the prompt embeddings.
        mask_in_chans: Inner width of the prompt encoder's mask path.
        decoder_depth: Two-way blocks of the mask decoder.
        decoder_num_heads: Attention heads of the mask decoder.
        decoder_mlp_dim: Inner width of the mask decoder's MLPs.
        num_multimask_outputs: Number of masks for an ambiguous prompt, besides the single one.
        iou_head_depth: Layers of the IoU head.
        iou_head_hidden_dim: Inner width of the IoU head.
        pixel_mean: Mean of R, G, B in 0..255.
        pixel_std: Standard deviation of R, G, B in 0..255.
    """

    image_size: int = 1024
    patch_size: int = 16
    prompt_embed_dim: int = 256
    mask_in_chans: int = 16
    decoder_depth: int = 2
    decoder_num_heads: int = 8
    decoder_mlp_dim: int = 2048
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int = 256
    pixel_mean: tuple[float, ...] = PIXEL_MEAN
    pixel_std: tuple[float, ...] = PIXEL_STD


@dataclass(frozen=True, kw_only=True)
class SamViTConfig(SamConfig):
    """A SAM with a plain vision transformer (vit_b, vit_l, vit_h).

    Attributes:
        embed_dim: Width of the encoder's tokens.
        depth: Number of blocks.
        num_heads: Attention heads of a block.
        mlp_ratio: Inner width of an MLP as a multiple of ``embed_dim``.
        window_size: Side of the attention windows in tokens.
        global_attn_indexes: Indices of the blocks that attend over the whole grid.
    """

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    mlp_ratio: float = 4.0
    window_size: int = 14


@dataclass(frozen=True, kw_only=True)
class SamTinyViTConfig(SamConfig):
    """A SAM with a TinyViT (MobileSAM). Each tuple has one entry per stage.

    Attributes:
        embed_dims: Widths of the stages.
        depths: Numbers of blocks of the stages.
        num_heads: Attention heads of the stages.
        window_sizes: Sides of the stages' attention windows in tokens.
        merge_strides: Strides between the stages.
        mlp_ratio: Inner width of an MLP as a multiple of its stage's width.
        mbconv_expand_ratio: Inner width of the first stage's blocks, likewise.
        local_conv_size: Kernel of the convolution inside a transformer block.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...]
    merge_strides: tuple[int, ...]
    mlp_ratio: float = 4.0
    mbconv_expand_ratio: float = 4.0
    local_conv_size: int = 3


def build_sam_vit(config: SamViTConfig) -> Sam:
    """Build a SAM with a plain vision transformer, with random weights."""
    encoder = ImageEncoderViT(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        out_chans=config.prompt_embed_dim,
        window_size=config.window_size,
        global_attn_indexes=config.global_attn_indexes,
    )
    return _around(encoder, config)


def build_sam_tiny_vit(config: SamTinyViTConfig) -> Sam:
    """Build a SAM with a TinyViT (MobileSAM), with random weights."""
    encoder = TinyViT(
        img_size=config.image_size,
        embed_dims=config.embed_dims,
        depths=config.depths,
        num_heads=config.num_heads,
        window_sizes=config.window_sizes,
        merge_strides=config.merge_strides,
        mlp_ratio=config.mlp_ratio,
        mbconv_expand_ratio=config.mbconv_expand_ratio,
        local_conv_size=config.local_conv_size,
        out_chans=config.prompt_embed_dim,
    )
    return _around(encoder, config)


def _around(image_encoder: nn.Module, config: SamConfig) -> Sam:
    grid = config.image_size // config.patch_size
    return Sam(
        image_encoder=image_encoder,
        prompt_encoder=PromptEncoder(
            embed_dim=config.prompt_embed_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_in_chans,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=config.prompt_embed_dim,
            transformer=TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.prompt_embed_dim,
                num_heads=config.decoder_num_heads,
                mlp_dim=config.decoder_mlp_dim,
            ),
            num_multimask_outputs=config.num_multimask_outputs,
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_hidden_dim,
        ),
        image_size=config.image_size,
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
    )
