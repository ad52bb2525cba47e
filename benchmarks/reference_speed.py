"""Measure time and memory of reference prompting with models of the published sizes.

    python benchmarks/reference_speed.py [--threads 2] [--dino vit_small_patch14_dinov2]
        [--sam sam_vit_t] [--targets 3] [--strategy graph]

DINOv2 at 518 pixels and SAM have random weights, which cost as much as trained ones; the pictures
are scikit-image photographs. The gate and the minimum predicted IoU and stability, which random
masks would fail, are off, so that every step of a strategy runs. Each strategy runs in its own
process. Memory is the process's peak resident set, including libraries and weights. The last column
counts the pictures that DINO processed: the example once, and each target once.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray
from peak_memory import peak_memory

from promptseg.models import create_model
from promptseg.models.embedding import ImageEmbedding
from promptseg.models.features.dense import DenseFeatures
from promptseg.models.features.dino import DinoFeatures, create_dino
from promptseg.pipeline import Pipeline, Reference, Segmenter
from promptseg.pipeline.prompters.reference.bidirectional import BidirectionalConfig
from promptseg.pipeline.prompters.reference.graph import GraphConfig
from promptseg.pipeline.prompters.reference.prompter import ReferencePrompter
from promptseg.pipeline.prompters.reference.prototype import PrototypeConfig
from promptseg.pipeline.prompters.reference.strategies import (
    STRATEGIES,
    StrategyConfigs,
    create_strategy,
)

Image = NDArray[np.uint8]

OPEN = StrategyConfigs(
    prototype=PrototypeConfig(min_presence=0.0),
    bidirectional=BidirectionalConfig(min_presence=0.0, min_iou_prediction=0.0, min_stability=0.0),
    graph=GraphConfig(min_presence=0.0),
)


class Counted:
    """Feature extractor that records the seconds that each picture took."""

    def __init__(self, features: DinoFeatures) -> None:
        self.features = features
        self.seconds: list[float] = []

    @property
    def model_id(self) -> str:
        """Name of the wrapped model."""
        return self.features.model_id

    def extract(self, image: Image) -> DenseFeatures:
        """Extract the features of an image and record the time."""
        started = time.perf_counter()
        found = self.features.extract(image)
        self.seconds.append(time.perf_counter() - started)
        return found

    def extract_encoded(self, embedding: ImageEmbedding) -> DenseFeatures:
        """Extract the features of an encoded image and record the time."""
        return self.extract(embedding.pixels())


def photographs(count: int) -> tuple[Reference, list[Image]]:
    """An example and the pictures in which to look for it; no two pictures are the same."""
    from skimage import data

    cat, *others = (getattr(data, name)() for name in ("chelsea", "coffee", "astronaut", "rocket"))
    mask = np.zeros(cat.shape[:2], np.bool_)
    mask[40:260, 100:340] = True
    targets = [np.roll(others[i % len(others)], 8 * i, axis=1) for i in range(count)]
    return Reference(cat, mask), targets


def work(strategy: str, dino: str, sam: str, targets: int) -> None:
    """Measure one strategy and print its row; runs in its own process."""
    features = Counted(create_dino(dino))
    segmenter = Segmenter(create_model(sam))
    prompter = ReferencePrompter(features, segmenter, create_strategy(strategy, OPEN))
    pipe = Pipeline(segmenter, reference_prompter=prompter)
    reference, images = photographs(targets)
    started = time.perf_counter()
    encoded = pipe.encode_reference(reference)
    example = time.perf_counter() - started
    encoding, asking = [], []
    for image in images:
        started = time.perf_counter()
        embedding = segmenter.encode_image(image)
        encoding.append(time.perf_counter() - started)
        started = time.perf_counter()
        pipe(embedding, reference=encoded)
        asking.append(time.perf_counter() - started)
    seen = features.seconds[1:]
    peak = peak_memory() / 1e9
    matching = statistics.median(a - s for a, s in zip(asking, seen, strict=True))
    cells = [example, statistics.median(encoding), statistics.median(seen), matching]
    row = " | ".join(f"{value:.2f} s" for value in cells)
    print(f"| {strategy} | {row} | {peak:.2f} GB | {len(features.seconds)} |", flush=True)


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dino", default="vit_small_patch14_dinov2")
    parser.add_argument("--sam", default="sam_vit_t")
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--strategy", choices=STRATEGIES, help="measure only this one")
    parser.add_argument("--worker", choices=STRATEGIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.worker:
        work(arguments.worker, arguments.dino, arguments.sam, arguments.targets)
        return
    print(f"{arguments.dino}, 518 px; {arguments.sam}; {arguments.threads} threads, ", end="")
    print(f"PyTorch {torch.__version__}; one example, {arguments.targets} targets (medians)\n")
    print("| strategy | example | target, SAM | target, DINO | matching, masks | peak | seen |")
    print("|---" * 7 + "|", flush=True)
    for strategy in [arguments.strategy] if arguments.strategy else STRATEGIES:
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", strategy]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
