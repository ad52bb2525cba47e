"""The arithmetic of networks: names, autocast inside a call only, and what a device can do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from promptseg.models import device as precision
from promptseg.models import hardware
from promptseg.models.device import (
    autocast,
    best_dtype,
    check_support,
    read_device,
    read_dtype,
)
from promptseg.models.errors import InputError
from promptseg.models.sam.layers import LayerNorm2d

CPU = torch.device("cpu")
HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture
def ask_again() -> Iterator[None]:
    """Forget what devices could do, before and after."""
    precision._runs.cache_clear()
    yield
    precision._runs.cache_clear()


@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        (("fp32", "float32", torch.float32), torch.float32),
        (("bf16", "bfloat16", torch.bfloat16), torch.bfloat16),
        (("fp16", "float16", torch.float16), torch.float16),
    ],
)
def test_names(names, dtype):
    assert {read_dtype(name) for name in names} == {dtype}


@pytest.mark.parametrize("name", ["fp64", "half", "", torch.float64, torch.int8])
def test_unknown_names(name):
    with pytest.raises(InputError, match=r"no dtype .* to run in; use auto, fp32, bf16 or fp16"):
        read_dtype(name)


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_devices(device):
    assert read_device(device).type == "cpu"


@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "cpu:x", None, 1.5])
def test_devices_that_are_not_there_are_refused_with_a_remedy(device):
    with pytest.raises(InputError, match=r"cannot run on the device .* here \(.+\); use cpu") as e:
        read_device(device)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_ends_with_the_block(dtype):
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with autocast(CPU, dtype):
        assert layer(x).dtype == dtype
        assert layer.weight.dtype == torch.float32
    assert layer(x).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_what_the_cpu_can_do(dtype):
    check_support(CPU, dtype)
    assert not torch.is_autocast_enabled("cpu")


def test_a_device_without_autocast_is_refused_with_a_remedy(ask_again):
    with pytest.raises(InputError, match="bfloat16 on meta here; use dtype='fp32' or try 'fp16'"):
        check_support(torch.device("meta"), torch.bfloat16)
    check_support(torch.device("meta"), torch.float32)


def test_a_build_without_the_kernels_is_refused(ask_again, monkeypatch):
    def missing(*_: object) -> None:
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr(precision.F, "conv2d", missing)
    with pytest.raises(InputError, match="float16 on cpu here; use dtype='fp32' or try 'bf16'"):
        check_support(CPU, torch.float16)


def test_a_build_that_leaves_autocast_off_is_refused(ask_again):
    """As for an unknown type: PyTorch warns and goes on in full precision."""
    with pytest.raises(InputError, match="float64 on cpu"):
        check_support(CPU, torch.float64)


def test_layer_norm_of_values_whose_squares_half_precision_cannot_hold():
    x = torch.tensor([-600.0, 0.0, 600.0]).view(1, 3, 1, 1)
    assert torch.allclose(LayerNorm2d(3)(x.half()), LayerNorm2d(3)(x), atol=1e-3)


OLD_AVX512 = "fpu sse2 avx2 avx512f avx512dq avx512bw avx512vl"


@pytest.mark.parametrize(
    ("content", "units"),
    [
        (f"processor\t: 0\nflags\t\t: {OLD_AVX512}\n", ""),
        (f"processor\t: 0\nflags\t\t: {OLD_AVX512} avx512_bf16 xsave\n", "AVX512-BF16"),
        (f"flags\t\t: {OLD_AVX512} avx512_bf16 amx_bf16 amx_tile amx_int8\n", "AMX-BF16"),
        ("flags\t\t: avx2 avx512_bf16\n", ""),
        ("Features\t: fp asimd bf16\n", ""),
        ("", ""),
    ],
)
def test_units_for_bfloat16_are_read_from_the_kernel(tmp_path, monkeypatch, content, units):
    path = tmp_path / "cpuinfo"
    path.write_text(content)
    monkeypatch.setattr(hardware, "_CPUINFO", path)
    assert hardware.bf16_units() == units


def test_no_units_are_known_where_the_kernel_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "none")
    assert hardware.bf16_units() == ""


@pytest.mark.parametrize(("units", "dtype"), [("AMX-BF16", torch.bfloat16), ("", torch.float32)])
def test_auto_follows_the_cpu(monkeypatch, units, dtype):
    monkeypatch.setattr(precision, "bf16_units", lambda: units)
    assert best_dtype(CPU) == read_dtype("auto") == read_dtype("auto", "cpu") == dtype


@pytest.mark.parametrize(
    ("capability", "dtype"), [((9, 0), torch.bfloat16), ((7, 5), torch.float32)]
)
def test_auto_follows_the_gpu(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert best_dtype(torch.device("cuda:0")) == dtype
    assert best_dtype(torch.device("mps")) == torch.float32


def test_a_build_that_cannot_run_it_computes_in_full(ask_again, monkeypatch):
    def missing(*_: object) -> None:
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(precision, "bf16_units", lambda: "AVX512-BF16")
    monkeypatch.setattr(precision.F, "conv2d", missing)
    assert best_dtype(CPU) == torch.float32
