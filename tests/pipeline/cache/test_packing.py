"""Values come back from a file as they were: numbers, types, the order of axes in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptseg.pipeline.cache.packing import pack, unpack

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Inner:
    maps: tuple[tuple[Tensor, Tensor], ...]
    name: str


@dataclass(frozen=True)
class Outer:
    tensor: Tensor
    array: NDArray[np.uint8]
    sizes: tuple[int, float]
    flag: bool
    inner: Inner


def example() -> Outer:
    torch.manual_seed(0)
    return Outer(
        tensor=torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last),
        array=np.arange(12, dtype=np.uint8).reshape(3, 4)[:, ::2],
        sizes=(3, 0.1),
        flag=True,
        inner=Inner(((torch.randn(2, 3).bfloat16(), torch.tensor([True, False])),) * 2, "a b"),
    )


def test_everything_comes_back() -> None:
    value = example()
    found = unpack(pack(value, "x"), Outer, "x", CPU)
    assert torch.equal(found.tensor, value.tensor)
    assert found.tensor.is_contiguous(memory_format=torch.channels_last)
    assert not found.tensor.is_contiguous()
    np.testing.assert_array_equal(found.array, value.array)
    assert found.array.dtype == np.uint8
    assert (found.sizes, found.flag, found.inner.name) == ((3, 0.1), True, "a b")
    for one, other in zip(found.inner.maps, value.inner.maps, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(6, 2, 3), (1, 1, 4), (0, 3), ()])
def test_the_order_of_axes_in_memory_comes_back(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape)
    turned = tensor.permute(tuple(reversed(range(tensor.ndim))))
    found = unpack(pack(turned, ""), Tensor, "", CPU)
    assert torch.equal(found, turned)
    assert found.permute(tuple(reversed(range(found.ndim)))).is_contiguous()


def test_another_value_and_damaged_ones_are_refused() -> None:
    content = pack(example(), "x")
    with pytest.raises(ValueError, match="of another"):
        unpack(content, Outer, "y", CPU)
    with pytest.raises(ValueError, match="maps"):
        unpack(content, Inner, "x", CPU)
    for cut in (0, 5, 100, len(content) - 1):
        with pytest.raises(ValueError, match=r"."):
            unpack(content[:cut], Outer, "x", CPU)
    damaged = bytearray(content)
    damaged[-2] ^= 1
    with pytest.raises(ValueError, match="checksum"):
        unpack(bytes(damaged), Outer, "x", CPU)


def test_what_cannot_be_kept_is_told() -> None:
    with pytest.raises(TypeError, match="set cannot be kept"):
        pack({1}, "x")
