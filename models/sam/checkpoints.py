"""Converting published SAM weights to the official layout, and recognising whose they are."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import CheckpointError

# MobileSAM's checkpoint still contains the ImageNet classifier that its encoder was trained with;
# SAM does not use it.
_UNUSED_PREFIXES = ("image_encoder.norm_head.", "image_encoder.head.")

_HF_MARK = "vision_encoder."
_HF_POSITIONS = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)
_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

# Patterns of Hugging Face names, and our names; the first match is applied.
_HF_RULES = (
    (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^vision_encoder\.layers\.(\d+)\.layer_norm([12])\.", r"image_encoder.blocks.\1.norm\2."),
    (r"^vision_encoder\.layers\.(\d+)\.", r"image_encoder.blocks.\1."),
    (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^vision_encoder\.", "image_encoder."),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
    (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
    (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
    (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
    (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
    (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
    (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
    (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
    (
        r"^mask_decoder\.transformer\.layer_norm_final_attn\.",
        "mask_decoder.transformer.norm_final_attn.",
    ),
    (
        r"^mask_decoder\.transformer\.layers\.(\d+)\.layer_norm(\d)\.",
        r"mask_decoder.transformer.layers.\1.norm\2.",
    ),
)
_HF_MLP = re.compile(
    r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)"
    r"(proj_in|proj_out|layers\.(\d+))\.(weight|bias)$"
)

# A key, its last dimension (None for any), and the model that has it.
_SIGNATURES = (
    ("image_encoder.pos_embed", 768, "sam_vit_b"),
    ("image_encoder.pos_embed", 1024, "sam_vit_l"),
    ("image_encoder.pos_embed", 1280, "sam_vit_h"),
    ("image_encoder.layers.0.blocks.0.conv1.c.weight", None, "sam_vit_t"),
    ("image_encoder.high_res_neck.0.0.weight", None, "sam_pocket"),
)


def to_official_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published weights to the official names, which are those of this package.

    Args:
        state: Weights in the layout of the official files, of Hugging Face's ``SamModel`` or of
            MobileSAM.

    Returns:
        Name -> tensor; names of other layouts are kept, so that strict loading reports them.

    Raises:
        CheckpointError: Two tensors that should be identical differ.
    """
    if any(key.startswith(_HF_MARK) for key in state):
        state = _from_hugging_face(state)
    return {key: t for key, t in state.items() if not key.startswith(_UNUSED_PREFIXES)}


def suggest_model(state: Mapping[str, Tensor], *, wanted: str) -> str:
    """Say which model the weights look like and what to do, for an error message.

    Args:
        state: Name -> tensor, with official names.
        wanted: Name of the model that was requested.

    Returns:
        A clause; "" if the weights look like those of the requested model or of no known one.
    """
    if any(key.startswith("image_encoder.trunk.") for key in state):
        return (
            "it looks like SAM 2, which is another architecture; give a checkpoint of SAM, or use "
            'create_model("sam2.1_hiera_...")'
        )
    if any(key.startswith("mask_decoder.hf_") for key in state):
        return "it looks like HQ-SAM, whose decoder differs; give a checkpoint of SAM"
    for key, last_dim, name in _SIGNATURES:
        if key in state and last_dim in (None, state[key].shape[-1] if state[key].ndim else None):
            if name == wanted:
                return ""
            return f'it looks like {name}: use create_model("{name}", checkpoint=...)'
    return ""


def _from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key in _HF_POSITIONS:
            # One matrix under two names; files have either or both.
            known = renamed.get(_POSITIONS)
            if known is not None and not torch.equal(known, tensor):
                raise CheckpointError(
                    f"{' and '.join(_HF_POSITIONS)} differ, expected one matrix under both "
                    "names; download the checkpoint again"
                )
            renamed[_POSITIONS] = tensor
            continue
        renamed[_official_name(key, state)] = tensor
    return renamed


def _official_name(key: str, state: Mapping[str, Tensor]) -> str:
    mlp = _HF_MLP.match(key)
    if mlp:
        prefix, layer, inner, kind = mlp.groups()
        if layer == "proj_in":
            number = 0
        elif layer == "proj_out":
            inner_layers = f"{prefix}layers."
            number = 1 + sum(k.startswith(inner_layers) and k.endswith(".weight") for k in state)
        else:
            number = int(inner) + 1
        return f"{prefix}layers.{number}.{kind}"
    for pattern, replacement in _HF_RULES:
        renamed, count = re.subn(pattern, replacement, key)
        if count:
            return renamed
    return key
