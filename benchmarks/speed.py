"""Time SAMs beside other implementations and as exported models, or time the pocket preset.

    python benchmarks/speed.py [--models sam_vit_b sam_vit_t sam_pocket] [--only "ours fp32" onnx]
        [--threads 2] [--repeats 3] [--folder outputs/speed] [--again]
    python benchmarks/speed.py --pocket [--threads 2]

Every implementation encodes the same picture of 1024 x 1024 pixels (pocket scales it to 512) and
decodes 1, 16 and 256 boxes on it, one mask each, in blocks of 32, in a process of its own. Times
are medians of the repeats after a warm-up; memory is the process's peak resident set, libraries and
weights included. Ratios are to the first row of a model. "ours compiled" has its image encoder
compiled by torch.compile.

Each row is printed as soon as it is measured, and kept in the folder: what was measured with the
same threads, repeats and versions is not measured again, unless --again is given. A row that fails
says why, and the others go on. What has to be exported is exported first, to the same folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from peak_memory import peak_memory
from speed_models import NAMES, SIZE, build, export_for_timing

from promptseg import __version__

BOXES = (1, 16, 256)
POCKET_REPEATS = 9
COLD_REPEATS = 3
ROWS = "rows.jsonl"
HEADS = {"encode": "encode s", **{str(n): f"{n} boxes s" for n in BOXES}, "peak": "peak GB"}
Row = dict[str, float]


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_seconds(run: Callable[[], object], repeats: int, *, warm: bool = False) -> float:
    """Median seconds of a call, after one warm-up call unless it is warm already."""
    if not warm:
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
            row[str(count)] = median_seconds(run, repeats, warm=True)
    row["peak"] = peak_memory()
    print(json.dumps(row), flush=True)


class Rows:
    """What was measured so far, in a file that grows by a line for each row.

    Args:
        path: The file.
        setting: What rows must have in common to be the same measurement.
    """

    def __init__(self, path: Path, setting: str) -> None:
        self.path = path
        self.setting = setting
        self._rows: dict[tuple[str, str], Row] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                model, name, of_setting, row = json.loads(line)
                if of_setting == setting:
                    self._rows[model, name] = row

    def find(self, model: str, name: str) -> Row | None:
        """Return a row; None if it was not measured."""
        return self._rows.get((model, name))

    def add(self, model: str, name: str, row: Row) -> None:
        """Keep a row."""
        self._rows[model, name] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([model, name, self.setting, row]) + "\n")


def run_worker(model: str, name: str, arguments: argparse.Namespace) -> Row:
    """Have a process time one implementation.

    Raises:
        RuntimeError: It failed; the message is the last line of its errors.
    """
    command = [sys.executable, __file__, "--worker", model, name]
    command += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
    command += ["--folder", str(arguments.folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(lines[-1])
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def measure(model: str, names: Sequence[str], rows: Rows, arguments: argparse.Namespace) -> None:
    """Print a table of a model, each row when it is known, with its ratios to the first."""
    print(f"\n| {model} | " + " | ".join(f"{head} | ratio" for head in HEADS.values()) + " |")
    print("|---" * (1 + 2 * len(HEADS)) + "|", flush=True)
    base: Row | None = None
    for name in names:
        row = None if arguments.again else rows.find(model, name)
        if row is None:
            try:
                if name.startswith(("onnx", "openvino")):
                    export_for_timing(model, arguments.folder, int8=name.endswith("int8"))
                row = run_worker(model, name, arguments)
            except Exception as error:  # whatever one row does, the others are measured
                print(f"| {name} | {error} |", flush=True)
                continue
            rows.add(model, name, row)
        base = base or row
        cells = []
        for key in HEADS:
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
    encoded = pipe.encode_image(image)
    # Another place each time, so that no closer look is at hand.
    places = ((x, 240) for x in itertools.cycle(range(160, 480, 5)))
    dtype = pipe.segmenter.dtype
    print(f"pocket, 640 x 480, {threads} threads, {dtype}, PyTorch {torch.__version__}")
    for name, run in (
        ("one phrase, warm", lambda: pipe(image, text="cat")),
        ("one click, warm", lambda: pipe(image, points=[(320, 240)])),
        ("encode the image", lambda: pipe.segmenter.encode_image(image)),
        ("encode 4 images, one by one", lambda: list(pipe.encode_images([image] * 4))),
        ("encode 4 images together", lambda: list(pipe.encode_images([image] * 4, batch_size=4))),
        ("everything, on an encoded image", lambda: pipe.everything(embedding)),
        ("a new click on an encoded image", lambda: pipe(encoded, points=[next(places)])),
        (
            "one click on an encoded image, decoder alone",
            lambda: pipe.segmenter.decode(
                embedding, point_coords=[[(320, 240)]], point_labels=[[1]]
            ),
        ),
    ):
        print(f"{name:<46}{median_seconds(run, POCKET_REPEATS):>8.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/cat.png"
        photograph.save(path)
        command = [sys.executable, "-m", "promptseg.apps.cli.main", "segment", path, "-t", "cat"]
        command += ["--out", f"{folder}/out"]

        def start_cold() -> None:
            subprocess.run(command, check=True, capture_output=True)

        seconds = median_seconds(start_cold, COLD_REPEATS)
        print(f"{'promptseg segment, cold start':<46}{seconds:>8.3f} s")


def main() -> None:
    """Parse the arguments, measure and print."""
    every = sorted({name for names in NAMES.values() for name in names})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--only", choices=every, nargs="+", help="time only these")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("outputs/speed"))
    parser.add_argument("--again", action="store_true", help="measure what is in the folder too")
    parser.add_argument("--pocket", action="store_true", help="time the pocket preset instead")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.pocket:
        measure_pocket(arguments.threads)
        return
    if arguments.worker:
        model, name = arguments.worker
        work(model, name, arguments.folder, arguments.repeats)
        return
    print(f"{SIZE} x {SIZE} pixels, {arguments.threads} threads, PyTorch {torch.__version__}")
    versions = f"PyTorch {torch.__version__}, promptseg {__version__}"
    setting = f"{arguments.threads} threads, {arguments.repeats} repeats, {versions}"
    rows = Rows(arguments.folder / ROWS, setting)
    for model in arguments.models:
        names = [name for name in NAMES[model] if not arguments.only or name in arguments.only]
        measure(model, names, rows, arguments)


if __name__ == "__main__":
    main()
