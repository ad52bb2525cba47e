"""Measure how time and memory grow with the picture, the masks and the phrases, and draw it.

    python benchmarks/scaling.py docs/images/scaling.png [--threads 2] [--quick]

Each of the three curves is measured in its own process, from few to many, so that the peak of its
memory is that of the point. Times are those of a loaded and warm `pocket`:

- picture: a JPEG is read, searched for "cat", and its overlay, mask and record are written;
- masks: boxes on an encoded picture of 4000 x 4000 pixels become masks and their record;
- phrases: an encoded picture of 640 x 480 pixels is searched for words, most of them absent.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from peak_memory import peak_memory

POINTS: dict[str, tuple[float, ...]] = {
    "picture": (0.3, 3, 12, 27, 48, 75, 108),
    "masks": (1, 25, 50, 75, 100),
    "phrases": (1, 16, 32, 48, 64),
}
QUICK: dict[str, tuple[float, ...]] = {"picture": (0.3, 3), "masks": (1, 3), "phrases": (1, 3)}
AXES = {"picture": "megapixels", "masks": "boxes", "phrases": "phrases"}
SQUARE = 4000
# Point, seconds, bytes.
Row = tuple[float, float, int]


def write_photograph(path: Path, megapixels: float) -> None:
    """Write a cat of 4 : 3 as a JPEG, with a camera's noise, band by band."""
    import numpy as np
    from PIL import Image
    from skimage import data

    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    cat = Image.fromarray(data.chelsea()).resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).integers(-6, 7, (128, width, 3), np.int16)
    for top in range(0, height, 128):
        band = (0, top, width, min(top + 128, height))
        pixels = np.asarray(cat.crop(band)).astype(np.int16)
        noisy = (pixels + noise[: len(pixels)]).clip(0, 255).astype(np.uint8)
        cat.paste(Image.fromarray(noisy), band)
    cat.save(path, quality=90)


def grow(curve: str, points: list[float], folder: Path, threads: int) -> Iterator[Row]:
    """Measure the points of a curve in this process; the photographs are in the folder."""
    import numpy as np
    import torch
    from PIL import Image
    from skimage import data

    from promptseg import load

    torch.set_num_threads(threads)
    Image.MAX_IMAGE_PIXELS = None
    pipe = load("pocket")
    cat = Image.fromarray(data.chelsea())
    small = pipe.encode_image(cat.resize((640, 480)))
    pipe(small, "cat").save(folder / "warm")
    if curve == "picture":
        for point in points:
            path = folder / f"{point:g}.jpg"
            started = time.perf_counter()
            pipe(path, "cat").save(folder / path.stem)
            yield point, time.perf_counter() - started, peak_memory()
    elif curve == "masks":
        square = pipe.encode_image(cat.resize((SQUARE, SQUARE)))
        corners = np.random.default_rng(0).integers(0, 3 * SQUARE // 4, (int(max(points)), 2))
        boxes = np.concatenate([corners, corners + SQUARE // 4], axis=1)
        for point in points:
            started = time.perf_counter()
            pipe(square, boxes=boxes[: int(point)]).to_dict()
            yield point, time.perf_counter() - started, peak_memory()
    else:
        words = ["cat", *(f"{color} {thing}" for thing in THINGS for color in COLORS)]
        for point in points:
            started = time.perf_counter()
            pipe(small, words[: int(point)]).to_dict()
            yield point, time.perf_counter() - started, peak_memory()


THINGS = ("dog", "car", "cup", "chair", "bird", "shirt", "bottle", "boat")
COLORS = ("red", "blue", "green", "white", "black", "brown", "yellow", "pink")


def measure(curve: str, points: tuple[float, ...], folder: Path, threads: int) -> list[Row]:
    """Measure a curve in a process of its own."""
    numbers = [f"{point:g}" for point in points]
    command = [sys.executable, __file__, str(folder), "--threads", str(threads)]
    command += ["--worker", curve, *numbers]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return [(float(point), float(seconds), int(memory)) for point, seconds, memory in rows]


def draw(curves: dict[str, list[Row]], out: Path) -> None:
    """Write a PNG: seconds above, memory below, and the straight line through the ends."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(curves), figsize=(12, 6), layout="constrained", sharex="col")
    for column, (curve, rows) in enumerate(curves.items()):
        x = [row[0] for row in rows]
        for axis, values, label in (
            (axes[0][column], [row[1] for row in rows], "seconds"),
            (axes[1][column], [row[2] / 1e9 for row in rows], "peak memory, GB"),
        ):
            axis.plot([x[0], x[-1]], [values[0], values[-1]], color="lightgrey")
            axis.plot(x, values, marker="o")
            axis.set_ylim(0, 1.1 * max(values))
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(label)
        axes[0][column].set_title(curve)
        axes[1][column].set_xlabel(AXES[curve])
    figure.savefig(out, dpi=80)
    plt.close(figure)


def main() -> None:
    """Parse the arguments, measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the PNG")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="only the smallest points")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        curve, *points = arguments.worker
        for row in grow(
            curve, [float(point) for point in points], arguments.out, arguments.threads
        ):
            print(json.dumps(row), flush=True)
        return
    chosen = QUICK if arguments.quick else POINTS
    curves: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as name:
        for point in chosen["picture"]:
            write_photograph(Path(name, f"{point:g}.jpg"), point)
        for curve, points in chosen.items():
            curves[curve] = measure(curve, points, Path(name), arguments.threads)
            print(f"{AXES[curve]:>12}{'seconds':>10}{'peak GB':>10}")
            for point, seconds, memory in curves[curve]:
                print(f"{point:>12g}{seconds:>10.2f}{memory / 1e9:>10.2f}")
    draw(curves, arguments.out)


if __name__ == "__main__":
    main()
