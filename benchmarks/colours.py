"""Measure colour words on objects whose colours were annotated by eye.

    python benchmarks/colours.py DATA

DATA is a folder in the layout of docs/data.md that contains the pictures listed in colours.jsonl,
where each line gives a picture, a label in it and its colour. Each object is queried without a
colour, with its own ("red dress") and with a very different one ("green dress").
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

import promptseg
from promptseg.apps.evaluation.index_folder import VOID, read_index
from promptseg.apps.evaluation.metrics import mask_iou
from promptseg.pipeline.images import load_image

OBJECTS = Path(__file__).with_name("colours.jsonl")
FAR: Mapping[str, str] = {
    "black": "yellow",
    "grey": "green",
    "white": "red",
    "red": "green",
    "orange": "blue",
    "yellow": "blue",
    "green": "purple",
    "blue": "orange",
    "purple": "yellow",
    "pink": "blue",
    "brown": "blue",
}


def main() -> None:
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that contains index.jsonl")
    pipe = promptseg.load("pocket", dtype="fp32")
    samples = {sample.name: sample for sample in read_index(parser.parse_args().data)}
    rows = [json.loads(line) for line in OBJECTS.read_text(encoding="utf-8").splitlines()]
    found: dict[str, list[bool]] = {"no colour": [], "its colour": [], "another": []}
    ious: dict[str, list[float]] = {"no colour": [], "its colour": []}
    for row in track(rows, description="measuring", console=Console(stderr=True)):
        sample = samples[row["picture"]]
        ids = sample.load_ids()
        region = np.isin(ids, [i for r in sample.regions if r.label == row["label"] for i in r.ids])
        embedding = pipe.segmenter.encode_image(load_image(sample.image_path))
        for kind, colour in (
            ("no colour", ""),
            ("its colour", row["colour"]),
            ("another", FAR[row["colour"]]),
        ):
            result = pipe(embedding, text=f"{colour} {row['label']}")
            found[kind].append(len(result) > 0)
            if kind in ious:
                union = np.logical_or.reduce(result.masks, axis=0)
                ious[kind].append(mask_iou(union, region, ids != VOID))
    print(f"| {len(rows)} objects | found | mIoU |\n|---|---|---|")
    for kind, values in found.items():
        iou = f"{np.mean(ious[kind]):.3f}" if kind in ious else ""
        print(f"| {kind} | {np.mean(values):.2f} | {iou} |")


if __name__ == "__main__":
    main()
