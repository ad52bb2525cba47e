"""The backbone's late stages and depthwise convolutions in forms that train fast on a CPU.

The sums are those of the models' own layers: only their order, their precision and what is
differentiated differ.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from promptseg.models.pocket.backbone import DEEP_STAGES, EfficientNetLite2


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1 whose input gradient is one more such convolution.

    PyTorch's own input gradient of a dilated depthwise convolution takes many times longer than
    the convolution itself, and its weight gradient in bfloat16 longer than in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        padding = dilation * (weight.shape[-1] // 2)
        return F.conv2d(x, weight.to(x.dtype), None, 1, padding, dilation, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].to(x.dtype)
        dilation = ctx.dilation
        padding = dilation * (weight.shape[-1] // 2)
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3).to(gradient.dtype)
            to_x = F.conv2d(gradient, turned, None, 1, padding, dilation, len(weight))
        if ctx.needs_input_grad[1]:
            _, to_weight, _ = torch.ops.aten.convolution_backward(
                gradient.float(),
                x.float(),
                weight,
                None,
                [1, 1],
                [padding, padding],
                [dilation, dilation],
                False,
                [0, 0],
                len(weight),
                [False, True, False],
            )
        return to_x, to_weight, None


def depthwise(x: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """Convolve (B, C, H, W) with (C, 1, k, k), k odd, at stride 1; sizes stay."""
    result: Tensor = _Depthwise.apply(x, weight, dilation)
    return result


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution of stride 1 that trains fast; see :func:`depthwise`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        y = depthwise(x, self.weight)
        return y if self.bias is None else y + self.bias.to(y.dtype)[:, None, None]


def use_fast_depthwise(model: nn.Module) -> None:
    """Exchange the undilated depthwise convolutions; the weights stay the same objects."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is not nn.Conv2d or child.groups != child.in_channels:
                continue
            if child.groups == 1 or child.stride != (1, 1) or child.dilation != (1, 1):
                continue
            exchanged = DepthwiseConv2d(
                child.in_channels,
                child.out_channels,
                cast(tuple[int, int], child.kernel_size),
                padding=cast(tuple[int, int], child.padding),
                groups=child.groups,
                bias=child.bias is not None,
            )
            exchanged.weight, exchanged.bias = child.weight, child.bias
            setattr(module, name, exchanged)


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the frozen statistics of its norm merged in."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return convolution.weight * scale[:, None, None, None], norm.bias - mean * scale


def _block(block: nn.Module, x: Tensor) -> Tensor:
    """One inverted residual, norms merged; the depthwise filters are not differentiated."""
    part = cast(Any, block)
    weight, bias = _folded(part.conv_pw, part.bn1)
    y = F.relu6(F.conv2d(x, weight, bias))
    filters: nn.Conv2d = part.conv_dw
    if filters.stride == (1, 1):
        # The filters stay; their norm's scale, which is learned, multiplies what they give.
        norm: nn.BatchNorm2d = part.bn2
        scale = norm.weight * torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
        shift = norm.bias - cast(Tensor, norm.running_mean) * scale
        y = depthwise(y, filters.weight.detach(), filters.dilation[0])
        y = torch.addcmul(shift.to(y.dtype)[:, None, None], y, scale.to(y.dtype)[:, None, None])
    else:
        y = part.bn2(filters(y))
    weight, bias = _folded(part.conv_pwl, part.bn3)
    y = F.conv2d(F.relu6(y), weight, bias)
    return x + y if part.has_skip else y


def deep_maps(backbone: EfficientNetLite2, stride8: Tensor) -> tuple[Tensor, Tensor]:
    """As ``EfficientNetLite2.deep`` in evaluation mode."""
    x, middle = stride8, stride8
    for stage in DEEP_STAGES:
        for block in cast(nn.Sequential, backbone.blocks[stage]):
            x = _block(block, x)
        if stage == DEEP_STAGES[1]:
            middle = x
    return middle, x
