"""Shrunken SAMs with random weights, and independent references that carry the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from segment_anything import modeling as official
from torch import nn

from promptseg.models.sam.build import (
    SamTinyViTConfig,
    SamViTConfig,
    build_sam_tiny_vit,
    build_sam_vit,
)
from promptseg.models.sam.sam import Sam

# Windows that need padding (grid 7, window 3), a window as large as the grid, and a grid that
# the windows tile, each with global blocks; widths and depths differ.
SHRUNKEN_VITS = {
    "padded-windows": SamViTConfig(
        image_size=112,
        embed_dim=48,
        depth=3,
        num_heads=3,
        window_size=3,
        global_attn_indexes=(1,),
        prompt_embed_dim=32,
        decoder_num_heads=4,
        decoder_mlp_dim=64,
        iou_head_hidden_dim=24,
    ),
    "one-window": SamViTConfig(
        image_size=80,
        embed_dim=32,
        depth=2,
        num_heads=4,
        window_size=5,
        global_attn_indexes=(1,),
        mlp_ratio=2.0,
        prompt_embed_dim=64,
        decoder_depth=1,
        decoder_num_heads=2,
        decoder_mlp_dim=48,
        iou_head_hidden_dim=64,
    ),
    "tiled-windows": SamViTConfig(
        image_size=64,
        patch_size=8,
        embed_dim=24,
        depth=4,
        num_heads=2,
        window_size=4,
        global_attn_indexes=(0, 3),
        prompt_embed_dim=32,
        decoder_depth=3,
        decoder_num_heads=4,
        decoder_mlp_dim=32,
        iou_head_hidden_dim=16,
    ),
}

# At 80 pixels the stages have grids of 20, 10, 5, 5: windows that pad, tile and equal the grid.
SHRUNKEN_TINY_VIT = SamTinyViTConfig(
    image_size=80,
    embed_dims=(8, 16, 24, 32),
    depths=(1, 2, 1, 2),
    num_heads=(1, 2, 3, 4),
    window_sizes=(7, 3, 5, 4),
    merge_strides=(2, 2, 1),
    prompt_embed_dim=32,
    decoder_num_heads=4,
    decoder_mlp_dim=64,
    iou_head_hidden_dim=32,
)


def randomise(module: nn.Module, *, seed: int) -> None:
    """Give every parameter and running statistic a value that no initialisation has."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif tensor.ndim == 1:
            tensor.add_(0.2 * noise)
        elif "rel_pos" in name or "pos_embed" in name or "attention_biases" in name:
            tensor.copy_(0.5 * noise)
        else:
            tensor.add_(0.05 * noise)


def build_official(config: SamViTConfig) -> official.Sam:
    """The segment-anything package's model of the same sizes."""
    grid = config.image_size // config.patch_size
    model = official.Sam(
        image_encoder=official.ImageEncoderViT(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            out_chans=config.prompt_embed_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=config.window_size,
            global_attn_indexes=config.global_attn_indexes,
        ),
        prompt_encoder=official.PromptEncoder(
            embed_dim=config.prompt_embed_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_in_chans,
        ),
        mask_decoder=official.MaskDecoder(
            transformer_dim=config.prompt_embed_dim,
            transformer=official.TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.prompt_embed_dim,
                num_heads=config.decoder_num_heads,
                mlp_dim=config.decoder_mlp_dim,
            ),
            num_multimask_outputs=config.num_multimask_outputs,
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_hidden_dim,
        ),
    )
    return model.eval()


@dataclass(frozen=True)
class Pair:
    """Our model and the official one with the same weights."""

    ours: Sam
    official: official.Sam
    config: SamViTConfig


def build_pair(config: SamViTConfig, *, seed: int = 0) -> Pair:
    """Build both models with the same random weights."""
    reference = build_official(config)
    randomise(reference, seed=seed)
    ours = build_sam_vit(config).eval()
    ours.load_state_dict(reference.state_dict())
    return Pair(ours, reference, config)


@pytest.fixture(scope="session", params=list(SHRUNKEN_VITS))
def pair(request: pytest.FixtureRequest) -> Pair:
    """Every shrunken ViT SAM beside its reference."""
    return build_pair(SHRUNKEN_VITS[request.param])


@pytest.fixture(scope="session")
def padded_pair() -> Pair:
    """One shrunken ViT SAM beside its reference."""
    return build_pair(SHRUNKEN_VITS["padded-windows"])


@pytest.fixture(scope="session")
def tiny_vit_sam() -> Sam:
    """A shrunken MobileSAM."""
    model = build_sam_tiny_vit(SHRUNKEN_TINY_VIT)
    randomise(model, seed=1)
    return model.eval()


@pytest.fixture(scope="session")
def shrunken_models(tiny_vit_sam: Sam) -> dict[str, Callable[[], Sam]]:
    """Name -> builder of a small model of every architecture with public weights."""
    return {
        **{name: partial(build_sam_vit, config) for name, config in SHRUNKEN_VITS.items()},
        "tiny-vit": partial(build_sam_tiny_vit, SHRUNKEN_TINY_VIT),
    }


@pytest.fixture(scope="session")
def detector_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model type -> the saved folder of a shrunken detector."""
    # Here, as other tests need not wait for transformers.
    from .tiny_detectors import save_grounding_dino, save_owlv2, save_sam3

    root = tmp_path_factory.mktemp("detectors")
    saves = {"grounding-dino": save_grounding_dino, "owlv2": save_owlv2, "sam3": save_sam3}
    return {name: save(root / name) for name, save in saves.items()}
