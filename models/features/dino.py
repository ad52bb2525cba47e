"""DINOv2 and DINOv3 features through timm.

Sources: Oquab et al. 2023, "DINOv2"; Darcet et al. 2023, "Vision Transformers Need Registers";
Siméoni et al. 2025, "DINOv3". Weights come in timm's layout, in the original DINOv2 one, or as a
Hugging Face ``Dinov2Model`` or ``Dinov2WithRegistersModel``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import load_strictly, read_state_dict
from ..device import autocast, read_dtype
from ..embedding import ImageEmbedding
from ..errors import InputError, ModelNotFoundError
from ..hub.find import find_weights
from ..preprocess import longest_side_size, to_pixel_values
from .dense import DenseFeatures

if TYPE_CHECKING:
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

# ImageNet's, for pixels in 0..255.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

# What a name for `create_dino` looks like; a tag after a dot names weights and changes no shape.
_NAME = re.compile(
    r"(vit_(?:small|base|large)_patch14_(?:reg4_)?dinov2"
    r"|vit_(?:tiny|small|small_plus|base|large|huge_plus|7b)_patch16_dinov3(?:_qkvb)?)(?:\.\w+)?"
)

# Hugging Face name -> timm's, for what is called otherwise; {n} is the block.
_HUGGING_FACE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.mask_token": "mask_token",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_HUGGING_FACE_BLOCK = {
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "attention.q_proj": "attn.q",
    "attention.k_proj": "attn.k",
    "attention.v_proj": "attn.v",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}


@dataclass(frozen=True)
class DinoConfig:
    """How an image becomes features.

    Attributes:
        input_size: Long side of the model's input in pixels; both sides are rounded to whole
            patches, and position embeddings are interpolated to the grid.
        norm: Tokens after the model's last layer norm, not before it.

    Raises:
        InputError: The size is not positive.
    """

    input_size: int = 518
    norm: bool = True

    def __post_init__(self) -> None:
        if self.input_size < 1:
            raise InputError(f"input_size must be 1 pixel or more, got {self.input_size}")


class DinoFeatures:
    """Dense features of a DINO vision transformer.

    Args:
        model: Of timm, made with ``dynamic_img_size=True``; put in evaluation mode.
        config: How an image becomes features.
        model_id: Name of the model and its weights.
        dtype: What the model runs in; features are float32 in any case.
    """

    def __init__(
        self,
        model: VisionTransformer | Eva,
        *,
        config: DinoConfig | None = None,
        model_id: str = "",
        dtype: str | torch.dtype = "fp32",
    ) -> None:
        self.model = model.eval()
        self.dtype = read_dtype(dtype)
        self.config = config or DinoConfig()
        self._name = model_id

    @property
    def model_id(self) -> str:
        """Name of the model with the settings that its features depend on."""
        norm = "" if self.config.norm else ", before norm"
        return f"{self._name} ({self.config.input_size} px{norm})"

    @torch.inference_mode()
    def extract(self, image: NDArray[np.uint8]) -> DenseFeatures:
        """Features of an image (H, W, 3) uint8 RGB; each cell is a patch."""
        device = next(self.model.parameters()).device
        image_size = (image.shape[0], image.shape[1])
        grid, size = self._input_size(image_size)
        pixels = to_pixel_values(
            image,
            size,
            mean=torch.tensor(PIXEL_MEAN, device=device).view(3, 1, 1),
            std=torch.tensor(PIXEL_STD, device=device).view(3, 1, 1),
            pad_to=size,
        )
        with autocast(device, self.dtype):
            last_block = self.model.forward_intermediates(
                pixels,
                indices=1,
                norm=self.config.norm,
                return_prefix_tokens=True,
                intermediates_only=True,
            )
        # timm's types do not tell what it returns with these options.
        patches, prefix = cast("list[tuple[Tensor, Tensor]]", last_block)[0]
        return DenseFeatures(
            tokens=patches[0].permute(1, 2, 0).float().contiguous(),
            image_size=image_size,
            input_size=size,
            cell_size=(image_size[0] / grid[0], image_size[1] / grid[1]),
            model_id=self.model_id,
            cls=prefix[0, 0].float(),
        )

    def extract_encoded(self, embedding: ImageEmbedding) -> DenseFeatures:
        """Features of an encoded image, computed from its pixels.

        Raises:
            ValueError: The embedding does not keep its image.
        """
        return self.extract(embedding.pixels())

    def _input_size(self, image_size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Grid and size in pixels that come nearest to the image's shape."""
        patch = self.model.patch_embed.patch_size
        scaled = longest_side_size(image_size, self.config.input_size)
        grid = (max(1, round(scaled[0] / patch[0])), max(1, round(scaled[1] / patch[1])))
        return grid, (grid[0] * patch[0], grid[1] * patch[1])


def create_dino(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    config: DinoConfig | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "fp32",
    seed: int = 0,
) -> DinoFeatures:
    """Build an extractor by timm's name of its model.

    Args:
        name: Such as "vit_small_patch14_dinov2", "vit_base_patch14_reg4_dinov2.lvd142m" or
            "vit_small_patch16_dinov3".
        checkpoint: A weights file or folder, or the id of a model on the Hugging Face hub, such
            as "timm/vit_small_patch14_dinov2.lvd142m". None leaves the weights random.
        config: How an image becomes features.
        device: Where the model goes.
        dtype: What it runs in: fp32, bf16 or fp16.
        seed: Of the random weights; the global random state is not touched.

    Raises:
        InputError: There is no such dtype.
        ModelNotFoundError: The name is not that of a DINOv2 or DINOv3 model.
        CheckpointError: The checkpoint is missing, broken or another model's.
    """
    read_dtype(dtype)
    match = _NAME.fullmatch(name)
    if match is None:
        raise ModelNotFoundError(
            f"no DINO model is called {name!r}; there are vit_{{small,base,large}}_patch14_"
            "dinov2, the same with reg4_dinov2, and vit_{small,base,large,...}_patch16_dinov3"
        )
    # Weights first: a wrong path should not cost the building of a large model.
    state = None if checkpoint is None else read_state_dict(find_weights(checkpoint))
    # Importing timm takes seconds, and presets without it must not pay for that.
    import timm

    if not timm.is_model(match[1]):
        raise ModelNotFoundError(
            f"the installed timm {timm.__version__} has no {match[1]!r}: `pip install -U timm`"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = cast(
            "VisionTransformer | Eva",
            timm.create_model(match[1], num_classes=0, dynamic_img_size=True),
        )
    if state is not None and checkpoint is not None:
        load_strictly(model, to_timm_layout(state), source=checkpoint, name=name)
    return DinoFeatures(model.to(device), config=config, model_id=name, dtype=dtype)


def to_timm_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename DINOv2 weights of other layouts to timm's; what is not known is left as it is."""
    renamed = {_rename(name): tensor for name, tensor in state.items()}
    renamed.pop("mask_token", None)  # only its pre-training used it
    for name in list(renamed):
        stem, found, kind = name.partition(".attn.q.")
        parts = [f"{stem}.attn.{part}.{kind}" for part in "qkv"]
        if found and all(part in renamed for part in parts):
            renamed[f"{stem}.attn.qkv.{kind}"] = torch.cat([renamed.pop(part) for part in parts])
    if "register_tokens" in renamed and "pos_embed" in renamed and "cls_token" in renamed:
        # With registers, timm gives positions to patches alone; the class token's is a constant.
        positions = renamed.pop("pos_embed")
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
        renamed["reg_token"] = renamed.pop("register_tokens")
    return renamed


def _rename(name: str) -> str:
    """Timm's name of a Hugging Face tensor."""
    block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", name)
    if block is None:
        return _replace_start(name, _HUGGING_FACE)
    return f"blocks.{block[1]}.{_replace_start(block[2], _HUGGING_FACE_BLOCK)}"


def _replace_start(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name
