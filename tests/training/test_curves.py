"""Learning curves from a log."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from curves import draw, main, read_log
from PIL import Image

ROWS = [
    {"step": 50, "loss": 3.0},
    {"step": 100, "loss": 2.0, "box": 0.5, "text": 0.1, "presence_mcc": -0.2},
    {"step": 150, "loss": 1.5},
    {"step": 100, "loss": 2.5, "box": 0.6, "text": 0.2, "presence_mcc": 0.3},  # after an interrupt
    {"step": 150, "loss": 1.0, "box": 0.7, "text": 0.3, "presence_mcc": 0.4},
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_of_a_step_logged_twice_the_later_row_counts(log: Path) -> None:
    assert read_log(log) == [ROWS[0], ROWS[3], ROWS[4]]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def test_curves_are_drawn_with_the_borders_of_phases(log: Path, tmp_path: Path) -> None:
    rows = read_log(log)
    draw(rows, [], tmp_path / "plain.png")
    draw(rows, [75], tmp_path / "phases.png")
    plain, phases = pixels(tmp_path / "plain.png"), pixels(tmp_path / "phases.png")
    assert plain.shape == phases.shape
    assert plain.shape[1] > 2 * plain.shape[0] > 400
    assert (plain != 255).any(-1).mean() > 0.01
    # A line in each of the three panels.
    columns = np.flatnonzero((plain != phases).any((0, 2)))
    assert 1 + (np.diff(columns) > 20).sum() == 3


def test_a_log_before_the_first_look_at_the_dev_split_is_drawn(tmp_path: Path) -> None:
    draw(ROWS[:1], [75], tmp_path / "early.png")
    assert (pixels(tmp_path / "early.png") != 255).any()


def test_the_command_draws_a_log(log: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["curves.py", str(log), str(tmp_path / "out.png")])
    main()
    assert (pixels(tmp_path / "out.png") != 255).any()
