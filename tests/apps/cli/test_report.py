"""What the command line says of a result, at the width of a terminal."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from promptseg.apps.cli.report import classes_table, describe_result, figures_table
from promptseg.pipeline.compact_mask import CompactMask
from promptseg.pipeline.result import Result

SIZE = (10100, 10508)
BOXES = [(9277, 8342, 10508, 10099), (277, 342, 508, 599), (0, 0, 10508, 10100)]
AREAS = ["2.0%", "0.1%", "100.0%"]
LABELS = ["the dog with the long grey fur on the left", "cat", "猫" * 30]


def render(renderable: object, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(renderable)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def three_masks() -> Result:
    scores = np.array([0.91, 0.82, 0.73], np.float32)
    return Result(
        image_size=SIZE,
        compact_masks=tuple(
            CompactMask.within(np.ones((y1 - y0, x1 - x0), bool), (x0, y0, x1, y1), SIZE)
            for x0, y0, x1, y1 in BOXES
        ),
        labels=LABELS,
        scores=scores,
        iou_predictions=scores - 0.1,
        stability_scores=scores - 0.2,
        prompt_scores=scores - 0.3,
    )


def test_80_columns_hold_every_score_and_the_whole_box() -> None:
    lines = render(describe_result("photo.jpg", three_masks(), LABELS), 80)
    rows = [line for line in lines if line[:4].strip().isdigit()]
    assert len(rows) == 3
    for row, (number, label) in zip(rows, enumerate(LABELS), strict=True):
        first = 0.91 - 0.09 * number
        scores = [f"{first - drop:.2f}" for drop in (0, 0.1, 0.2, 0.3)]
        box = ",".join(str(edge) for edge in BOXES[number])
        assert row.split()[-6:] == [*scores, AREAS[number], box]
        assert label[:4] in row
    heading = next(line for line in lines if "label" in line)
    assert heading.split() == ["#", "label", "score", "IoU", "stab.", "prompt", "area", "box",
                               "x0,y0,x1,y1"]  # fmt: skip
    assert max(len(line) for line in lines) <= 80


def test_a_wide_terminal_shows_the_whole_label() -> None:
    lines = render(describe_result("photo.jpg", three_masks(), LABELS), 140)
    assert any(LABELS[0] in line for line in lines)


def test_figures_beside_each_other_and_gaps_left_empty() -> None:
    figures = {"voc": {"objects": 12, "mIoU": 0.5}, "mine": {"objects": 3}}
    rows = [line.split() for line in render(figures_table("pocket", figures), 80)]
    assert ["voc", "mine"] in rows
    assert ["objects", "12", "3"] in rows
    assert ["mIoU", "0.500"] in rows


def test_figures_by_class_are_a_row_a_class() -> None:
    figures = {"cat": {"other": 0.0}, "dog": {"objects": 3, "mIoU": 0.5}}
    figures["x" * 90] = {"objects": 1, "other": 1.0}
    rows = [line.split() for line in render(classes_table("t", figures), 120)]
    assert ["objects", "mIoU", "other"] in rows
    assert ["dog", "3", "0.500"] in rows
    assert ["x" * 57 + "...", "1", "1.000"] in rows
