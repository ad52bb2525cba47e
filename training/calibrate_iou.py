"""Fit the scale and the offset of the pocket SAM's predicted IoU to measured ones.

    promptseg eval --data DATA --task points --json points.json
    python training/calibrate_iou.py points.json.rows.jsonl models/weights/sam_pocket.safetensors

The two numbers minimise the mean absolute error over the rows' masks, on the scale of log odds,
and are multiplied into the last layers of the IoU heads, so that the model stays as it is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize
from scipy.special import expit, logit

HEADS = ("mask_decoder.iou_prediction_head.layers.2.", "mask_decoder.iou_evidence_head.layers.1.")

Floats = NDArray[np.float64]


def read_rows(path: Path) -> tuple[Floats, Floats]:
    """Predicted and true IoU (N,) of all masks of a run of the task "points"."""
    predicted: list[float] = []
    true: list[float] = []
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        for row in json.loads(line)["rows"]:
            for step in (value for value in row.values() if isinstance(value, dict)):
                predicted += [*step["predicted"], step["single predicted"]]
                true += [*step["ious"], step["single"]]
    return np.array(predicted), np.array(true)


def fit(predicted: Floats, true: Floats) -> tuple[float, float]:
    """Scale and offset of the log odds that minimise the mean absolute error."""
    odds = logit(np.clip(predicted, 1e-4, 1 - 1e-4))

    def error(values: Floats) -> float:
        return float(np.abs(expit(values[0] * odds + values[1]) - true).mean())

    found = minimize(error, np.array([1.0, 0.0]), method="Nelder-Mead")
    return float(found.x[0]), float(found.x[1])


def apply(path: Path, scale: float, offset: float) -> None:
    """Write the fit into a weights file; the offset goes to the first head's bias."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    state = load_file(path)
    for head in HEADS:
        for part in ("weight", "bias"):
            state[head + part] = (state[head + part].float() * scale).half()
    bias = HEADS[0] + "bias"
    state[bias] = (state[bias].float() + offset).half()
    partial = path.with_suffix(".partial")
    save_file(state, partial, metadata=about)
    partial.replace(path)


def main() -> None:
    """Read the arguments, fit and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, help="rows of promptseg eval --task points")
    parser.add_argument("weights", type=Path, help="sam_pocket.safetensors, changed in place")
    arguments = parser.parse_args()
    predicted, true = read_rows(arguments.rows)
    scale, offset = fit(predicted, true)
    before = np.abs(predicted - true).mean()
    after = np.abs(expit(scale * logit(np.clip(predicted, 1e-4, 1 - 1e-4)) + offset) - true).mean()
    print(f"{len(true)} masks, mean absolute error {before:.4f} -> {after:.4f}")
    print(f"scale {scale:.3f}, offset {offset:.3f}")
    apply(arguments.weights, scale, offset)


if __name__ == "__main__":
    main()
