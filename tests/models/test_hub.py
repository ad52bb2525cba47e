"""Weights on this machine: in folders and in the hub's cache, and never from the network."""

from __future__ import annotations

import json
import socket
import zipfile
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from promptseg.models.errors import CheckpointError, MissingWeightsError, ModelNotFoundError
from promptseg.models.features.dino import create_dino
from promptseg.models.hub.find import (
    find_places,
    find_source,
    find_weights,
    how_to_fetch,
    is_whole,
)
from promptseg.models.hub.sources import SOURCES, WeightSource

DETECTOR = WeightSource(
    "tiny-detector", "someone/tiny.detector", ("model.safetensors", "config.json"), 1000, "MIT"
)


def write(folder: Path, *names: str) -> Path:
    """Write whole files of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.endswith(".safetensors"):
            save_file({"a": np.zeros(5, np.float32)}, folder / name)
        elif name.endswith((".bin", ".pt")):
            with zipfile.ZipFile(folder / name, "w") as archive:
                archive.writestr("archive/data.pkl", b"")
        else:
            (folder / name).write_text("{}")
    return folder


def write_cached(cache: Path, repo: str, *names: str, commit: str = "c0ffee") -> Path:
    """Write files as the hub's library lays them out, and return their folder."""
    storage = cache / f"models--{repo.replace('/', '--')}"
    (storage / "refs").mkdir(parents=True, exist_ok=True)
    (storage / "refs" / "main").write_text(commit)
    blobs = write(storage / "blobs", *names)
    folder = storage / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).symlink_to(blobs / name)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, no folder of weights, and no network."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.delenv("PROMPTSEG_WEIGHTS", raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"the network was asked: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return folder


def test_a_source_is_found_in_a_folder(tmp_path: Path, monkeypatch) -> None:
    own = tmp_path / "own"
    for below in ("someone--tiny.detector", "tiny.detector"):
        folder = write(own / below, *DETECTOR.files)
        assert find_source(DETECTOR, own) == folder
        monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(own))
        assert find_source(DETECTOR) == folder
        monkeypatch.delenv("PROMPTSEG_WEIGHTS")
        (folder / "config.json").unlink()


def test_a_source_is_found_in_the_cache(cache: Path, tmp_path: Path) -> None:
    folder = write_cached(cache, DETECTOR.repo, *DETECTOR.files)
    assert find_source(DETECTOR) == folder
    assert find_source(DETECTOR, tmp_path / "none") == folder
    # A folder of the user's comes first, but only with all files.
    own = write(tmp_path / "own" / "tiny.detector", "config.json").parent
    assert find_source(DETECTOR, own) == folder
    write(own / "tiny.detector", "model.safetensors")
    assert find_source(DETECTOR, own) == own / "tiny.detector"


def test_a_source_is_found_by_its_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "facebook--sam-vit-base", "model.safetensors")
    assert find_source("sam-vit-base", tmp_path) == folder
    with pytest.raises(ModelNotFoundError, match="no weights are called 'sam'"):
        find_source("sam")


def test_a_missing_source_says_what_to_run() -> None:
    says = r"the weights of sam-vit-huge are missing: run `hf download facebook/sam-vit-huge`$"
    with pytest.raises(MissingWeightsError, match=says):
        find_source("sam-vit-huge")


def test_a_folder_that_is_none_is_named(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    for own in (tmp_path / "nowhere", tmp_path / "file"):
        says = rf"{own} is not a folder\): run `hf download someone/tiny.detector`"
        with pytest.raises(CheckpointError, match=says):
            find_source(DETECTOR, own)
        monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(own))
        with pytest.raises(CheckpointError, match=says):
            find_source(DETECTOR)
        monkeypatch.delenv("PROMPTSEG_WEIGHTS")


def test_a_path_of_a_file_is_no_id() -> None:
    for path in ("weights/sam.pth", "runs/model.safetensors", "a/b.onnx"):
        assert how_to_fetch(path) == ""
        assert find_weights(path) == Path(path)
    assert how_to_fetch("owner/sam2.1-pt") == "hf download owner/sam2.1-pt"


def test_every_place_with_a_part_is_named(cache: Path, tmp_path: Path) -> None:
    own = write(tmp_path / "own" / "someone--tiny.detector", "config.json")
    cached = write_cached(cache, DETECTOR.repo, "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        find_source(DETECTOR, tmp_path / "own")
    assert "are incomplete" in str(caught.value)
    assert f"{own} lacks model.safetensors" in str(caught.value)
    assert f"{cached} lacks config.json" in str(caught.value)


def test_the_fullest_place_comes_first(cache: Path, tmp_path: Path) -> None:
    assert find_places(DETECTOR) == []
    write(tmp_path / "own" / "tiny.detector", "config.json")
    folder = write_cached(cache, DETECTOR.repo, *DETECTOR.files)
    places = find_places(DETECTOR, tmp_path / "own")
    assert [(place.folder.name, place.missing) for place in places] == [
        (folder.name, ()),
        ("tiny.detector", ("model.safetensors",)),
    ]


def test_a_broken_cache_has_nothing(cache: Path) -> None:
    storage = cache / "models--someone--tiny.detector"
    folder = write_cached(cache, DETECTOR.repo, *DETECTOR.files)
    (storage / "blobs" / "model.safetensors").unlink()  # the link hangs in the air
    assert find_places(DETECTOR)[0].missing == ("model.safetensors",)
    (storage / "refs" / "main").write_bytes(b"\xff\xfe")
    assert find_places(DETECTOR) == []
    (storage / "refs" / "main").write_text("other")
    assert find_places(DETECTOR) == []
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.parent.rmdir()
    folder.parent.write_text("no folder")
    assert find_places(DETECTOR) == []


def test_a_folder_that_is_a_file_has_nothing(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    assert find_places(DETECTOR, tmp_path / "file") == []
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert find_places(DETECTOR, loop) == []
    monkeypatch.setenv("PROMPTSEG_WEIGHTS", "")
    assert find_places(DETECTOR) == []

    def deny(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    folder = write(tmp_path / "own" / "tiny.detector", *DETECTOR.files).parent
    monkeypatch.setattr(Path, "stat", deny)
    assert find_places(DETECTOR, folder) == []


def test_cut_off_weights_are_not_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "model.safetensors") / "model.safetensors"
    whole = path.read_bytes()
    assert is_whole(path)
    for cut in (1, 7, 8, 20, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert not is_whole(path)
    path.write_bytes(whole + b"x")
    assert not is_whole(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")
    assert not is_whole(path)
    for header in ("[]", '{"a": 1}', '{"a": {}}', '{"a": {"data_offsets": []}}', '"a"', "5"):
        path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
        assert not is_whole(path)
    empty = json.dumps({"__metadata__": {}}).encode()
    path.write_bytes(len(empty).to_bytes(8, "little") + empty)
    assert not is_whole(path)  # it holds no tensor
    gap = json.dumps({"a": {"data_offsets": [0, 1]}, "b": {"data_offsets": [2, 3]}}).encode()
    path.write_bytes(len(gap).to_bytes(8, "little") + gap + b"abc")
    assert not is_whole(path)
    deep = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    path.write_bytes(len(deep).to_bytes(8, "little") + deep)
    assert not is_whole(path)
    assert not is_whole(tmp_path)
    (tmp_path / "config.json").touch()
    assert not is_whole(tmp_path / "config.json")
    assert not is_whole(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("name", "content", "whole"),
    [
        ("config.json", b'{"a": 1}', True),
        ("config.json", b'{"a": 1', False),
        ("config.json", b"[1]", False),
        ("config.json", b"<!doctype html><title>404</title>", False),
        ("vocab.txt", "[PAD]\nd\u00e9j\u00e0\n".encode(), True),
        ("vocab.txt", b"\xff\xfe\x00", False),
        ("merges.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", False),
        ("merges.txt", b"<html>Bad gateway</html>", False),
        ("weights.pt", b"no weights", False),
        ("weights.pt", b"PK\x03\x04", False),
        ("weights.pth", b"<html>Bad gateway</html>", False),
    ],
)
def test_files_are_whole_by_their_own_format(
    tmp_path: Path, name: str, content: bytes, whole: bool
) -> None:
    (tmp_path / name).write_bytes(content)
    assert is_whole(tmp_path / name) is whole


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_pytorch_are_whole_if_none_of_them_is_cut(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(9)}, path, _use_new_zipfile_serialization=zipped)
    assert is_whole(path)
    path.write_bytes(path.read_bytes()[: 200 if zipped else 5])
    assert not is_whole(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no weights")
    assert not is_whole(path)


def test_what_exists_is_a_path(cache: Path) -> None:
    write_cached(cache, "timm/dino", "model.safetensors")
    Path("timm").mkdir()
    Path("timm/dino").write_bytes(b"weights")
    assert find_weights("timm/dino") == Path("timm/dino")
    assert find_weights(Path("timm/other")) == Path("timm/other")
    for name in ("weights.pth", "a/b/c.pth", "/timm/dino", "./dino", "../dino"):
        assert find_weights(name) == Path(name)


def test_an_id_is_found(cache: Path, tmp_path: Path, monkeypatch) -> None:
    folder = write_cached(cache, "timm/dino.x", "pytorch_model.bin")
    assert find_weights("timm/dino.x") == folder / "pytorch_model.bin"
    folder = write_cached(
        cache, "timm/dino.x", "pytorch_model.bin", "model.safetensors", commit="b"
    )
    assert find_weights("timm/dino.x") == folder / "model.safetensors"
    own = write(tmp_path / "own" / "timm--dino.x", "model.safetensors")
    monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(own.parent))
    assert find_weights("timm/dino.x") == own / "model.safetensors"
    folder = write_cached(cache, SOURCES["mobile-sam"].repo, "mobile_sam.pt")
    assert find_weights(SOURCES["mobile-sam"].repo) == folder / "mobile_sam.pt"


def test_an_id_that_is_not_here_says_what_to_run(cache: Path) -> None:
    write_cached(cache, "timm/other", "config.json")
    with pytest.raises(CheckpointError, match=r"its model\.safetensors or pytorch_model\.bin: run"):
        find_weights("timm/other")
    with pytest.raises(CheckpointError, match="run `hf download timm/other` or give the path"):
        find_weights("timm/other")
    name = "timm/vit_small_patch14_dinov2.lvd142m"
    with pytest.raises(CheckpointError, match=f"run `hf download {name}` or give"):
        create_dino("vit_small_patch14_dinov2", checkpoint=name)
