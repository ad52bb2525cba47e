"""The ConvNeXt block against timm's, with the same weights."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from timm.models.convnext import ConvNeXtBlock
from torch import nn

from promptseg.models.pocket.blocks import ConvNextBlock


@pytest.mark.parametrize(("kernel_size", "expansion"), [(7, 2), (5, 3), (3, 1)])
@torch.no_grad()
def test_the_block_equals_timms(kernel_size: int, expansion: int) -> None:
    torch.manual_seed(0)
    ours = ConvNextBlock(12, kernel_size=kernel_size, expansion=expansion)
    for parameter in ours.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    # Without its layer scale, which is of one value for each channel.
    reference = ConvNeXtBlock(
        12,
        kernel_size=kernel_size,
        mlp_ratio=expansion,
        act_layer=nn.ReLU,
        norm_layer=partial(nn.LayerNorm, eps=ours.norm.eps),
        ls_init_value=None,
    )
    names = {"dwconv": "conv_dw", "norm": "norm", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2"}
    state = {}
    for name, value in ours.state_dict().items():
        part, _, kind = name.rpartition(".")
        state[f"{names[part]}.{kind}"] = value
    reference.load_state_dict(state)
    x = torch.randn(2, 12, 9, 5)
    expected = reference(x)
    assert (expected - x).std() > 0.1  # the branch adds something
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_memory_format_does_not_matter() -> None:
    torch.manual_seed(0)
    block = ConvNextBlock(12, kernel_size=5, expansion=2)
    x = torch.randn(1, 12, 6, 7)
    found = block(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, block(x), rtol=1e-4, atol=1e-5)
