"""Checkpoints by path or hub id, without a network."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

from promptseg.models.errors import CheckpointError
from promptseg.models.hub import find_weights


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], object]:
    """What the hub answers to (id, file): a path or an error; nothing else exists on it."""
    answers: dict[tuple[str, str], object] = {}

    def download(repo_id: str, filename: str) -> str:
        answer = answers.get((repo_id, filename))
        if answer is None:
            error = RemoteEntryNotFoundError.__new__(RemoteEntryNotFoundError)
            Exception.__init__(error, "404")
            raise error
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return answers


def test_what_exists_is_a_path(hub, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "dino").write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    hub["timm/dino", "model.safetensors"] = RuntimeError("asked")
    assert find_weights("timm/dino") == Path("timm/dino")
    assert find_weights(Path("timm/other")) == Path("timm/other")
    for name in ("weights.pth", "a/b/c.pth", "/timm/dino", "./dino", "../dino"):
        assert find_weights(name) == Path(name)


def test_an_id_is_fetched(hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    hub["timm/dino.x", "model.safetensors"] = "/cache/a.safetensors"
    assert find_weights("timm/dino.x") == Path("/cache/a.safetensors")
    hub["old/dino", "pytorch_model.bin"] = "/cache/b.bin"
    assert find_weights("old/dino") == Path("/cache/b.bin")


def test_what_the_hub_does_not_give_is_told(hub, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"has none of model\.safetensors, pytorch_model"):
        find_weights("timm/empty")
    hub["timm/far", "model.safetensors"] = LocalEntryNotFoundError("no\nnetwork")
    with pytest.raises(CheckpointError, match=r"does not give it \(no network\); check the name"):
        find_weights("timm/far")
