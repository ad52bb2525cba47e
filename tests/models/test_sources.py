"""The table of published weights."""

from __future__ import annotations

import re

import pytest

from promptseg.models.errors import ModelNotFoundError
from promptseg.models.hub.sources import SOURCES, get_source
from promptseg.models.registry import get_model_info

ALL = SOURCES.values()


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.name)
def test_sources_are_sound(source) -> None:
    assert SOURCES[source.name] is source
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", source.repo)
    assert source.weights in ("model.safetensors", "open_clip_model.safetensors", "mobile_sam.pt")
    assert len(set(source.files)) == len(source.files)
    assert all("/" not in name for name in source.files)
    assert set(source.sha256) <= {source.weights}
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in source.sha256.values())
    assert source.license
    assert source.package in ("", "timm", "transformers", "open_clip_torch")


def test_sources_differ() -> None:
    assert len({source.repo for source in ALL}) == len(SOURCES)
    hashes = [value for source in ALL for value in source.sha256.values()]
    assert len(set(hashes)) == len(hashes)
    assert [source.name for source in ALL if source.gated] == ["sam3"]


@pytest.mark.parametrize(
    ("source", "model"),
    [
        ("mobile-sam", "sam_vit_t"),
        ("sam-vit-base", "sam_vit_b"),
        ("sam-vit-large", "sam_vit_l"),
        ("sam-vit-huge", "sam_vit_h"),
    ],
)
def test_sizes_are_those_of_our_own_models(source: str, model: str) -> None:
    # The header of names is small; a SAM keeps a few buffers beside its parameters.
    parameters = get_model_info(model).parameters
    assert SOURCES[source].bytes == pytest.approx(4 * parameters, rel=0.05)


def test_an_unknown_name_lists_the_known() -> None:
    assert get_source("sam3").gated
    with pytest.raises(ModelNotFoundError, match=r"no weights are called 'base'; there are mobile"):
        get_source("base")
