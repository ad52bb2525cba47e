"""Linear layers by oneDNN against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from promptseg.models import hardware, linear
from promptseg.models.linear import PointwiseLinear

AVX512 = "avx512f avx512bw avx512vl avx512dq"


@pytest.fixture
def by_onednn(monkeypatch) -> list[tuple[int, ...]]:
    """Shapes of the inputs that oneDNN multiplies, on a CPU whose MKL is slow."""
    shapes = []
    original = torch.ops.mkldnn._linear_pointwise

    def spy(x, *others):
        shapes.append(tuple(x.shape))
        return original(x, *others)

    monkeypatch.setattr(linear, "has_slow_mkl", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", spy)
    return shapes


def pair(bias: bool = True) -> tuple[PointwiseLinear, nn.Linear]:
    torch.manual_seed(0)
    ours, reference = PointwiseLinear(24, 40, bias=bias), nn.Linear(24, 40, bias=bias)
    reference.load_state_dict(ours.state_dict())
    return ours, reference


@pytest.mark.parametrize("shape", [(256,), (257,), (2, 17, 19), (3, 16, 16), (1, 1000)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_it_is_the_same_product(by_onednn, shape, bias):
    ours, reference = pair(bias)
    x = torch.randn(*shape, 24)
    found = ours(x)
    assert by_onednn == [(*shape, 24)]
    torch.testing.assert_close(found, reference(x), rtol=1e-5, atol=1e-5)
    strided = torch.randn(*shape[:-1], 24, shape[-1]).transpose(-1, -2)
    torch.testing.assert_close(ours(strided), reference(strided), rtol=1e-5, atol=1e-5)


def test_elsewhere_pytorch_multiplies_itself(by_onednn, monkeypatch):
    ours, reference = pair()
    x = torch.randn(300, 24)
    torch.testing.assert_close(ours(x), reference(x), rtol=0, atol=0)  # gradients are wanted
    with torch.no_grad():
        ours(x[:255])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert ours(x).dtype == torch.bfloat16
        graph = torch.export.export(ours, (x,)).graph
        assert not any("mkldnn" in str(node.target) for node in graph.nodes)
        monkeypatch.setattr(linear, "has_slow_mkl", lambda: False)
        torch.testing.assert_close(ours(x), reference(x), rtol=0, atol=0)
        monkeypatch.setattr(linear, "has_slow_mkl", lambda: True)
        monkeypatch.setattr(linear, "_has_onednn", lambda: False)  # a PyTorch without the product
        torch.testing.assert_close(ours(x), reference(x), rtol=0, atol=0)
    assert not by_onednn


@pytest.mark.parametrize(
    ("maker", "flags", "slow"),
    [
        ("AuthenticAMD", f"fpu {AVX512} sha", True),
        ("AuthenticAMD", "fpu avx2", False),
        ("GenuineIntel", AVX512, False),
    ],
)
def test_the_makers_of_cpus_with_slow_mkl(maker, flags, slow, tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nvendor_id\t: {maker}\nflags\t\t: {flags}\n")
    monkeypatch.setattr(hardware, "_CPUINFO", path)
    assert hardware.has_slow_mkl() == slow
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "none")
    assert not hardware.has_slow_mkl()
