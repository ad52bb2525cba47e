"""Linear layers that are applied at many positions of a map, on CPUs where that can be faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .hardware import has_slow_mkl

# Fewer positions are not worth another kernel.
_LEAST_POSITIONS = 256
# From a batch of this many on, PyTorch gives convolutions to oneDNN also with a single thread.
_BATCH = 16


class PointwiseLinear(nn.Linear):
    """A linear layer for maps; names and results are those of ``nn.Linear``.

    See :func:`pointwise_linear`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., C) to (..., C')."""
        return pointwise_linear(input, self.weight, self.bias)


def pointwise_linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map (..., C) to (..., C') by a weight (C', C) and a bias (C'), like ``F.linear``.

    PyTorch multiplies float32 matrices by Intel's MKL, which does not use AVX-512 on all CPUs of
    others. Its convolutions are oneDNN's, which does, and a convolution of 1 x 1 is the same
    product (benchmarks/linear.py times both). Sums may be in another order.
    """
    if not _by_convolution(input):
        return F.linear(input, weight, bias)
    positions = input.shape[:-1].numel()
    batch = _BATCH if positions % _BATCH == 0 else 1
    x = input.reshape(batch, positions // batch, 1, -1).permute(0, 3, 1, 2)
    y = F.conv2d(x, weight[:, :, None, None], bias)
    return y.permute(0, 2, 3, 1).reshape(*input.shape[:-1], -1)


def _by_convolution(input: Tensor) -> bool:
    return (
        input.device.type == "cpu"
        and input.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # what is exported stays a matrix product
        and input.shape[:-1].numel() >= _LEAST_POSITIONS
        and has_slow_mkl()
    )
