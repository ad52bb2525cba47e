"""Time linear layers as matrix products and as convolutions of 1 x 1, which are the same.

    python benchmarks/linear.py [--threads 2]

The shapes are those of pocket's decoder and of SAM ViT-B's encoder. Printed are billions of
multiplications and additions in a second of processor time of all threads, the best of ten, and
their ratio.
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
SHAPES = ((6144, 128, 256), (24576, 64, 128), (98304, 32, 32), (4096, 768, 3072), (4096, 3072, 768))


def rate(layer: PointwiseLinear, x: Tensor, *, convolution: bool) -> float:
    """Billions of operations in a second."""
    seconds = []
    with patch.object(linear, "has_slow_mkl", lambda: convolution):
        for _ in range(10):
            start = time.process_time()
            layer(x)
            seconds.append(time.process_time() - start)
    return 2 * x.shape[0] * layer.weight.numel() / min(seconds) / 1e9


@torch.no_grad()
def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    print(f"convolutions are used on this CPU: {has_slow_mkl()}; PyTorch {torch.__version__}")
    print(f"{'positions':>10}{'in':>6}{'out':>6}{'product':>9}{'convolution':>13}{'ratio':>7}")
    for positions, n_in, n_out in SHAPES:
        layer, x = PointwiseLinear(n_in, n_out), torch.randn(positions, n_in)
        product = rate(layer, x, convolution=False)
        convolution = rate(layer, x, convolution=True)
        print(
            f"{positions:>10}{n_in:>6}{n_out:>6}{product:>9.0f}{convolution:>13.0f}"
            f"{convolution / product:>7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
