"""Products with many positions of a map, on CPUs where another library multiplies faster."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .hardware import has_slow_mkl

# Fewer positions are not worth another kernel.
_LEAST_POSITIONS = 256


class PointwiseLinear(nn.Linear):
    """A linear layer for maps; names and results are those of ``nn.Linear``.

    See :func:`pointwise_linear`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., C) to (..., C')."""
        return pointwise_linear(input, self.weight, self.bias)


def pointwise_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map (..., C) to (..., C') by a weight (C', C) and a bias (C'), like ``F.linear``.

    PyTorch multiplies float32 matrices by Intel's MKL. Where oneDNN is faster, on some CPUs of
    other makers, its product is called instead, by the operation that torch.compile uses
    (benchmarks/linear.py times both). Sums may be in another order.
    """
    if not multiplies_by_onednn(input):
        return F.linear(input, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "none")
    return product


def multiplies_by_onednn(input: Tensor) -> bool:
    """Return whether :func:`pointwise_linear` leaves an input (..., C) to oneDNN."""
    return (
        input.device.type == "cpu"
        and input.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # what is exported stays a matrix product
        and input.shape[:-1].numel() >= _LEAST_POSITIONS
        and has_slow_mkl()
        and _has_onednn()
    )


@cache
def _has_onednn() -> bool:
    """Return whether this PyTorch has the product, which it does not promise to keep."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
