"""The polyphase form of dilated convolutions against the convolutions themselves."""

from __future__ import annotations

import pytest
import torch
from polyphase import PolyphaseConv2d, use_polyphase
from torch import Tensor, nn

from promptseg.models.pocket.backbone import EfficientNetLite2

CHANNELS = 6


def pair(kernel_size: int) -> tuple[nn.Conv2d, PolyphaseConv2d]:
    """A dilated convolution and its polyphase form, with weights of their own but equal."""
    torch.manual_seed(0)
    padding = 2 * (kernel_size // 2)
    made = [
        kind(
            CHANNELS,
            CHANNELS,
            kernel_size,
            padding=padding,
            dilation=2,
            groups=CHANNELS,
            bias=False,
        )
        for kind in (nn.Conv2d, PolyphaseConv2d)
    ]
    made[1].load_state_dict(made[0].state_dict())
    return made[0], made[1]


def outcome(conv: nn.Conv2d, x: Tensor, pull: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and the gradients of the input and of the weight."""
    x = x.clone().requires_grad_()
    y = conv(x)
    (y * pull).sum().backward()
    return y, x.grad, conv.weight.grad


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (2, 4), (6, 2)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_value_and_gradients_are_the_dilated_convolutions(
    kernel_size: int, height: int, width: int, memory_format: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(1)
    x, pull = torch.randn(2, 2, CHANNELS, height, width, generator=generator)
    x = x.contiguous(memory_format=memory_format)
    dilated, polyphase = pair(kernel_size)
    expected = outcome(dilated, x, pull)
    found = outcome(polyphase, x, pull)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_model_keeps_its_parameters_and_its_outputs() -> None:
    torch.manual_seed(0)
    model = EfficientNetLite2().eval()
    pixels = torch.randn(1, 3, 64, 96)
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    dilated = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.dilation == (2, 2)
    }
    with torch.no_grad():
        expected = model(pixels)
    use_polyphase(model)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    exchanged = {n for n, module in model.named_modules() if isinstance(module, PolyphaseConv2d)}
    assert exchanged == dilated
    assert len(exchanged) > 3
    with torch.no_grad():
        for one, other in zip(model(pixels), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
