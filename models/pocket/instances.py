"""Where objects have their centres, and where from each place its own object's centre lies.

Source: Cheng et al. 2020, "Panoptic-DeepLab": a heat map of centres and a field of offsets, of no
class. Here they are read at the places that a phrase is found at, to tell its objects apart.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from ..embedding import ImageFeatures
from ..errors import CheckpointError
from .blocks import ConvNextBlock

INSTANCES_FILE = "instances_pocket.safetensors"
STRIDE = 8  # pixels of the model input that a cell spans
OFFSET_UNIT = 64.0  # pixels of the model input that an offset of 1 spans


class InstanceHead(nn.Module):
    """Centres and offsets from the maps that the mask decoder reads.

    Args:
        embed_dim: Width of the image embedding.
        high_res_dim: Width of the map at stride 8.
        dim: Inner width.
    """

    def __init__(self, *, embed_dim: int = 128, high_res_dim: int = 64, dim: int = 64) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(embed_dim, dim, kernel_size=1)
        self.fine = nn.Conv2d(high_res_dim, dim, kernel_size=1)
        self.blocks = nn.Sequential(
            ConvNextBlock(dim, kernel_size=5, expansion=2),
            ConvNextBlock(dim, kernel_size=5, expansion=2),
        )
        self.norm = nn.LayerNorm(dim)
        self.centre = nn.Linear(dim, 1)
        self.offset = nn.Linear(dim, 2)
        nn.init.constant_(self.centre.bias, -3.0)

    def forward(self, features: ImageFeatures) -> tuple[Tensor, Tensor]:
        """Read an image's features.

        Args:
            features: Of the image encoder: an embedding (1, C, h, w) and maps at strides 8 and 4.

        Returns:
            Logits (2h, 2w) that a cell is a centre, and offsets (2, 2h, 2w) from each cell to its
            object's centre as (y, x) in pixels of the model input.
        """
        coarse = F.interpolate(
            self.coarse(features.image_embeddings), scale_factor=2.0, mode="bilinear"
        )
        cells = self.blocks(coarse + self.fine(features.high_res_features[0]))[0]
        cells = self.norm(cells.permute(1, 2, 0))
        return self.centre(cells)[..., 0], self.offset(cells).permute(2, 0, 1) * OFFSET_UNIT


def load_instance_head(path: Path) -> InstanceHead:
    """Read a file of ``training/train_pocket.py``.

    Raises:
        CheckpointError: The file is missing or another one.
    """
    try:
        state = {name: value.float() for name, value in load_file(path).items()}
        head = InstanceHead(
            embed_dim=state["coarse.weight"].shape[1],
            high_res_dim=state["fine.weight"].shape[1],
            dim=state["norm.weight"].shape[0],
        )
        head.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, RuntimeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: expected the weights of the instance head, found none ({error}): "
            "reinstall promptseg"
        ) from error
    return head


@torch.no_grad()
def centres(logits: Tensor, *, threshold: float = 0.0, reach: int = 2) -> Tensor:
    """Peaks of a centre map, highest first.

    Args:
        logits: (h, w).
        threshold: Least logit of a peak.
        reach: Cells to each side that a peak must be the highest of.

    Returns:
        Rows and columns (N, 2).
    """
    highest = F.max_pool2d(logits[None, None], 2 * reach + 1, 1, reach)[0, 0]
    found = torch.nonzero((logits == highest) & (logits > threshold))
    order = logits[found[:, 0], found[:, 1]].argsort(descending=True)
    return found[order]
