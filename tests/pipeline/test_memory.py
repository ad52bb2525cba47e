"""Many phrases on a large picture: memory does not grow with the number of masks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from promptseg.models.grounding.answers import HeatMap
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.prompters.heat_prompts import HeatPrompts
from promptseg.pipeline.prompters.text.gate import PresenceGate
from promptseg.pipeline.prompters.text.prompter import TextPrompter

from ..shrunken import save_owlv2

RUN = Path(__file__).with_name("memory_run.py")
LARGE_RUN = Path(__file__).with_name("large_run.py")
PIXELS = 1080 * 1920


@pytest.mark.parametrize("detector", [False, True])
def test_thirty_phrases_need_no_more_than_ten(detector: bool, tmp_path) -> None:
    folder = [str(save_owlv2(tmp_path / "owlv2"))] if detector else []
    done = subprocess.run(
        [sys.executable, str(RUN), "10", "30", *folder], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (few, before), (many, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (few, many) == (10, 30)
    # Far less than the pixels of the 20 masks more.
    assert after - before < 12 * PIXELS


def test_what_is_dropped_is_kept_small(obedient_segmenter) -> None:
    heat = np.full((24, 24), 0.01, np.float32)
    heat[2:10, 3:15] = 0.9

    def grounder(embedding, phrases) -> list[HeatMap]:
        return [HeatMap(phrase, heat, 0.9) for phrase in phrases]

    prompter = TextPrompter(grounder, HeatPrompts(obedient_segmenter), PresenceGate())
    pipeline = Pipeline(obedient_segmenter, text_prompter=prompter)
    image = np.zeros((1080, 1920, 3), np.uint8)
    result = pipeline(image, text=["one", "two", "three"], min_score=1.0)
    assert len(result) == 0
    assert [item.label for item in result.rejected] == ["one", "two", "three"]
    for item in result.rejected:
        assert len(item.compact_mask.counts) < PIXELS / 100
        assert item.mask.shape == (1080, 1920)
        assert item.mask.sum() == item.compact_mask.area > 0


@pytest.mark.parametrize(
    ("kind", "size", "masks", "most"),
    [("masks", (4000, 4000), 100, 1.0e9), ("picture", (6000, 4500), 1, 1.25e9)],
)
def test_large_pictures_fit(kind, size, masks, most) -> None:
    """PyTorch alone takes half a gigabyte of it, where it comes with CUDA."""
    command = [sys.executable, str(LARGE_RUN), kind, *map(str, size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found, peak = map(int, done.stdout.split())
    assert found == masks
    assert peak < most
