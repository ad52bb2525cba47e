"""Fit the calibration of the scores of masks that phrases find.

    promptseg eval --data DATA --task text --json text.json
    python training/fit_scores.py text.json.rows.jsonl --plot reliability.png

Prints the weights for ``POCKET`` in pipeline/presets/pocket.py and how far the scores are from the
masks' IoU with what was meant: for the formula of the ranking, and for the fit, where each picture
is scored by a fit to the others (five folds).
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from promptseg.apps.evaluation.tasks.text import scored_masks
from promptseg.pipeline.scoring.calibration import ScoreCalibration, log_odds
from promptseg.pipeline.scoring.ranking import combined_score

matplotlib.use("Agg")
from matplotlib import pyplot as plt

NAMES = ("iou_prediction", "stability", "prompt")
_FOLDS = 5
_PENALTY = 1e-3  # on squared weights, which keeps a weight that nothing speaks for at 0
_BINS = 10


def fit(scores: NDArray[np.float64], ious: NDArray[np.float64]) -> ScoreCalibration:
    """Fit the weights by cross-entropy; none may be negative.

    Args:
        scores: (N, 3), the scores in the order of ``NAMES``.
        ious: (N,) in [0, 1].
    """
    odds = np.column_stack([log_odds(scores), np.ones(len(scores))])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = odds @ weights
        entropy = np.logaddexp(0, logits) - ious * logits
        gradient = odds.T @ (1 / (1 + np.exp(-logits)) - ious) / len(ious)
        penalised = _PENALTY * weights * [1, 1, 1, 0]
        return float(entropy.mean() + 0.5 * penalised @ weights), gradient + penalised

    bounds = [(0, None)] * 3 + [(None, None)]
    found = minimize(loss, np.array([0.3, 0.3, 0.3, 0.0]), jac=True, bounds=bounds)
    return ScoreCalibration(*(round(float(weight), 3) for weight in found.x))


def predicted(calibration: ScoreCalibration, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Calibrated scores (N,) of scores (N, 3)."""
    return calibration(scores[:, 0], scores[:, 1], scores[:, 2]).astype(np.float64)


def draw(path: Path, curves: Sequence[tuple[str, Any, NDArray[np.float64]]]) -> None:
    """Draw a reliability diagram: mean IoU against the score, in tenths of the masks."""
    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    for name, scores, ious in curves:
        parts = np.array_split(np.argsort(scores), min(_BINS, len(scores)))
        axes.plot(
            [scores[part].mean() for part in parts],
            [ious[part].mean() for part in parts],
            marker="o",
            label=name,
        )
    axes.set(xlabel="score", ylabel="IoU with what was meant", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of phrases of a file that ``promptseg eval --json`` wrote beside its figures."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        {**row, "picture": entry["name"]}
        for entry in entries
        for row in entry.get("rows", [])
        if "masks" in row
    ]


def main() -> None:
    """Read the rows of an evaluation, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path, help="rows of promptseg eval --task text --json")
    parser.add_argument("--plot", type=Path, help="where to draw the reliability diagram")
    arguments = parser.parse_args()
    rows = read_rows(arguments.rows)
    folds = [zlib.crc32(row["picture"].encode()) % _FOLDS for row in rows]
    parts = []
    for fold in range(_FOLDS):
        own = [row for row, number in zip(rows, folds, strict=True) if number == fold]
        masks = scored_masks(own)
        scores = np.array([[mask[name] for name in NAMES] for mask in masks]).reshape(-1, 3)
        parts.append((scores, np.array([mask["iou"] for mask in masks])))
    scores = np.concatenate([part[0] for part in parts])
    ious = np.concatenate([part[1] for part in parts])
    held_out = []
    for fold in range(_FOLDS):
        others = [part for i, part in enumerate(parts) if i != fold]
        fitted = fit(np.concatenate([p[0] for p in others]), np.concatenate([p[1] for p in others]))
        held_out.append(predicted(fitted, parts[fold][0]))
    crossed = np.concatenate(held_out)
    formula = combined_score(*scores.T).astype(np.float64)
    print(f"{len(ious)} masks: {fit(scores, ious)}")
    print(f"mean |score - IoU|: formula {np.abs(formula - ious).mean():.3f}, ", end="")
    print(f"calibrated {np.abs(crossed - ious).mean():.3f}")
    if arguments.plot:
        draw(arguments.plot, [("formula", formula, ious), ("calibrated", crossed, ious)])


if __name__ == "__main__":
    main()
