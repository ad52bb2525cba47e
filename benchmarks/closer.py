"""What a closer look gains, by the size of what is marked: boxes, and single clicks.

    python benchmarks/closer.py DATA --source coco-things --split train

DATA is a folder in the layout of docs/data.md. Each single object's tight box and the click at its
deepest point are answered twice by ``pocket``, without closer looks and with them.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

import promptseg
from promptseg.apps.evaluation.clicks import next_click
from promptseg.apps.evaluation.index_folder import read_index
from promptseg.apps.evaluation.metrics import mask_iou
from promptseg.models.errors import InputError
from promptseg.pipeline.images import load_image
from promptseg.pipeline.masks import tight_box

# Bounds of the sizes, as shares of the picture.
SIZES = (0.0005, 0.005, 0.01, 0.02, 0.05, 1.0)
KINDS = ("box", "click", "click, best of 3")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--source", required=True)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, default=60, help="most pictures")
    parser.add_argument("--objects", type=int, default=5, help="most objects of a picture")
    arguments = parser.parse_args()
    closer = promptseg.load("pocket")
    whole = promptseg.load("pocket")
    whole.config = replace(whole.config, closer=None)
    pipes = {"whole": whole, "closer": closer}
    rows: list[tuple[float, dict[str, list[float]]]] = []
    seconds = dict.fromkeys(pipes, 0.0)
    samples = [
        s for s in read_index(arguments.data, arguments.split) if s.source == arguments.source
    ]
    if not samples:
        raise InputError(f"no pictures of {arguments.source!r} in split {arguments.split!r}")
    rng = np.random.default_rng(0)
    for number in rng.permutation(len(samples))[: arguments.limit].tolist():
        truth = samples[number].load_truth()
        objects = [item for item in truth.objects if item.single and item.area >= SIZES[0]]
        embedding = closer.encode_image(load_image(samples[number].image_path))
        for chosen in rng.permutation(len(objects))[: arguments.objects].tolist():
            item = objects[chosen]
            x, y, _ = next_click(item.mask, np.zeros_like(item.mask))
            found: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for name, pipe in pipes.items():
                since = time.perf_counter()
                boxed = pipe(embedding, boxes=[tight_box(item.mask)])
                clicked = pipe(embedding, points=[(x, y)])
                seconds[name] += time.perf_counter() - since
                ious = [mask_iou(mask, item.mask, truth.valid) for mask in clicked.masks]
                box = mask_iou(boxed.masks[0], item.mask, truth.valid) if len(boxed) else 0.0
                best = int(clicked.iou_predictions.argmax()) if ious else 0
                found["box"].append(box)
                found["click"].append(ious[best] if ious else 0.0)
                found["click, best of 3"].append(max(ious, default=0.0))
            rows.append((item.area, found))
    print(
        "| share of the picture | objects |",
        " | ".join(f"{kind}, whole / closer" for kind in KINDS),
        "|",
    )
    print("|---|---|---|---|---|")
    for low, high in itertools.pairwise(SIZES):
        own = [found for area, found in rows if low <= area < high]
        if own:
            cells = [np.mean([found[kind] for found in own], axis=0) for kind in KINDS]
            told = " | ".join(f"{cell[0]:.3f} / {cell[1]:.3f}" for cell in cells)
            print(f"| {low:.2%} to {high:.2%} | {len(own)} | {told} |")
    times = ", ".join(
        f"{name} {1000 * s / max(1, len(rows)):.0f} ms" for name, s in seconds.items()
    )
    print(f"\na box and a click: {times}")


if __name__ == "__main__":
    main()
