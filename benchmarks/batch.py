"""Batches on this machine: images a second by the number of workers, and a worker's memory.

    python benchmarks/batch.py [FOLDER] [--workers 1 2 3]
    python benchmarks/batch.py --memory 1 12 50

FOLDER holds pictures; without one, parts of scikit-image's photographs are taken. The first form
times whole batches, Ray's start left out, and computes from them what clusters would do. The second
prints the peak memory of one worker for square pictures of so many million pixels.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from cache import make_pictures
from peak_memory import peak_memory
from PIL import Image

from promptseg import Query, batch
from promptseg.apps.batch.cluster import ENVIRONMENT
from promptseg.apps.batch.work import Work
from promptseg.apps.batch.worker import Worker


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--pictures", type=int, default=120, help="how many are made")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--text", default="cat")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--gpus-per-worker", type=float, default=0.0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--memory", type=int, nargs="+", help="million pixels")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(worker_peak(given.preset, given.text, given.one))
    elif given.memory:
        print("| million pixels | GB of a worker at most |")
        print("|---|---|")
        for millions in given.memory:
            command = [sys.executable, __file__, "--one", str(millions), "--preset", given.preset]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"| {millions} | {int(done.stdout) / 1e9:.2f} |")
    else:
        with tempfile.TemporaryDirectory() as work:
            folder = given.folder or make_pictures(Path(work) / "pictures", given.pictures)
            tell_speeds(folder, Path(work), given)


def tell_speeds(folder: Path, work: Path, given: argparse.Namespace) -> None:
    """Run a batch with each number of workers, all in one Ray, and print images a second."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    # One CPU more than workers: reading and writing hardly needs any.
    ray.init(num_cpus=max(given.workers) + 1, log_to_driver=False, logging_level=logging.ERROR)
    print("| workers | images | seconds | from first to last file | images a second |")
    print("|---|---|---|---|---|")
    speeds = []
    for workers in given.workers:
        seen: list[tuple[float, int]] = []
        cluster = batch.Cluster(
            workers=workers, gpus_per_worker=given.gpus_per_worker, batch_size=given.batch_size
        )
        summary = batch.segment(
            folder,
            work / f"out{workers}",
            given.text,
            preset=given.preset,
            cluster=cluster,
            progress=partial(note, seen),
        )
        seconds, images = steady(seen)
        speeds.append(images / seconds)
        print(
            f"| {workers} | {summary.images} | {summary.seconds:.1f} | {seconds:.1f} "
            f"| {speeds[-1]:.2f} |",
            flush=True,
        )
    ray.shutdown()
    print(f"\nCPUs of this machine: {os.cpu_count()}. Computed from the fastest worker, not run:\n")
    best = max(speed / workers for speed, workers in zip(speeds, given.workers, strict=True))
    print("| workers, each with CPUs or a GPU of its own | a million images | images a second |")
    print("|---|---|---|")
    for workers in (8, 64, 512):
        hours = 1e6 / (best * workers) / 3600
        print(f"| {workers} | {hours:.1f} h | {best * workers:.0f} |")


def note(seen: list[tuple[float, int]], done: int, total: int) -> None:
    """Keep when so many images were done."""
    seen.append((time.perf_counter(), done))


def steady(seen: Sequence[tuple[float, int]]) -> tuple[float, int]:
    """Return the seconds between the first and the last file of results, and images meanwhile."""
    first = next(i for i, (_, done) in enumerate(seen) if done)
    last = next(i for i, (_, done) in enumerate(seen) if done == seen[-1][1])
    if first == last:
        return seen[-1][0] - seen[0][0], seen[-1][1]
    return seen[last][0] - seen[first][0], seen[last][1] - seen[first][1]


def worker_peak(preset: str, text: str, millions: int) -> int:
    """Return the bytes of a worker that segments two pictures, at its peak."""
    import pyarrow as pa

    side = int((millions * 1e6) ** 0.5)
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 255, (side // 16 + 1,) * 2 + (3,), np.uint8)
        path = Path(folder) / "picture.jpg"
        Image.fromarray(noise).resize((side, side)).save(path)
        rows = [{"id": str(i), "uri": str(path)} for i in range(2)]
        worker = Worker(Work(Query(text, min_presence=0), models={"preset": preset}))
        found = worker(pa.Table.from_pylist(rows)).to_pylist()
    if any(row["error"] for row in found):
        raise SystemExit(json.dumps(found[0]["error"]))
    return peak_memory()


if __name__ == "__main__":
    main()
