"""Networks built for stored weights: no parameter is filled before they are there."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from promptseg.models.checkpoint import load_strictly, without_initialising
from promptseg.models.errors import CheckpointError
from promptseg.models.registry import create_model


def build() -> nn.Module:
    names = ("conv", "norm", "linear", "embedding")
    layers = (nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Linear(3, 4), nn.Embedding(5, 4))
    model = nn.Sequential(OrderedDict(zip(names, layers, strict=True)))
    nn.init.normal_(model.linear.weight, std=0.02)
    model.register_buffer("ramp", torch.zeros(4).add_(torch.arange(4.0)), persistent=False)
    return model


def test_no_parameter_is_filled_and_no_random_number_is_drawn() -> None:
    state = torch.get_rng_state()
    with without_initialising():
        built = build()
    assert torch.equal(torch.get_rng_state(), state)
    # What is no parameter is computed as always.
    assert built.ramp.tolist() == [0, 1, 2, 3]
    assert built.norm.running_var.tolist() == [1, 1, 1]
    build()
    assert not torch.equal(torch.get_rng_state(), state)


def test_stored_weights_fill_it() -> None:
    whole = build()
    with without_initialising():
        built = build()
    load_strictly(built, whole.state_dict(), source="a test", name="layers")
    found = built.state_dict()
    assert all(torch.equal(found[name], value) for name, value in whole.state_dict().items())
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in built.parameters())
    short = {name: value for name, value in found.items() if name != "conv.bias"}
    with pytest.raises(CheckpointError, match="1 missing"):
        load_strictly(built, short, source="a test", name="layers")


def test_other_types_become_the_models() -> None:
    whole = build()
    double = {name: value.double() for name, value in whole.state_dict().items()}
    built = build()
    load_strictly(built, double, source="a test", name="layers")
    assert built.linear.weight.dtype == torch.float32
    assert built.norm.num_batches_tracked.dtype == torch.int64


def test_a_loaded_model_computes_what_the_stored_one_does(tmp_path) -> None:
    stored = create_model("sam_pocket", seed=3)
    save_file(stored.state_dict(), tmp_path / "pocket.safetensors")
    state = torch.get_rng_state()
    loaded = create_model("sam_pocket", checkpoint=tmp_path / "pocket.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = (model.encode_image(pixels) for model in (stored, loaded))
    assert torch.equal(found.image_embeddings, expected.image_embeddings)
