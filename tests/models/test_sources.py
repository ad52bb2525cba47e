"""The table of published weights."""

from __future__ import annotations

import re

import pytest

from promptseg.models.errors import ModelNotFoundError
from promptseg.models.hub.sources import (
    PRESET_WEIGHTS,
    SOURCES,
    fetch_command,
    get_source,
    sources_for,
)
from promptseg.models.registry import get_model_info

ALL = SOURCES.values()


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.name)
def test_sources_are_sound(source) -> None:
    assert SOURCES[source.name] is source
    assert source.name not in PRESET_WEIGHTS
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


def test_presets_are_made_of_sources() -> None:
    assert list(PRESET_WEIGHTS) == ["pocket", "mobile", "base", "large"]
    assert PRESET_WEIGHTS["pocket"] == {}
    for parts in PRESET_WEIGHTS.values():
        assert set(parts.values()) <= set(SOURCES)
        assert set(parts) <= {"text", "presence", "reference", "masks"}
        assert not any(SOURCES[name].gated for name in parts.values())
    assert PRESET_WEIGHTS["base"]["presence"] == "clip-vit-b-16"
    assert PRESET_WEIGHTS["large"]["text"] == "grounding-dino-base"
    sizes = [sum(source.bytes for source in sources_for(name)) for name in PRESET_WEIGHTS]
    assert sizes == sorted(sizes)


def test_sources_are_found_by_preset_and_name() -> None:
    names = [source.name for source in sources_for("mobile")]
    assert names == ["owlv2-base", "dinov2-small", "mobile-sam"]
    assert sources_for("pocket") == ()
    assert sources_for("sam3") == (get_source("sam3"),)
    with pytest.raises(ModelNotFoundError, match=r"'huge'; there are the presets pocket, mobile"):
        sources_for("huge")
    with pytest.raises(ModelNotFoundError, match=r"no weights are called 'base'; there are mobile"):
        get_source("base")


def test_the_command_names_the_preset_if_there_is_one() -> None:
    assert fetch_command(SOURCES["clip-vit-b-16"]) == "promptseg models fetch base"
    assert fetch_command(SOURCES["sam-vit-huge"]) == "promptseg models fetch large"
    assert fetch_command(SOURCES["sam3"]) == "promptseg models fetch sam3"
