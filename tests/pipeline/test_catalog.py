"""The presets by name, and the published weights that each needs."""

from __future__ import annotations

import pytest

from promptseg.models.errors import ModelNotFoundError
from promptseg.models.hub.sources import SOURCES, get_source
from promptseg.pipeline.presets.catalog import PRESETS, get_preset, sources_for


def test_presets_are_made_of_sources() -> None:
    assert list(PRESETS) == ["pocket", "mobile", "base", "large"]
    assert not PRESETS["pocket"].weights
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert name not in SOURCES
        assert set(preset.weights) <= {"text", "presence", "reference", "masks"}
        assert not any(source.gated for source in preset.sources)
    sizes = [sum(source.bytes for source in preset.sources) for preset in PRESETS.values()]
    assert sizes == sorted(sizes)


def test_sources_are_found_by_preset_and_name() -> None:
    names = [source.name for source in sources_for("mobile")]
    assert names == ["owlv2-base", "dinov2-small", "mobile-sam"]
    assert sources_for("pocket") == ()
    assert sources_for("sam3") == (get_source("sam3"),)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelNotFoundError, match=r"'huge'; there are pocket, mobile, base, large"):
        get_preset("huge")
    with pytest.raises(ModelNotFoundError, match=r"'huge'; there are the presets pocket, mobile"):
        sources_for("huge")
