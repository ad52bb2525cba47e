"""Draw the learning curves of a training run.

python training/curves.py runs/pocket/log.jsonl docs/images/training.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from config import TrainConfig
from matplotlib import pyplot as plt

PANELS = (
    ("loss", ("loss",)),
    ("masks: IoU on dev", ("box", "click_best", "click_selected", "iou_error")),
    ("text: heat on dev", ("text", "text_pointing", "person", "person_pointing", "presence_mcc")),
)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a log, sorted by step; if a step was logged twice, the later row."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for _, row in sorted({row["step"]: row for row in rows}.items())]


def draw(rows: list[dict[str, Any]], boundaries: list[int], out: Path) -> None:
    """Write a PNG with one panel each for the loss, masks and text.

    Args:
        rows: Rows from :func:`read_log`.
        boundaries: Steps at which a phase begins, drawn as dotted lines.
        out: Path of the PNG.
    """
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 4.5), layout="constrained")
    for axis, (title, names) in zip(axes, PANELS, strict=True):
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=name.replace("_", " "))
        for step in boundaries:
            axis.axvline(step, color="grey", linestyle=":")
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        if any(name in row for name in names for row in rows):
            axis.legend()
    axes[0].set_ylim(bottom=0)
    figure.savefig(out, dpi=80)
    plt.close(figure)


def main() -> None:
    """Parse the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path, help="log.jsonl of a training run")
    parser.add_argument("out", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    steps = [phase.steps for phase in TrainConfig().phases]
    boundaries = [sum(steps[:n]) for n in range(1, len(steps))]
    draw(read_log(arguments.log), boundaries, arguments.out)


if __name__ == "__main__":
    main()
