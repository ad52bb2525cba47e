"""Time SAM ViT-B's image encoder against other implementations, or time the pocket preset.

    python benchmarks/speed.py [--threads 2] [--repeats 3] [--only promptseg]
    python benchmarks/speed.py --pocket [--threads 2]

ViT-B: every implementation encodes a 1024-pixel image in its own process, with random weights
(which cost as much as trained ones) and the same number of threads. The time is the median of the
repeats after one warm-up; memory is the process's peak resident set, including libraries and
weights. The processes take turns, so that a slowdown of the machine affects all of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from torch import Tensor

IMAGE_SIZE = 1024
POCKET_REPEATS = 9
COLD_REPEATS = 3

Encode = Callable[[Tensor], object]


def promptseg() -> Encode:
    """Our encoder."""
    from promptseg.models import create_model

    model = create_model("sam_vit_b")
    return model.encode_image


def segment_anything() -> Encode:
    """The official implementation."""
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
def work(name: str, threads: int) -> None:
    """Warm up, then encode once for every line on standard input; runs in its own process.

    Prints one line of JSON each time: seconds, and the peak memory so far in bytes.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    encode = IMPLEMENTATIONS[name]()
    pixels = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    encode(pixels)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        encode(pixels)
        seconds = time.perf_counter() - start
        # ru_maxrss is in kilobytes on Linux and in bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        print(json.dumps({"seconds": seconds, "peak": peak}), flush=True)


class Worker:
    """A process that runs :func:`work`."""

    def __init__(self, name: str, threads: int) -> None:
        command = [sys.executable, __file__, "--worker", name, "--threads", str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("Popen gave no pipes")
        self.input, self.output = self.process.stdin, self.process.stdout
        self.seconds: list[float] = []
        self.peak = 0
        self._read_until("ready")

    def _read_until(self, start: str) -> str:
        """The first line that begins with ``start``; libraries may print others."""
        for line in self.output:
            if line.startswith(start):
                return line
        raise SystemExit(f"a worker stopped with exit code {self.process.wait()}")

    def encode(self) -> None:
        """Have the process encode once, and record its time and memory."""
        self.input.write("\n")
        self.input.flush()
        result = json.loads(self._read_until("{"))
        self.seconds.append(result["seconds"])
        self.peak = result["peak"]

    def close(self) -> None:
        """End the process."""
        self.input.close()
        self.process.wait()


def print_table(workers: dict[str, Worker]) -> None:
    """Print medians, and ratios to the official code or, if that was left out, to the first."""
    base = workers.get("segment-anything", next(iter(workers.values())))
    print(f"{'implementation':<18}{'median s':>10}{'ratio':>8}{'peak GB':>10}{'ratio':>8}")
    for name, worker in workers.items():
        seconds = statistics.median(worker.seconds)
        time_ratio = seconds / statistics.median(base.seconds)
        print(
            f"{name:<18}{seconds:>10.2f}{time_ratio:>8.2f}"
            f"{worker.peak / 1e9:>10.2f}{worker.peak / base.peak:>8.2f}"
        )


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one warm-up call."""
    run()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_pocket(threads: int) -> None:
    """Print the times of the pocket preset on a photograph of 640 x 480 pixels.

    A cold start is the whole command, from the start of its process to its end.
    """
    torch.set_num_threads(threads)
    import numpy as np
    from PIL import Image
    from skimage import data

    from promptseg import load

    photograph = Image.fromarray(data.chelsea()).resize((640, 480))
    image = np.asarray(photograph)
    pipe = load("pocket")
    embedding = pipe.segmenter.encode_image(image)
    dtype = pipe.segmenter.dtype
    print(f"pocket, 640 x 480, {threads} threads, {dtype}, PyTorch {torch.__version__}")
    for name, run in (
        ("one phrase, warm", lambda: pipe(image, text="cat")),
        ("one click, warm", lambda: pipe(image, points=[(320, 240)])),
        ("encode the image", lambda: pipe.segmenter.encode_image(image)),
        (
            "one click on an encoded image",
            lambda: pipe.segmenter.decode(
                embedding, point_coords=[[(320, 240)]], point_labels=[[1]]
            ),
        ),
    ):
        print(f"{name:<34}{median_seconds(run, POCKET_REPEATS):>8.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/cat.png"
        photograph.save(path)
        command = [sys.executable, "-m", "promptseg.apps.cli.main", "segment", path, "-t", "cat"]
        command += ["--out", f"{folder}/out"]

        def start_cold() -> None:
            subprocess.run(command, check=True, capture_output=True)

        seconds = median_seconds(start_cold, COLD_REPEATS)
        print(f"{'promptseg segment, cold start':<34}{seconds:>8.3f} s")


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=IMPLEMENTATIONS, nargs="+", help="measure only these")
    parser.add_argument("--worker", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--pocket", action="store_true", help="time the pocket preset instead")
    arguments = parser.parse_args()
    if arguments.pocket:
        measure_pocket(arguments.threads)
        return
    if arguments.worker:
        work(arguments.worker, arguments.threads)
        return
    print(f"SAM ViT-B, {IMAGE_SIZE} px, {arguments.threads} threads, PyTorch {torch.__version__}")
    workers = {name: Worker(name, arguments.threads) for name in arguments.only or IMPLEMENTATIONS}
    for _ in range(arguments.repeats):
        for worker in workers.values():
            worker.encode()
    for worker in workers.values():
        worker.close()
    print_table(workers)


if __name__ == "__main__":
    main()
