"""The pocket models, trained together on one backbone whose early stages are frozen."""

from __future__ import annotations

import torch
from features import View
from text_examples import TextExample, text_grid
from torch import Tensor, nn

from promptseg.models.pocket.backbone import DEEP_STAGES
from promptseg.models.pocket.sam import BACKBONE_PREFIX, PocketSam
from promptseg.models.pocket.text_head import TextHead

DEEP_PREFIXES = tuple(f"{BACKBONE_PREFIX}blocks.{stage}." for stage in DEEP_STAGES)


def trained_parameters(model: PocketSam) -> dict[str, Tensor]:
    """All tensors by name, except the backbone's frozen early stages and its ImageNet head."""
    return {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if name.startswith(DEEP_PREFIXES) or not name.startswith(BACKBONE_PREFIX)
    }


class PocketModels(nn.Module):
    """The mask model and the text head on one backbone, for joint training.

    Args:
        sam: The mask model, with ImageNet weights in its backbone.
        text_head: The text head, which reads the backbone's last two maps.
    """

    def __init__(self, sam: PocketSam, text_head: TextHead) -> None:
        super().__init__()
        self.sam = sam
        self.text_head = text_head

    def backbone_maps(self, view: View) -> tuple[Tensor, ...]:
        """All four backbone maps of a view."""
        stride4, stride8 = (f.contiguous(memory_format=torch.channels_last) for f in view.features)
        return stride4, stride8, *self.sam.image_encoder.backbone.deep(stride8)

    def score(
        self, maps: tuple[Tensor, ...], view: View, example: TextExample
    ) -> tuple[Tensor, Tensor]:
        """The text head's logits for an example's phrases: (P, h, w) and (P,)."""
        rows, columns = text_grid(view)
        deep = torch.cat(maps[2:], dim=1)[..., :rows, :columns]
        logits: tuple[Tensor, Tensor] = self.text_head(deep, example.text)
        return logits
