"""Every file that cannot be loaded gives a CheckpointError that names what to do."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from promptseg.models.checkpoint import load_strictly, read_state_dict
from promptseg.models.errors import CheckpointError
from promptseg.models.registry import create_model
from promptseg.models.sam.checkpoints import suggest_model


def weights() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


class Payload:
    """Runs code when unpickled, as a harmful file would."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def write_missing(folder: Path) -> Path:
    return folder / "none.pth"


def write_empty_folder(folder: Path) -> Path:
    (folder / "config.json").write_text("{}")
    return folder


def write_empty_file(folder: Path) -> Path:
    (folder / "empty.pth").touch()
    return folder / "empty.pth"


def write_text(folder: Path) -> Path:
    (folder / "weights.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    return folder / "weights.pth"


def write_html_as_safetensors(folder: Path) -> Path:
    (folder / "model.safetensors").write_text("<!doctype html><title>404</title>")
    return folder / "model.safetensors"


def write_truncated_pth(folder: Path) -> Path:
    torch.save({"weight": torch.zeros(1000)}, folder / "whole.pth")
    content = (folder / "whole.pth").read_bytes()
    (folder / "cut.pth").write_bytes(content[: len(content) // 2])
    return folder / "cut.pth"


def write_truncated_safetensors(folder: Path) -> Path:
    save_file({"weight": torch.zeros(1000)}, folder / "whole.safetensors")
    content = (folder / "whole.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:-100])
    return folder / "cut.safetensors"


def write_list(folder: Path) -> Path:
    torch.save([torch.zeros(2)], folder / "list.pt")
    return folder / "list.pt"


def write_mixed(folder: Path) -> Path:
    torch.save({"weight": torch.zeros(2), "epoch": 3}, folder / "mixed.pt")
    return folder / "mixed.pt"


def write_no_tensors(folder: Path) -> Path:
    torch.save({}, folder / "nothing.pt")
    return folder / "nothing.pt"


def write_image(folder: Path) -> Path:
    (folder / "cat.jpg").write_bytes(b"\xff\xd8\xff")
    return folder / "cat.jpg"


def write_bad_index(folder: Path) -> Path:
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')
    return folder


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_missing, "does not exist"),
        (write_empty_folder, "holds no weights: expected one of model.safetensors"),
        (write_empty_file, "is an empty file; download it again"),
        (write_text, "is not a plain PyTorch state dict"),
        (write_html_as_safetensors, "is not a complete safetensors file"),
        (write_truncated_pth, "not a (complete PyTorch file|plain PyTorch state dict)"),
        (write_truncated_safetensors, "is not a complete safetensors file"),
        (write_list, "holds list, expected a state dict"),
        (write_mixed, r"1 entries that are not tensors \(epoch\)"),
        (write_no_tensors, "holds no tensors"),
        (write_image, r"is not a weights file; expected one ending in \.safetensors"),
        (write_bad_index, "not the index of a sharded checkpoint"),
    ],
)
def test_unreadable(write, message, tmp_path):
    path = write(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# PyTorch warns of foreign pickles; the reason that it then gives is what counts.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("protocol", ["zip", "plain"])
def test_code_in_a_file_never_runs(tmp_path, protocol):
    marker, path = tmp_path / "ran", tmp_path / "harmful.pth"
    if protocol == "zip":
        torch.save(Payload(marker), path)
    else:
        path.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(CheckpointError, match="never loaded"):
        read_state_dict(path)
    assert not marker.exists()


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrapped_weights_are_found(tmp_path, wrapper):
    torch.save(
        weights() if wrapper is None else {wrapper: weights(), "epoch": 3}, tmp_path / "a.pt"
    )
    state = read_state_dict(tmp_path / "a.pt")
    assert set(state) == {"weight", "bias"}
    assert torch.equal(state["weight"], weights()["weight"])


def test_files_of_old_pytorch(tmp_path):
    torch.save(weights(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_state_dict(tmp_path / "old.pth")["weight"], weights()["weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path, dtype):
    half = {name: tensor.to(dtype) for name, tensor in weights().items()}
    save_file(half, tmp_path / "half.safetensors")
    state = read_state_dict(tmp_path / "half.safetensors")
    assert state["weight"].dtype == torch.float32
    assert torch.equal(state["weight"], weights()["weight"])


def test_integers_stay_integers(tmp_path):
    torch.save({"count": torch.tensor(3)}, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt")["count"].dtype == torch.int64


def test_misfit_says_expected_and_found():
    model = torch.nn.Linear(3, 2)
    with pytest.raises(CheckpointError) as caught:
        load_strictly(
            model,
            {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)},
            source="w.pth",
            name="a layer",
        )
    assert str(caught.value) == (
        "w.pth does not fit a layer: expected 2 tensors, found 2, 1 missing (bias), "
        "1 unexpected (extra), 1 of another shape (weight (2, 4) instead of (2, 3)); "
        "give a checkpoint of a layer"
    )


def test_a_failed_load_changes_nothing():
    model = torch.nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_strictly(model, {"weight": torch.zeros(2, 3)}, source="w.pth", name="a layer")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("key", "shape", "clause"),
    [
        ("image_encoder.pos_embed", (1, 64, 64, 768), 'create_model("sam_vit_b"'),
        ("image_encoder.pos_embed", (1, 64, 64, 1024), 'create_model("sam_vit_l"'),
        ("image_encoder.pos_embed", (1, 64, 64, 1280), 'create_model("sam_vit_h"'),
        (
            "image_encoder.layers.0.blocks.0.conv1.c.weight",
            (256, 64, 1, 1),
            'create_model("sam_vit_t"',
        ),
        ("image_encoder.trunk.pos_embed", (1,), "SAM 2"),
        ("mask_decoder.hf_token.weight", (1, 256), "HQ-SAM"),
        ("transformer.wte.weight", (5, 5), ""),
    ],
)
def test_models_are_recognised(key, shape, clause):
    suggestion = suggest_model({key: torch.empty(shape, device="meta")}, wanted="sam_pocket")
    assert clause in suggestion
    assert bool(suggestion) == bool(clause)


def test_another_models_file_names_the_right_model(tmp_path):
    large = {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 1024)}
    torch.save(large, tmp_path / "sam_vit_l.pth")
    with pytest.raises(CheckpointError, match=r'looks like sam_vit_l: use create_model\("sam_vit'):
        create_model("sam_vit_t", checkpoint=tmp_path / "sam_vit_l.pth")
    # Hugging Face's names of the same weights.
    save_file(
        {"vision_encoder.pos_embed": torch.zeros(1, 64, 64, 1024)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match="looks like sam_vit_l"):
        create_model("sam_vit_t", checkpoint=tmp_path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3},
        lambda state: {"model_state_dict": {f"module._orig_mod.{k}": v for k, v in state.items()}},
    ],
    ids=["DDP", "compile", "Lightning", "both"],
)
def test_names_of_training_wrappers_are_removed(wrap, tmp_path: Path) -> None:
    torch.save(wrap(weights()), tmp_path / "a.pt")
    state = read_state_dict(tmp_path / "a.pt")
    assert set(state) == set(weights())
    assert all(torch.equal(state[name], value) for name, value in weights().items())


def test_a_prefix_of_some_names_is_a_name(tmp_path: Path) -> None:
    torch.save({"model.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "a.pt")
    assert set(read_state_dict(tmp_path / "a.pt")) == {"model.a", "b"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.zeros(1, dtype=torch.float16).expand(10**7, 1000), "stores fewer values"),
        (torch.zeros(2, 2).to_sparse(), "expected plain numbers"),
        (torch.zeros(2, dtype=torch.complex64), "expected plain numbers"),
    ],
    ids=["expanded", "sparse", "complex"],
)
def test_tensors_that_are_not_plain_are_refused(tensor, says: str, tmp_path: Path) -> None:
    torch.save({"a": tensor}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=says):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_never_raise_anything_else(tmp_path: Path) -> None:
    """Bytes are flipped and files are cut at places drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    for name, save in (("a.pt", torch.save), ("a.safetensors", save_file)):
        path = tmp_path / name
        save(weights(), path)
        good = path.read_bytes()
        told: list[str] = []
        for _ in range(500):
            bad = bytearray(good)
            for at in rng.integers(0, len(good), rng.integers(1, 20)):
                bad[at] = rng.integers(256)
            path.write_bytes(bad[: rng.integers(0, len(bad))] if rng.random() < 0.3 else bad)
            try:
                read_state_dict(path)
            except CheckpointError as error:
                told.append(str(error))
        assert len(told) > 100
        assert not any("\n" in text for text in told)


def test_odd_indexes_of_shards_are_refused(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    for content in (
        "[" * 100_000,
        '{"weight_map": ["a"]}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../a.safetensors"}}',
        json.dumps({"weight_map": {"a": "x" * 300}}),
        '{"weight_map": {"a": "a\\u0000b"}}',
        '{"weight_map": {"a": "\\ud800"}}',
    ):
        index.write_text(content, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"not the index|not a file beside it"):
            read_state_dict(index)
