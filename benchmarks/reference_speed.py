"""Time and memory of looking for a reference with models as large as the published ones.

    python benchmarks/reference_speed.py [--threads 2] [--dino vit_small_patch14_dinov2]
        [--sam sam_vit_t] [--targets 3] [--strategy graph]

DINOv2 at 518 pixels and SAM have random weights, which cost as much as trained ones; the pictures
are photographs of scikit-image. Nothing that random masks would fail at stops a strategy: the gate
and the least predicted IoU and stability are off, so that all of its steps run. Each strategy has a
process of its own. Memory is the peak resident set of the process, libraries and weights included.
The last column counts the pictures that DINO saw: the example once, and each target once.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray

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
    """Features, with the number of pictures seen and the seconds that they took."""

    def __init__(self, features: DinoFeatures) -> None:
        self.features = features
        self.seconds: list[float] = []

    @property
    def model_id(self) -> str:
        """Name of the model."""
        return self.features.model_id

    def extract(self, image: Image) -> DenseFeatures:
        """See an image."""
        started = time.perf_counter()
        found = self.features.extract(image)
        self.seconds.append(time.perf_counter() - started)
        return found

    def extract_encoded(self, embedding: ImageEmbedding) -> DenseFeatures:
        """See an encoded image."""
        return self.extract(embedding.pixels())


def photographs(count: int) -> tuple[Reference, list[Image]]:
    """An example, and pictures to look for it in: no two are the same."""
    from skimage import data

    cat, *others = (getattr(data, name)() for name in ("chelsea", "coffee", "astronaut", "rocket"))
    mask = np.zeros(cat.shape[:2], np.bool_)
    mask[40:260, 100:340] = True
    targets = [np.roll(others[i % len(others)], 8 * i, axis=1) for i in range(count)]
    return Reference(cat, mask), targets


def work(strategy: str, dino: str, sam: str, targets: int) -> None:
    """Measure one strategy, in a process of its own, and print its row."""
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
    # Linux counts kilobytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    matching = statistics.median(a - s for a, s in zip(asking, seen, strict=True))
    cells = [example, statistics.median(encoding), statistics.median(seen), matching]
    row = " | ".join(f"{value:.2f} s" for value in cells)
    print(f"| {strategy} | {row} | {peak:.2f} GB | {len(features.seconds)} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dino", default="vit_small_patch14_dinov2")
    parser.add_argument("--sam", default="sam_vit_t")
    parser.add_argument("--targets", type=int, default=3)
    parser.add_argument("--strategy", choices=STRATEGIES, help="only this one")
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
