"""Compare masks in bf16 with those in fp32, for every kind of model; and where the time goes.

    python benchmarks/precision.py [--only sam_pocket]

Each photograph (those of scikit-image and of the app) is asked with the same boxes and clicks, on a
grid, in fp32, with the image encoder alone in bf16, and with all of it in bf16. Printed are the
mean and the least IoU of the single masks with those in fp32, masks that are empty in both left
out, and the processor time of encoding an image and of decoding 16 boxes. MobileSAM and ViT-B,
which gets one photograph, have random weights: what they take for a mask is noise near the
threshold, so that their IoU is a lower bound.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

import promptseg
from promptseg.models import create_model
from promptseg.models.device import best_dtype
from promptseg.pipeline import Segmenter

MODELS = ("sam_pocket", "sam_vit_t", "sam_vit_b")
# Arithmetic of the image encoder and of the rest.
WAYS = {"fp32": ("fp32", "fp32"), "encoder bf16": ("bf16", "fp32"), "bf16": ("bf16", "bf16")}
KINDS = ("boxes", "clicks")
SIDES = 4


def photographs() -> list[NDArray[np.uint8]]:
    """Photographs of cats, people and things that are installed."""
    folder = Path(__file__).parents[1] / "apps" / "web" / "examples"
    own = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.jpg"))]
    return [data.chelsea(), data.coffee(), *own]


def segmenters(name: str) -> dict[str, Segmenter]:
    """One model with each arithmetic."""
    model = (
        promptseg.load("pocket", dtype="fp32").segmenter.model
        if name == "sam_pocket"
        else create_model(name)
    )
    return {dtype: Segmenter(model, dtype=dtype) for dtype in ("fp32", "bf16")}


def prompts(size: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """16 boxes of half the image's sides and 16 clicks, both on a grid."""
    height, width = size[:2]
    steps = (np.arange(SIDES) + 0.5) / SIDES
    centres = np.stack(np.meshgrid(steps * width, steps * height), -1).reshape(-1, 2)
    half = np.array([width, height]) / 4
    boxes = np.concatenate([centres - half, centres + half], 1)
    limits = np.tile([width, height], 2)
    return np.clip(boxes, 0, limits).astype(np.float32), centres[:, None].astype(np.float32)


def seconds(run: Callable[[], object]) -> float:
    """Processor time of a call after a first one; the least of three."""
    run()
    times = []
    for _ in range(3):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def compare(name: str) -> None:
    """Print a model's rows."""
    runs = segmenters(name)
    masks: dict[tuple[str, str], list[NDArray[np.bool_]]] = {}
    photos = photographs()[: 1 if name == "sam_vit_b" else None]
    for photo in photos:
        boxes, clicks = prompts(photo.shape)
        embeddings = {dtype: run.encode_image(photo) for dtype, run in runs.items()}
        labels = np.ones((len(clicks), 1), np.int64)
        for way, (encode, decode) in WAYS.items():
            run, embedding = runs[decode], embeddings[encode]
            by_box = run.decode_low_res(embedding, boxes=boxes, multimask_output=False)
            by_click = run.decode_low_res(
                embedding, point_coords=clicks, point_labels=labels, multimask_output=False
            )
            for kind, found in zip(KINDS, (by_box, by_click), strict=True):
                masks.setdefault((way, kind), []).extend(found.logits[:, 0] > 0)
    embedding, boxes = runs["fp32"].encode_image(photos[0]), prompts(photos[0].shape)[0]
    for way, (encode, decode) in WAYS.items():
        figures = []
        for kind in KINDS:
            ious = [
                (a & b).sum() / (a | b).sum()
                for a, b in zip(masks["fp32", kind], masks[way, kind], strict=True)
                if (a | b).any()
            ]
            figures += [np.mean(ious), np.min(ious)]
        figures.append(seconds(partial(runs[encode].encode_image, photos[0])))
        figures.append(seconds(partial(runs[decode].decode_low_res, embedding, boxes=boxes)))
        print(f"{name:<12}{way:<13}" + "".join(f"{figure:>9.3f}" for figure in figures), flush=True)


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=MODELS, nargs="+", default=MODELS)
    options = parser.parse_args()
    print(f"auto means {best_dtype(torch.device('cpu'))} on this CPU")
    titles = ("boxes", "least", "clicks", "least", "encode s", "decode s")
    print(f"{'model':<12}{'way':<13}" + "".join(f"{title:>9}" for title in titles))
    for name in options.only:
        compare(name)


if __name__ == "__main__":
    main()
