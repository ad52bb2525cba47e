"""Building blocks that several parts of the pocket model share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..linear import PointwiseLinear


class ConvNextBlock(nn.Module):
    """Depthwise convolution, layer norm and a two-layer MLP, around a residual."""

    def __init__(self, dim: int, *, kernel_size: int, expansion: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.pwconv1 = PointwiseLinear(dim, expansion * dim)
        self.pwconv2 = PointwiseLinear(expansion * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        y = self.dwconv(x).permute(0, 2, 3, 1)
        y = self.pwconv2(F.relu(self.pwconv1(self.norm(y)), inplace=True))
        return x + y.permute(0, 3, 1, 2)
