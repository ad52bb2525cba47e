"""Loading detectors of transformers: what is missing or wrong is said at once."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from promptseg.models.errors import CheckpointError
from promptseg.models.grounding.grounding_dino import create_grounding_dino
from promptseg.models.grounding.owlv2 import create_owlv2
from promptseg.models.grounding.sam3 import create_sam3_grounder

CREATE: dict[str, Callable[..., Any]] = {
    "grounding-dino": create_grounding_dino,
    "owlv2": create_owlv2,
    "sam3": create_sam3_grounder,
}


@pytest.fixture(params=CREATE)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def copied(name: str, detector_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A folder that may be spoilt."""
    return Path(shutil.copytree(detector_folders[name], tmp_path / "copy"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("missing", ["owner/model", "nowhere", "/no/where/at/all", "a b?"])
def test_what_is_missing_is_said(name: str, missing: str, cache: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither a folder nor.*: give the folder"):
        CREATE[name](Path(missing))
    # Only what may be an id is to be fetched.
    command = r"run `hf download owner/model`, or " if missing == "owner/model" else ""
    with pytest.raises(CheckpointError, match=rf"neither a folder nor.*: {command}give the folder"):
        CREATE[name](missing)


def test_what_was_fetched_is_found_by_its_id(
    name: str, detector_folders: dict[str, Path], cache: Path
) -> None:
    stored = cache / "models--owner--model"
    shutil.copytree(detector_folders[name], stored / "snapshots" / ("0" * 40))
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0" * 40)
    assert CREATE[name]("owner/model").model.config.model_type == name


def test_another_models_folder_is_refused(name: str, detector_folders: dict[str, Path]) -> None:
    for other, folder in detector_folders.items():
        if other != name:
            with pytest.raises(CheckpointError, match=f"of type '{other}', expected '{name}'"):
                CREATE[name](folder)


def test_a_folder_without_a_model_is_refused(name: str, tmp_path: Path) -> None:
    for content in (None, "not json", "[]"):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=f"no readable config.json; give the.*{name}"):
            CREATE[name](tmp_path)


@pytest.mark.parametrize("lost", ["model.safetensors", "preprocessor_config.json"])
def test_an_incomplete_folder_is_refused(name: str, copied: Path, lost: str) -> None:
    (copied / lost).unlink()
    with pytest.raises(CheckpointError, match=f"cannot be read as a {name} model .*again"):
        CREATE[name](copied)


def test_a_missing_tokenizer_is_told(name: str, copied: Path) -> None:
    for file in ("tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"):
        (copied / file).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"tokenizer.*; download the folder again"):
        CREATE[name](copied)


def test_broken_weights_are_refused(name: str, copied: Path) -> None:
    weights = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match=r"cannot be read as .*; download the folder again"):
        CREATE[name](copied)


@pytest.mark.parametrize("damage", ["missing", "mismatched"])
def test_weights_that_do_not_fit_are_refused(
    name: str, copied: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(copied / "model.safetensors")
    victim = next(key for key in weights if "layer_norm" in key or "norm1" in key)
    if damage == "missing":
        del weights[victim]
    else:
        weights[victim] = torch.zeros(3)
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"do not fit .*: 1 are missing or of another shape"):
        CREATE[name](copied)
    assert capfd.readouterr() == ("", "")


def test_what_is_left_over_does_no_harm(name: str, copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    weights["something.position_ids"] = torch.zeros(3)
    save_file(weights, copied / "model.safetensors", {"format": "pt"})
    assert CREATE[name](copied).model.config.model_type == name


def test_half_precision_weights_become_float32(name: str, copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    halved = {key: tensor.half() for key, tensor in weights.items()}
    save_file(halved, copied / "model.safetensors", {"format": "pt"})
    config = json.loads((copied / "config.json").read_text())
    config["dtype"] = "float16"
    (copied / "config.json").write_text(json.dumps(config))
    model = CREATE[name](copied).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training


def test_loading_is_quiet(
    name: str, detector_folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    CREATE[name](detector_folders[name])
    assert capfd.readouterr() == ("", "")


def test_an_old_transformers_is_said(
    detector_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Old:
        __version__ = "4.57.1"

    monkeypatch.setitem(sys.modules, "transformers", Old)
    remedy = r"transformers 4\.57\.1 has no Sam3Model: `pip install 'transformers>=5\.0'"
    with pytest.raises(CheckpointError, match=remedy):
        create_sam3_grounder(detector_folders["sam3"])


def test_no_transformers_is_said(
    name: str, detector_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CheckpointError, match=r"needs the transformers library: `pip install"):
        CREATE[name](detector_folders[name])
