"""DINOv2 and DINOv3 features through timm.

Sources: Oquab et al. 2023, "DINOv2"; Darcet et al. 2023, "Vision Transformers Need Registers";
Siméoni et al. 2025, "DINOv3". Weights may be in timm's layout, in the original one of DINOv2, or
those of a Hugging Face ``Dinov2Model`` or ``Dinov2WithRegistersModel``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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
INPUT_SIZE = 518  # of DINOv2's own training

# Names that `create_dino` accepts; a tag after a dot only says which weights they are.
_NAME = re.compile(
    r"(vit_(?:small|base|large)_patch14_(?:reg4_)?dinov2"
    r"|vit_(?:tiny|small|small_plus|base|large|huge_plus|7b)_patch16_dinov3(?:_qkvb)?)(?:\.\w+)?"
)

# Hugging Face name -> timm name, where they differ.
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


class DinoFeatures:
    """Dense features of a DINO vision transformer.

    Args:
        model: A timm model made with ``dynamic_img_size=True``; it is put in evaluation mode.
        input_size: Long side of the model's input in pixels. Both sides are rounded to whole
            patches, and position embeddings are interpolated to the grid.
        model_id: Name of the model and its weights.
        dtype: Type that the model computes in; features are always float32.

    Raises:
        InputError: The size is not positive, or there is no such dtype.
    """

    def __init__(
        self,
        model: VisionTransformer | Eva,
        *,
        input_size: int = INPUT_SIZE,
        model_id: str = "",
        dtype: str | torch.dtype = "auto",
    ) -> None:
        if input_size < 1:
            raise InputError(f"input_size must be 1 pixel or more, got {input_size}")
        self.model = model.eval()
        self.dtype = read_dtype(dtype, next(model.parameters()).device)
        self.input_size = input_size
        self._name = model_id

    @property
    def model_id(self) -> str:
        """Name of the model, with the input size that its features depend on."""
        return f"{self._name} ({self.input_size} px)"

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
                norm=True,
                intermediates_only=True,
            )
        # timm's types do not say what it returns with these options.
        patches = cast("list[Tensor]", last_block)[0]
        return DenseFeatures(
            tokens=patches[0].permute(1, 2, 0).float().contiguous(),
            image_size=image_size,
            input_size=size,
            cell_size=(image_size[0] / grid[0], image_size[1] / grid[1]),
            model_id=self.model_id,
        )

    def extract_encoded(self, embedding: ImageEmbedding) -> DenseFeatures:
        """Features of an encoded image, computed from its pixels.

        Raises:
            ValueError: The embedding does not keep its image.
        """
        return self.extract(embedding.pixels())

    def _input_size(self, image_size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """The grid that is nearest to the image's shape, and its size in pixels."""
        patch = self.model.patch_embed.patch_size
        scaled = longest_side_size(image_size, self.input_size)
        grid = (max(1, round(scaled[0] / patch[0])), max(1, round(scaled[1] / patch[1])))
        return grid, (grid[0] * patch[0], grid[1] * patch[1])


def create_dino(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    input_size: int = INPUT_SIZE,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "auto",
    seed: int = 0,
) -> DinoFeatures:
    """Build a feature extractor by the timm name of its model.

    Args:
        name: A name such as "vit_small_patch14_dinov2", "vit_base_patch14_reg4_dinov2.lvd142m" or
            "vit_small_patch16_dinov3".
        checkpoint: A weights file or folder, or the id of a model on the Hugging Face hub, such
            as "timm/vit_small_patch14_dinov2.lvd142m". None leaves the weights random.
        input_size: Long side of the model's input in pixels.
        device: Device to put the model on.
        dtype: Type that it computes in: auto, fp32, bf16 or fp16.
        seed: Seed of the random weights; the global random state is not touched.

    Raises:
        InputError: The size is not positive, or there is no such dtype.
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
    # Weights first: with a wrong path there is no need to build a large model.
    state = None if checkpoint is None else read_state_dict(find_weights(checkpoint))
    # Importing timm takes seconds, which users of other models should not pay for.
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
    return DinoFeatures(model.to(device), input_size=input_size, model_id=name, dtype=dtype)


def to_timm_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename DINOv2 weights of other layouts to timm's; unknown names are kept."""
    renamed = {_rename(name): tensor for name, tensor in state.items()}
    renamed.pop("mask_token", None)  # used in pre-training only
    for name in list(renamed):
        stem, found, kind = name.partition(".attn.q.")
        parts = [f"{stem}.attn.{part}.{kind}" for part in "qkv"]
        if found and all(part in renamed for part in parts):
            renamed[f"{stem}.attn.qkv.{kind}"] = torch.cat([renamed.pop(part) for part in parts])
    if "register_tokens" in renamed and "pos_embed" in renamed and "cls_token" in renamed:
        # With registers, timm gives positions to patches only; the class token's is a constant.
        positions = renamed.pop("pos_embed")
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
        renamed["reg_token"] = renamed.pop("register_tokens")
    return renamed


def _rename(name: str) -> str:
    """The timm name of a Hugging Face tensor."""
    block = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", name)
    if block is None:
        return _replace_start(name, _HUGGING_FACE)
    return f"blocks.{block[1]}.{_replace_start(block[2], _HUGGING_FACE_BLOCK)}"


def _replace_start(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name
