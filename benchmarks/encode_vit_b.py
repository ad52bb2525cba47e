"""Time and memory of encoding one 1024-pixel image with SAM ViT-B, beside other code.

    python benchmarks/encode_vit_b.py [--threads 2] [--repeats 3] [--only promptseg]

Every implementation runs in a process of its own, with random weights (which cost as much as
trained ones) and the same number of threads. After one warm-up the median of the repeats counts;
memory is the peak resident set of the whole process, libraries and weights included.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

IMAGE_SIZE = 1024

Encode = Callable[[Tensor], object]


def promptseg() -> Encode:
    """Our encoder."""
    from promptseg.models import create_model

    model = create_model("sam_vit_b")
    return lambda pixels: model.image_encoder(pixels)


def segment_anything() -> Encode:
    """The official code."""
    from segment_anything import build_sam_vit_b

    model = build_sam_vit_b()
    return lambda pixels: model.image_encoder(pixels)


def transformers() -> Encode:
    """Hugging Face's SamModel with its default attention; its default sizes are ViT-B's."""
    from transformers import SamConfig, SamModel

    model = SamModel(SamConfig()).eval()
    return lambda pixels: model.get_image_embeddings(pixels)


IMPLEMENTATIONS: dict[str, Callable[[], Encode]] = {
    "promptseg": promptseg,
    "segment-anything": segment_anything,
    "transformers": transformers,
}


@torch.no_grad()
def measure(name: str, threads: int, repeats: int) -> dict[str, object]:
    """Seconds of each repeat and peak memory in bytes, in this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    encode = IMPLEMENTATIONS[name]()
    pixels = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    encode(pixels)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        encode(pixels)
        seconds.append(time.perf_counter() - start)
    # Linux counts kilobytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"seconds": seconds, "peak": peak}


def measure_apart(name: str, threads: int, repeats: int) -> dict[str, object]:
    """:func:`measure` in a new process."""
    command = [sys.executable, __file__, "--worker", name]
    command += ["--threads", str(threads), "--repeats", str(repeats)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, object] = json.loads(output.splitlines()[-1])
    return result


def print_table(results: dict[str, dict[str, object]]) -> None:
    """Medians and ratios to the official code, or to the first where that was left out."""
    base = results.get("segment-anything", next(iter(results.values())))
    print(f"{'implementation':<18}{'median s':>10}{'of official':>13}{'peak GB':>10}{'of it':>8}")
    for name, result in results.items():
        seconds = statistics.median(result["seconds"])
        time_ratio = seconds / statistics.median(base["seconds"])
        peak_ratio = result["peak"] / base["peak"]
        print(
            f"{name:<18}{seconds:>10.2f}{time_ratio:>13.2f}"
            f"{result['peak'] / 1e9:>10.2f}{peak_ratio:>8.2f}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=IMPLEMENTATIONS, nargs="+", help="leave out the others")
    parser.add_argument("--worker", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.worker, arguments.threads, arguments.repeats)))
        return
    print(f"SAM ViT-B, {IMAGE_SIZE} px, {arguments.threads} threads, PyTorch {torch.__version__}")
    results = {}
    for name in arguments.only or IMPLEMENTATIONS:
        results[name] = measure_apart(name, arguments.threads, arguments.repeats)
    print_table(results)


if __name__ == "__main__":
    main()
