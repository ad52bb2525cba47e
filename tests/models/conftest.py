"""Shrunken SAMs with random weights, and independent references that carry the same weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from promptseg.models.sam.build import build_sam_tiny_vit, build_sam_vit
from promptseg.models.sam.sam import Sam

from ..shrunken import (
    SHRUNKEN_TINY_VIT,
    SHRUNKEN_VITS,
    Pair,
    build_pair,
    randomise,
    save_grounding_dino,
    save_owlv2,
    save_sam3,
)


@pytest.fixture(scope="session", params=list(SHRUNKEN_VITS))
def pair(request: pytest.FixtureRequest) -> Pair:
    """Every shrunken ViT SAM beside its reference."""
    return build_pair(SHRUNKEN_VITS[request.param])


@pytest.fixture(scope="session")
def tiny_vit_sam() -> Sam:
    """A shrunken MobileSAM."""
    model = build_sam_tiny_vit(SHRUNKEN_TINY_VIT)
    randomise(model, seed=1)
    return model.eval()


@pytest.fixture(scope="session")
def shrunken_models(tiny_vit_sam: Sam) -> dict[str, Callable[[], Sam]]:
    """Name -> builder of a small model of every architecture with public weights."""
    return {
        **{name: partial(build_sam_vit, config) for name, config in SHRUNKEN_VITS.items()},
        "tiny-vit": partial(build_sam_tiny_vit, SHRUNKEN_TINY_VIT),
    }


@pytest.fixture(scope="session")
def detector_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model type -> the saved folder of a shrunken detector."""
    root = tmp_path_factory.mktemp("detectors")
    saves = {"grounding-dino": save_grounding_dino, "owlv2": save_owlv2, "sam3": save_sam3}
    return {name: save(root / name) for name, save in saves.items()}
