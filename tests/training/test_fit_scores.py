"""The calibration of scores, on made-up rows whose truth is known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fit_scores
import numpy as np
import pytest
from fit_scores import draw, fit, predicted

from promptseg.pipeline.scoring.calibration import ScoreCalibration

TRUE = ScoreCalibration(iou_prediction=0.6, stability=0.0, prompt=0.9, bias=-1.5)


def scores_of(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.05, 0.95, (count, 3))


def test_the_weights_are_found_again() -> None:
    scores = scores_of(4000)
    found = fit(scores, predicted(TRUE, scores))
    assert found.iou_prediction == pytest.approx(0.6, abs=0.02)
    assert found.prompt == pytest.approx(0.9, abs=0.02)
    assert found.stability == pytest.approx(0, abs=0.02)
    assert found.bias == pytest.approx(-1.5, abs=0.02)


def test_no_weight_is_negative() -> None:
    scores = scores_of(500)
    assert fit(scores, 1 - scores[:, 0]).iou_prediction == 0


def test_the_command_fits_pictures_by_the_others(tmp_path: Path, monkeypatch, capsys) -> None:
    scores = scores_of(300)
    truth = predicted(TRUE, scores)
    rows = [{"header": 1}]
    for i in range(100):
        masks = [
            {
                "iou_prediction": scores[j, 0],
                "stability": scores[j, 1],
                "prompt": scores[j, 2],
                "iou": truth[j],
            }
            for j in range(3 * i, 3 * i + 3)
        ]
        rows.append({"name": f"s/{i}", "rows": [{"label": "cup", "masks": masks}]})
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    plot = tmp_path / "plot.png"
    monkeypatch.setattr(sys, "argv", ["fit_scores.py", str(path), "--plot", str(plot)])
    fit_scores.main()
    told = capsys.readouterr().out
    assert told.startswith("300 masks: ScoreCalibration(iou_prediction=0.59")
    error = float(told.split("calibrated ")[1])
    assert error < 0.02 < float(told.split("formula ")[1].split(",")[0])
    assert plot.stat().st_size > 5000


def test_a_few_masks_are_drawn_too(tmp_path: Path) -> None:
    few = np.linspace(0.2, 0.8, 3)
    draw(tmp_path / "plot.png", [("formula", few, few)])  # without a warning of empty parts
    assert (tmp_path / "plot.png").stat().st_size > 0
