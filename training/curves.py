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
from matplotlib import pyplot as plt

PANELS = (
    ("loss", ("text", "masks")),
    (
        "masks: IoU on dev",
        ("box_voc", "box_coco", "click_best", "click_selected", "two_clicks", "iou_error"),
    ),
    (
        "text: heat on dev",
        ("text_voc", "text_coco", "text_pantry", "text_ccp", "person", "presence_mcc"),
    ),
)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a log in the order of their steps; of a step logged twice, the later row."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for _, row in sorted({row["step"]: row for row in rows}.items())]


def draw(rows: list[dict[str, Any]], cooldown: int | None, out: Path) -> None:
    """Write a PNG with a panel for the losses, one for masks and one for text.

    Args:
        rows: Of :func:`read_log`.
        cooldown: Step at which the cool-down begins, drawn as a dotted line; None for none.
        out: The PNG.
    """
    figure, axes = plt.subplots(1, len(PANELS), figsize=(15, 4.5), layout="constrained")
    for axis, (title, names) in zip(axes, PANELS, strict=True):
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=name.replace("_", " "))
        if cooldown is not None:
            axis.axvline(cooldown, color="grey", linestyle=":")
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        if any(name in row for name in names for row in rows):
            axis.legend()
    axes[0].set_ylim(bottom=0)
    figure.savefig(out, dpi=80)
    plt.close(figure)


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", type=Path, help="log.jsonl of a run")
    parser.add_argument("out", type=Path, help="the PNG")
    parser.add_argument("--cooldown", type=Path, help="log.jsonl of its cool-down")
    arguments = parser.parse_args()
    rows, start = read_log(arguments.log), None
    if arguments.cooldown is not None:
        cooled = read_log(arguments.cooldown)
        start = max((row["step"] for row in rows if row["step"] < cooled[0]["step"]), default=0)
        rows = [row for row in rows if row["step"] <= start] + cooled
    draw(rows, start, arguments.out)


if __name__ == "__main__":
    main()
