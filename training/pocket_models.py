"""The pocket models as they are trained: together, on one backbone with frozen early stages."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch
from fast_layers import deep_maps, use_fast_depthwise
from safetensors.torch import load_file
from torch import Tensor, nn

from promptseg.models.embedding import ImageFeatures
from promptseg.models.pocket.backbone import DEEP_STAGES, EfficientNetLite2, imagenet_state_dict
from promptseg.models.pocket.grounder import TEXT_FILE
from promptseg.models.pocket.sam import (
    BACKBONE_PREFIX,
    PocketSam,
    PocketSamConfig,
    build_pocket_sam,
)
from promptseg.models.pocket.text_head import TextHead

SAM_FILE = "sam_pocket.safetensors"
# Part of the models -> the file of its weights.
FILES = {"sam.": SAM_FILE, "text_head.": TEXT_FILE}
DEEP_PREFIXES = tuple(f"sam.{BACKBONE_PREFIX}blocks.{stage}." for stage in DEEP_STAGES)


class PocketModels(nn.Module):
    """The models on one backbone, as they are trained together.

    Args:
        config: Sizes of the mask model.
        dtype: Of the backbone and the text head, under autocast; the rest is float32.
    """

    def __init__(self, config: PocketSamConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.sam: PocketSam = build_pocket_sam(config)
        backbone = self.sam.image_encoder.backbone
        backbone.load_state_dict(imagenet_state_dict())
        backbone.eval()
        self.text_head = TextHead()
        encoder = self.sam.image_encoder
        parts: tuple[nn.Module, ...] = (encoder.neck, encoder.high_res_neck)
        for part in (*parts, self.sam.mask_decoder, self.text_head):
            use_fast_depthwise(part)
        self.sam.to(memory_format=torch.channels_last)
        for name, value in self.named_parameters():
            value.requires_grad_(name in self.trained() and not name.endswith("conv_dw.weight"))
        self._early: EfficientNetLite2 | None = None

    def trained(self) -> dict[str, Tensor]:
        """Everything but the backbone's frozen early stages and its ImageNet head, by name."""
        frozen = f"sam.{BACKBONE_PREFIX}"
        return {
            name: value
            for name, value in self.state_dict(keep_vars=True).items()
            if name.startswith(DEEP_PREFIXES) or not name.startswith(frozen)
        }

    def load_weights(self, folder: Path) -> None:
        """Start from the weights in a folder; parts without a file there stay as they are."""
        own = self.state_dict(keep_vars=True)
        for prefix, name in FILES.items():
            if not (folder / name).is_file():
                continue
            for key, value in load_file(folder / name).items():
                if not key.startswith("known."):
                    own[prefix + key].data.copy_(value)

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self.text_head.peak_weight.device

    def early(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """The backbone's frozen first two maps of (1, 3, H, W)."""
        if self._early is None:
            copy = deepcopy(self.sam.image_encoder.backbone)
            copy.fold_batch_norms()
            copy.to(memory_format=torch.channels_last)
            object.__setattr__(self, "_early", copy)  # no part of the models' own state
        early = self._early
        if early is None:
            raise RuntimeError("the early stages are missing")
        with torch.no_grad():
            first, second = early.shallow(pixel_values)
        return first, second

    def maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """All four maps of a normalised scene (1, 3, H, W), sides multiples of 32."""
        pixels = pixel_values.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            stride4, stride8 = self.early(pixels)
            middle, last = deep_maps(self.sam.image_encoder.backbone, stride8)
        return stride4.float(), stride8.float(), middle.float(), last.float()

    def autocast(self) -> torch.autocast:
        """Lower precision where it is asked for."""
        enabled = self.dtype != torch.float32
        dtype = self.dtype if enabled else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=enabled)

    def score(
        self, maps: tuple[Tensor, ...], extent: tuple[int, int], text: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The text head's logits (P, h, w) and (P,) of phrases (P, 384).

        Args:
            maps: Of :meth:`maps`.
            extent: Rows and columns of cells that are not padding.
            text: MiniLM embeddings.
        """
        deep = torch.cat(maps[2:], dim=1)[..., : extent[0], : extent[1]]
        with self.autocast():
            cells = self.text_head.embed(deep)
        local, presence = self.text_head.score(cells.float(), text)
        return local, presence

    def embed(self, maps: tuple[Tensor, ...]) -> ImageFeatures:
        """What the mask decoder and the object head read."""
        return self.sam.image_encoder.embed(maps)
