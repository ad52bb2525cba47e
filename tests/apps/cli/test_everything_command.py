"""`promptseg everything`: files, JSON, progress, errors; with a pipeline that answers at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import StringIO

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from rich.console import Console

from promptseg.apps.console import Bar
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
        tiles: object = None,
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
def fake(loads) -> FakeEverything:
    pipeline = FakeEverything()
    loads(pipeline)
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
    assert {path.name for path in out.iterdir() if path.name[0] != "."} == {
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


@pytest.mark.parametrize("option", [("--points-per-side", 0), ("--min-area", -1)])
def test_options_out_of_range_are_refused(run, fake, photo, option) -> None:
    done = run("everything", photo, *option)
    assert done.exit_code == 2
    assert option[0] in done.stderr
    assert fake.calls == []


def test_the_bar_shows_points_done_of_all() -> None:
    stream = StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with Bar(0, console, "clicking") as bar:
        bar.show()
        bar.update(64, 256)
    assert "64/256" in stream.getvalue()
