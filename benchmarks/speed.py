"""Time SAMs beside other implementations and as exported models, or time the pocket preset.

    python benchmarks/speed.py [--models sam_vit_b sam_vit_t sam_pocket] [--only "ours fp32" onnx]
        [--threads 2] [--repeats 3] [--exported outputs/speed]
    python benchmarks/speed.py --pocket [--threads 2]

Every implementation encodes the same picture of 1024 x 1024 pixels (pocket scales it to 512) and
decodes 1, 16 and 256 boxes on it, one mask each, in blocks of 32, in a process of its own. Times
are medians of the repeats after a warm-up; memory is the process's peak resident set, libraries
and weights included. Ratios are to the last row. What has to be exported is exported first, to a
folder that is kept for the next run.
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
from functools import partial
from pathlib import Path

import numpy as np
import torch
from speed_models import NAMES, SIZE, build, export_for_timing

BOXES = (1, 16, 256)
POCKET_REPEATS = 9
COLD_REPEATS = 3


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one warm-up call."""
    run()
    return statistics.median(seconds_of(run) for _ in range(repeats))


@torch.no_grad()
def work(model: str, name: str, folder: Path, repeats: int) -> None:
    """Time one implementation and print a line of JSON; runs in its own process."""
    torch.manual_seed(0)
    timed = build(name, model, folder)
    corners = np.random.default_rng(0).uniform(0, SIZE / 2, (max(BOXES), 2))
    boxes = np.concatenate([corners, corners + SIZE / 4], axis=1).astype(np.float32)
    row = {"encode": median_seconds(timed.encode, repeats)}
    if timed.decode is not None:
        embedding = timed.encode()
        timed.decode(embedding, boxes[:16])
        for count in BOXES:
            run = partial(timed.decode, embedding, boxes[:count])
            row[str(count)] = statistics.median(seconds_of(run) for _ in range(repeats))
    # ru_maxrss is in kilobytes on Linux and in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    row["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps(row), flush=True)


def run_worker(model: str, name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Have a process time one implementation."""
    command = [sys.executable, __file__, "--worker", model, name]
    command += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
    command += ["--exported", str(arguments.exported)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def print_table(model: str, rows: dict[str, dict[str, float]]) -> None:
    """Print times and memory as a table, each with its ratio to the last row."""
    base = list(rows.values())[-1]
    heads = {"encode": "encode s", **{str(n): f"{n} boxes s" for n in BOXES}, "peak": "peak GB"}
    print(f"\n| {model} | " + " | ".join(f"{head} | ratio" for head in heads.values()) + " |")
    print("|---" * (1 + 2 * len(heads)) + "|")
    for name, row in rows.items():
        cells = []
        for key in heads:
            if key not in row:
                cells += ["", ""]
                continue
            value = row[key] / 1e9 if key == "peak" else row[key]
            ratio = f"{row[key] / base[key]:.2f}" if key in base else ""
            cells += [f"{value:.3f}" if value < 1 else f"{value:.2f}", ratio]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def measure_pocket(threads: int) -> None:
    """Print the times of the pocket preset on a photograph of 640 x 480 pixels.

    A cold start is the whole command, from the start of its process to its end.
    """
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
    every = sorted({name for names in NAMES.values() for name in names})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--only", choices=every, nargs="+", help="time only these")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--exported", type=Path, default=Path("outputs/speed"))
    parser.add_argument("--pocket", action="store_true", help="time the pocket preset instead")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.pocket:
        measure_pocket(arguments.threads)
        return
    if arguments.worker:
        model, name = arguments.worker
        work(model, name, arguments.exported, arguments.repeats)
        return
    chosen = {
        model: [name for name in NAMES[model] if not arguments.only or name in arguments.only]
        for model in arguments.models
    }
    for model, names in chosen.items():
        if any(name.startswith(("onnx", "openvino")) for name in names):
            export_for_timing(model, arguments.exported)
    print(f"{SIZE} x {SIZE} pixels, {arguments.threads} threads, PyTorch {torch.__version__}")
    for model, names in chosen.items():
        print_table(model, {name: run_worker(model, name, arguments) for name in names})


if __name__ == "__main__":
    main()
