"""Time linear layers by Intel's MKL, which is PyTorch's own way, and by oneDNN.

    python benchmarks/linear.py [--threads 2]

The shapes are those of pocket's decoder and of SAM ViT-B's encoder, the latter in the blocks that
it computes them in. Printed are billions of multiplications and additions in a second, the best of
twenty, and their ratio.
"""

from __future__ import annotations

import argparse
import time
from unittest.mock import patch

import torch
from torch import Tensor

from promptseg.models import linear
from promptseg.models.hardware import has_slow_mkl
from promptseg.models.linear import PointwiseLinear

# Positions, input and output channels.
SHAPES = ((6144, 128, 256), (24576, 64, 128), (98304, 32, 32), (1024, 768, 3072), (1024, 3072, 768))


def rate(layer: PointwiseLinear, x: Tensor, *, onednn: bool) -> float:
    """Billions of operations in a second."""
    seconds = []
    with patch.object(linear, "has_slow_mkl", lambda: onednn):
        for _ in range(20):
            start = time.perf_counter()
            layer(x)
            seconds.append(time.perf_counter() - start)
    return 2 * x.shape[0] * layer.weight.numel() / min(seconds) / 1e9


@torch.no_grad()
def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    print(f"oneDNN is used on this CPU: {has_slow_mkl()}; PyTorch {torch.__version__}")
    print(f"{'positions':>10}{'in':>6}{'out':>6}{'MKL':>7}{'oneDNN':>8}{'ratio':>7}")
    for positions, n_in, n_out in SHAPES:
        layer, x = PointwiseLinear(n_in, n_out), torch.randn(positions, n_in)
        mkl, onednn = (rate(layer, x, onednn=by) for by in (False, True))
        print(
            f"{positions:>10}{n_in:>6}{n_out:>6}{mkl:>7.0f}{onednn:>8.0f}{onednn / mkl:>7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
