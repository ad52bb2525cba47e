"""`promptseg everything`: files, JSON, progress, errors; with a pipeline that answers at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from rich.console import Console

from promptseg.apps.cli import everything as everything_command
from promptseg.apps.console import Bar
from promptseg.models.errors import CheckpointError, ModelNotFoundError
from promptseg.pipeline import PipelineConfig
from promptseg.pipeline.decoding.everything import EverythingConfig
from promptseg.pipeline.drawing import draw_overlay
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.result import RejectedMask, Result
from promptseg.pipeline.scoring.ranking import RankingConfig, rank


@dataclass
class FakeEverything:
    """Finds the left half, and the whole if there are more clicks than one."""

    calls: list[tuple[int | None, int | None, int | None]] = field(default_factory=list)
    config: PipelineConfig = field(default_factory=PipelineConfig)

    def everything(
        self,
        image: np.ndarray,
        *,
        points_per_side: int | None,
        min_mask_region_area: int | None,
        config: EverythingConfig | None = None,
        progress: Callable[[int, int], None] | None,
    ) -> Result:
        crops = None if config is None else config.crop_n_layers
        self.calls.append((points_per_side, min_mask_region_area, crops))
        if progress is not None:
            progress(3, 4)
        height, width = image.shape[:2]
        rejected = [RejectedMask("mask", "the mask is empty: 7 of 9 candidates", 1.0)]
        if points_per_side == 1:
            return Result.empty((height, width), rejected)
        masks = np.zeros((2, height, width), bool)
        masks[0, :, : width // 2] = masks[1] = True
        found = Proposals.of(
            masks, ["mask"] * 2, [0.9, 0.8], [1, 1], [1, 1], rejected=rejected
        )  # fmt: skip
        return rank(found, RankingConfig())


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEverything:
    pipeline = FakeEverything()
    monkeypatch.setattr(everything_command, "load_pipeline", lambda *given: pipeline)
    return pipeline


def test_table_and_files(run, fake, photo, tmp_path) -> None:
    out = tmp_path / "out"
    done = run("everything", photo, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["1", "mask", "0.90", "0.90", "1.00", "1.00", "50.0%", "0,0,40,60"] in rows
    assert "the mask is empty: 7 of 9 candidates" in done.stdout
    assert "s; written to" in done.stdout
    assert {path.name for path in out.iterdir()} == {
        "result.json", "overlay.png", "mask_01_mask.png", "mask_02_mask.png",
    }  # fmt: skip
    told = json.loads((out / "result.json").read_text())
    assert told["image"] == str(photo)
    assert told["preset"] == "pocket"
    for entry, name in zip(told["masks"], told["files"]["masks"], strict=True):
        pixels = np.asarray(Image.open(out / name))
        np.testing.assert_array_equal(pixels, coco_mask.decode(entry["segmentation"]) * 255)
    assert np.asarray(Image.open(out / "overlay.png")).shape == (60, 80, 3)


def test_the_overlay_names_masks_by_number(run, fake, photo, tmp_path) -> None:
    run("everything", photo, "--out", tmp_path)
    result = fake.everything(
        np.zeros((60, 80, 3)),
        points_per_side=None,
        min_mask_region_area=None,
        progress=lambda done, total: None,
    )
    image = np.asarray(Image.open(photo))
    overlay = np.asarray(Image.open(tmp_path / "overlay.png"))
    np.testing.assert_array_equal(overlay, draw_overlay(image, replace(result, labels=["", ""])))
    assert (overlay != draw_overlay(image, result)).any()


def test_without_out_files_go_to_a_folder_named_like_the_image(run, fake, photo) -> None:
    assert run("everything", photo).exit_code == 0
    assert Path("promptseg-output/photo/overlay.png").is_file()


def test_json_alone_on_stdout_and_no_files(run, fake, photo) -> None:
    done = run("everything", photo, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [entry["score"] for entry in told["masks"]] == pytest.approx([0.9, 0.8])
    assert told["files"] is None
    assert not Path("promptseg-output").exists()


def test_json_with_out_writes_the_same_record(run, fake, photo, tmp_path) -> None:
    done = run("everything", photo, "--json", "--out", tmp_path / "out")
    told = json.loads(done.stdout)
    assert told.pop("seconds") >= 0
    assert told == json.loads((tmp_path / "out/result.json").read_text())


def test_options_reach_the_pipeline(run, fake, photo) -> None:
    run("everything", photo, "--json")
    run("everything", photo, "--json", "--points-per-side", 9, "--min-area", 50)
    run("everything", photo, "--json", "--min-area", 0, "--crop-layers", 1)
    assert fake.calls == [(None, None, None), (9, 50, None), (None, 0, 1)]


def test_nothing_found_is_an_answer(run, fake, photo) -> None:
    done = run("everything", photo, "--points-per-side", 1)
    assert done.exit_code == 0, done.output
    assert "nothing here" in done.stdout
    assert "the mask is empty: 7 of 9 candidates" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.png",), "'missing.png' does not exist; check the path"),
        (("{photo}", "--out", "{photo}"), "is a file; give a folder"),
        (("{photo}", "--device", "gpu"), "there is no device 'gpu'"),
        (("{photo}", "--preset", "huge"), "no preset is called 'huge'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, photo, arguments, message) -> None:
    done = run("everything", *(argument.format(photo=photo) for argument in arguments))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", [("--points-per-side", 0), ("--min-area", -1)])
def test_options_out_of_range_are_refused(run, fake, photo, option) -> None:
    done = run("everything", photo, *option)
    assert done.exit_code == 2
    assert option[0] in done.stderr
    assert fake.calls == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (CheckpointError("the weights are broken"), 2, "the weights are broken"),
        (ModelNotFoundError("no such preset"), 2, "no such preset"),
        (MemoryError(), 1, "out of memory; scale the image down"),
        (RuntimeError("two\nlines"), 1, "RuntimeError: two lines"),
    ],
)
def test_failures_are_told_on_one_line_and_as_json(
    run, photo, monkeypatch, error, code, message
) -> None:
    def fail(*given: object) -> None:
        raise error

    monkeypatch.setattr(everything_command, "load_pipeline", fail)
    done = run("everything", photo, "--json")
    assert done.exit_code == code
    assert done.stderr == f"error: {message}\n"
    assert json.loads(done.stdout) == {"image": str(photo), "error": message}


def test_the_bar_shows_points_done_of_all() -> None:
    stream = StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with Bar(0, console, "clicking") as bar:
        bar.show()
        bar.update(64, 256)
    assert "64/256" in stream.getvalue()
