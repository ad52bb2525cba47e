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
    {"step": 50, "text": 3.0, "masks": 2.0},
    {"step": 100, "text": 2.0, "box_voc": 0.5, "text_voc": 0.1, "presence_mcc": -0.2},
    {"step": 150, "text": 1.5},
    {"step": 100, "text": 2.5, "box_voc": 0.6, "text_voc": 0.2},  # after an interrupt
    {"step": 150, "text": 1.0, "box_voc": 0.7, "text_voc": 0.3},
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


def test_curves_are_drawn_with_the_start_of_the_cooldown(log: Path, tmp_path: Path) -> None:
    rows = read_log(log)
    draw(rows, None, tmp_path / "plain.png")
    draw(rows, 75, tmp_path / "cooled.png")
    plain, cooled = pixels(tmp_path / "plain.png"), pixels(tmp_path / "cooled.png")
    assert plain.shape == cooled.shape
    assert plain.shape[1] > 2 * plain.shape[0] > 400
    assert (plain != 255).any(-1).mean() > 0.01
    # A line in each of the three panels.
    columns = np.flatnonzero((plain != cooled).any((0, 2)))
    assert 1 + (np.diff(columns) > 20).sum() == 3


def test_a_log_before_the_first_look_at_the_dev_split_is_drawn(tmp_path: Path) -> None:
    draw(ROWS[:1], 75, tmp_path / "early.png")
    assert (pixels(tmp_path / "early.png") != 255).any()


def test_the_command_draws_a_log(log: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["curves.py", str(log), str(tmp_path / "out.png")])
    main()
    assert (pixels(tmp_path / "out.png") != 255).any()


def test_a_cooldown_takes_the_place_of_what_came_after_its_start(
    log: Path, tmp_path: Path, monkeypatch
) -> None:
    cooled = tmp_path / "cooled.jsonl"
    cooled.write_text(json.dumps({"step": 125, "text": 0.5}) + "\n", encoding="utf-8")
    drawn = {}
    monkeypatch.setattr("curves.draw", lambda rows, start, out: drawn.update(rows=rows, at=start))
    arguments = ["curves.py", str(log), str(tmp_path / "out.png"), "--cooldown", str(cooled)]
    monkeypatch.setattr(sys, "argv", arguments)
    main()
    assert [row["step"] for row in drawn["rows"]] == [50, 100, 125]
    assert drawn["at"] == 100
