"""--cache and --cache-gb: segment, everything and app hand them to the models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from promptseg.apps.cli import app as app_module
from promptseg.apps.cli.main import app
from promptseg.apps.cli.options import ModelOptions
from promptseg.models.errors import InputError


def test_a_second_command_reads_what_the_first_one_kept(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(data.chelsea()[:96, 100:292]).save(photo)
    cache = tmp_path / "cache"
    answers = []
    for words in (["-t", "cat"], ["-t", "cat"], ["-t", "dog"]):
        done = CliRunner().invoke(
            app, ["segment", str(photo), *words, "--json", "--cache", str(cache)]
        )
        assert done.exit_code == 0, done.output
        answers.append(json.loads(done.stdout))
    assert answers[0]["masks"] == answers[1]["masks"]
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("*.safetensors")}
    assert len(kept) == 2
    done = CliRunner().invoke(
        app, ["everything", str(photo), "--points-per-side", "2", "--json", "--cache", str(cache)]
    )
    assert done.exit_code == 0, done.output
    used = [path for path, time in kept.items() if path.stat().st_mtime_ns > time]
    assert len(used) == 1  # the encoded picture


def test_the_app_takes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[ModelOptions] = []
    monkeypatch.setattr(app_module, "_run", lambda models, *_: taken.append(models))
    words = ["app", "--cache", str(tmp_path / "cache"), "--cache-gb", "0.5"]
    assert CliRunner().invoke(app, words).exit_code == 0
    pipe = taken[0].load()
    pipe.encode_image(np.zeros((32, 32, 3), np.uint8))
    assert pipe.segmenter._kept is not None
    assert pipe.segmenter._kept.cache.max_bytes == 500_000_000
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1


def test_bad_values_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--cache: .*is not a folder"):
        ModelOptions(cache=tmp_path / "file")
    for size in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="--cache-gb must be a positive number"):
            ModelOptions(cache_gb=size)
