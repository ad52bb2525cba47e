"""Models by name."""

from __future__ import annotations

import json
from typing import get_type_hints

import pytest
import torch

from promptseg.models import ModelNotFoundError, create_model, get_model_info, list_models
from promptseg.models.registry import CONFIG_FOLDER, _hydrate
from promptseg.models.sam.build import SamTinyViTConfig
from promptseg.models.sam.sam import Sam
from promptseg.models.sam.sam2 import Sam2


def test_names():
    assert list_models()[:5] == ["sam_pocket", "sam_vit_t", "sam_vit_b", "sam_vit_l", "sam_vit_h"]
    assert sorted(path.stem for path in CONFIG_FOLDER.glob("*.json")) == sorted(list_models())


@pytest.mark.parametrize("function", [create_model, get_model_info])
def test_unknown_name_lists_the_known(function):
    with pytest.raises(ModelNotFoundError, match="'sam_vit_x'; there are sam_pocket, sam_vit_t"):
        function("sam_vit_x")


def test_seeds():
    state = torch.get_rng_state()
    first, again, other = (create_model("sam_vit_t", seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are untouched
    assert isinstance(first, Sam)
    assert not first.training
    same = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    weight = "image_encoder.neck.0.weight"
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])


def test_a_model_knows_its_name_and_its_type():
    """So that ``Segmenter(create_model(...))`` passes a type checker and embeddings are marked."""
    assert get_type_hints(create_model)["return"] == Sam | Sam2
    assert create_model("sam_pocket").model_id == "sam_pocket"


def test_description():
    info = get_model_info("sam_vit_b")
    assert (info.name, info.parameters, info.license) == ("sam_vit_b", 93_735_472, "Apache-2.0")
    assert "sam_vit_b_01ec64.pth" in info.weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, r"unknown \['depth'\]"),
        ({"depths": None}, r"missing \['depths'\]"),
    ],
)
def test_a_config_with_other_fields_is_refused(change, message):
    values = json.loads((CONFIG_FOLDER / "sam_vit_t.json").read_text())["config"] | change
    values = {key: value for key, value in values.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        _hydrate(SamTinyViTConfig, values, "sam_vit_t")
