"""Which object each place of an image belongs to: its box, of whatever class.

Every cell tells the box of the object that it is part of, as in Tian et al. 2019, "FCOS", and how
far that box can be relied on. Read at the places where a phrase is found, the boxes tell the
phrase's objects apart (:mod:`promptseg.pipeline.prompters.objects`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint import without_initialising
from ..embedding import ImageFeatures
from ..errors import CheckpointError
from .blocks import ConvNextBlock

OBJECTS_FILE = "objects_pocket.safetensors"
STRIDE = 8  # pixels of the model input that a cell spans
REACH_UNIT = 32.0  # pixels of the model input that a distance of exp(0) spans
_LARGEST_EXPONENT = 4.0  # distances lie between 0.6 and 1,750 pixels


class ObjectHead(nn.Module):
    """Boxes from the maps that the mask decoder and the text head read.

    Args:
        deep_dim: Width of the backbone's last two maps together.
        embed_dim: Width of the image embedding.
        high_res_dim: Width of the map at stride 8.
        dim: Inner width.
        depth: ConvNeXt blocks at stride 8.
    """

    def __init__(
        self,
        *,
        deep_dim: int = 472,
        embed_dim: int = 128,
        high_res_dim: int = 64,
        dim: int = 80,
        depth: int = 3,
    ) -> None:
        super().__init__()
        self.deep = nn.Conv2d(deep_dim, dim, kernel_size=1)
        self.coarse = nn.Conv2d(embed_dim, dim, kernel_size=1)
        self.fine = nn.Conv2d(high_res_dim, dim, kernel_size=1)
        self.before = ConvNextBlock(dim, kernel_size=7, expansion=2)
        self.blocks = nn.Sequential(
            *(ConvNextBlock(dim, kernel_size=7, expansion=2) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.distances = nn.Linear(dim, 4)
        self.confidence = nn.Linear(dim, 1)
        nn.init.normal_(self.distances.weight, std=0.01)
        nn.init.zeros_(self.distances.bias)

    def forward(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """Read an image's features.

        Args:
            features: Of the image encoder, with the backbone's maps: (1, C, h, w) at stride 16.

        Returns:
            Boxes (2h, 2w, 4) XYXY in pixels of the model input, not clipped to it, and logits
            (2h, 2w) of each box's IoU with that of the cell's own object.
        """
        return self.read(
            torch.cat(tuple(features.backbone_features[-2:]), dim=1),
            features.image_embeddings,
            features.high_res_features[0],
        )

    def read(self, deep: Tensor, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """Like :meth:`forward`, from the backbone's last two maps, the embedding and stride 8."""
        cells = self.before(self.deep(deep) + self.coarse(coarse))
        cells = F.interpolate(cells, size=fine.shape[-2:], mode="bilinear") + self.fine(fine)
        cells = self.norm(self.blocks(cells)[0].permute(1, 2, 0)).float()
        reach = self.distances(cells).clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
        left, top, right, bottom = (reach.exp() * REACH_UNIT).unbind(-1)
        y = (torch.arange(len(cells), device=cells.device)[:, None] + 0.5) * STRIDE
        x = (torch.arange(cells.shape[1], device=cells.device) + 0.5) * STRIDE
        boxes = torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)
        return boxes, self.confidence(cells)[..., 0]


def load_object_head(path: Path) -> ObjectHead:
    """Read a file of ``training/train_objects.py``.

    Raises:
        CheckpointError: The file is missing or another one.
    """
    try:
        state = {name: value.float() for name, value in load_file(path).items()}
        depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
        with without_initialising():
            head = ObjectHead(
                deep_dim=state["deep.weight"].shape[1],
                embed_dim=state["coarse.weight"].shape[1],
                high_res_dim=state["fine.weight"].shape[1],
                dim=state["norm.weight"].shape[0],
                depth=depth,
            )
        head.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, RuntimeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: expected the weights of the object head, found none ({error}): "
            "reinstall promptseg"
        ) from error
    return head
