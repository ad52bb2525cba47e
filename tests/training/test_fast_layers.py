"""The fast forms against the layers that they stand for."""

from __future__ import annotations

import pytest
import torch
from fast_layers import DepthwiseConv2d, deep_maps, depthwise, use_fast_depthwise
from torch import Tensor, nn
from torch.nn import functional as F

from promptseg.models.pocket.backbone import EfficientNetLite2
from promptseg.models.pocket.blocks import ConvNextBlock

CHANNELS = 6


def gradients(y: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    pull = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad((y * pull).sum(), inputs)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_depthwise_convolution_and_its_gradients(
    kernel: int, dilation: int, memory_format: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, CHANNELS, 7, 9, generator=generator)
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    weight = torch.randn(CHANNELS, 1, kernel, kernel, generator=generator).requires_grad_()
    padding = dilation * (kernel // 2)
    expected = F.conv2d(x, weight, None, 1, padding, dilation, CHANNELS)
    found = depthwise(x, weight, dilation)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    pairs = zip(gradients(found, x, weight), gradients(expected, x, weight), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_the_weights_gradient_is_exact_enough() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, CHANNELS, 8, 8, generator=generator).bfloat16()
    weight = torch.randn(CHANNELS, 1, 3, 3, generator=generator).requires_grad_()
    found = depthwise(x, weight)
    assert found.dtype == torch.bfloat16
    (gradient,) = gradients(found, weight)
    assert gradient.dtype == torch.float32
    (expected,) = gradients(F.conv2d(x.float(), weight, None, 1, 1, 1, CHANNELS), weight)
    torch.testing.assert_close(gradient, expected, rtol=0.02, atol=0.2)


def test_a_model_keeps_its_parameters_and_its_outputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        ConvNextBlock(CHANNELS, kernel_size=7, expansion=2), nn.Conv2d(CHANNELS, 4, 3)
    )
    x = torch.randn(1, CHANNELS, 10, 12)
    before = dict(model.named_parameters())
    with torch.no_grad():
        expected = model(x)
    use_fast_depthwise(model)
    assert isinstance(model[0].dwconv, DepthwiseConv2d)
    assert type(model[1]) is nn.Conv2d
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is value for name, value in before.items())
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite2:
    """With statistics and scales of its norms that differ from the initial ones."""
    torch.manual_seed(0)
    model = EfficientNetLite2().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.normal_(0, 0.1)
    return model


def test_the_deep_maps_are_the_backbones(backbone) -> None:
    x = torch.randn(1, 48, 8, 12, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = backbone.deep(x)
        found = deep_maps(backbone, x)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_the_deep_maps_have_the_backbones_gradients_but_for_filters(backbone) -> None:
    x = torch.randn(1, 48, 8, 12, generator=torch.Generator().manual_seed(3))
    names = ("blocks.5.2.conv_pw.weight", "blocks.4.1.bn2.weight", "blocks.6.0.bn3.bias")
    weights = [dict(backbone.named_parameters())[name] for name in names]
    expected = gradients(backbone.deep(x)[1], *weights)
    found = gradients(deep_maps(backbone, x)[1], *weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3 * float(other.abs().max()))
    filters = dict(backbone.named_parameters())["blocks.5.2.conv_dw.weight"]
    assert deep_maps(backbone, x)[1].requires_grad
    (none,) = torch.autograd.grad(deep_maps(backbone, x)[1].sum(), [filters], allow_unused=True)
    assert none is None
