"""Models by name: an explicit table from a name to its configuration and builder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoint import load_strictly, read_state_dict
from .errors import ModelNotFoundError
from .pocket.sam import PocketSamConfig, build_pocket_sam, with_backbone
from .sam.build import SamTinyViTConfig, SamViTConfig, build_sam_tiny_vit, build_sam_vit
from .sam.checkpoints import suggest_model, to_official_layout
from .sam.sam import Sam

CONFIG_FOLDER = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class ModelInfo:
    """What there is to know of a model before it is built.

    Attributes:
        name: The name for :func:`create_model`.
        description: One line.
        parameters: Number of parameters.
        license: Licence of the published weights.
        weights: Where the weights come from.
    """

    name: str
    description: str
    parameters: int
    license: str
    weights: str


@dataclass(frozen=True)
class _Family:
    """How models of one kind are built and their checkpoints understood."""

    config_class: type[Any]
    build: Callable[[Any], Sam]
    to_layout: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


_SAM_VIT = _Family(SamViTConfig, build_sam_vit, to_official_layout)
_SAM_TINY_VIT = _Family(SamTinyViTConfig, build_sam_tiny_vit, to_official_layout)
_SAM_POCKET = _Family(PocketSamConfig, build_pocket_sam, with_backbone)

# Name -> family; the sizes are in configs/<name>.json.
_MODELS: dict[str, _Family] = {
    "sam_pocket": _SAM_POCKET,
    "sam_vit_t": _SAM_TINY_VIT,
    "sam_vit_b": _SAM_VIT,
    "sam_vit_l": _SAM_VIT,
    "sam_vit_h": _SAM_VIT,
}


def list_models() -> list[str]:
    """Names for :func:`create_model`, smallest model first."""
    return list(_MODELS)


def get_model_info(name: str) -> ModelInfo:
    """Describe a model without building it.

    Raises:
        ModelNotFoundError: There is no model of that name.
    """
    _find(name)
    return _read_config(name)[0]


def create_model(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Sam:
    """Build a model in evaluation mode.

    Args:
        name: One of :func:`list_models`.
        checkpoint: Weights: an official file, a file or folder of the Hugging Face hub. None
            leaves the weights random.
        device: Where the model goes.
        seed: Of the random weights: the same seed gives the same weights. The global random
            state is not touched.

    Returns:
        The model; its ``model_id`` is the name.

    Raises:
        ModelNotFoundError: There is no model of that name.
        CheckpointError: The checkpoint is missing, broken or another model's.
    """
    family = _find(name)
    # Weights first: a wrong file should not cost the building of a large model.
    state = None if checkpoint is None else family.to_layout(read_state_dict(checkpoint))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = family.build(_read_config(name)[1])
    if state is not None and checkpoint is not None:
        hint = suggest_model(state, wanted=name)
        load_strictly(model, state, source=checkpoint, name=name, hint=hint)
    model.model_id = name
    return model.to(device).eval()


def _find(name: str) -> _Family:
    family = _MODELS.get(name)
    if family is None:
        raise ModelNotFoundError(f"no model is called {name!r}; there are {', '.join(_MODELS)}")
    return family


@cache
def _read_config(name: str) -> tuple[ModelInfo, Any]:
    """The description and the configuration in ``configs/<name>.json``."""
    content = json.loads((CONFIG_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    info = _hydrate(ModelInfo, {"name": name, **content["about"]}, name)
    return info, _hydrate(_MODELS[name].config_class, content["config"], name)


def _hydrate(target: type[Any], values: Mapping[str, Any], name: str) -> Any:
    """A dataclass from JSON values; ValueError when fields are unknown or missing."""
    known = {field.name for field in fields(target)}
    required = {
        field.name
        for field in fields(target)
        if field.default is MISSING and field.default_factory is MISSING
    }
    if set(values) - known or required - set(values):
        raise ValueError(
            f"configs/{name}.json does not describe a {target.__name__}: unknown "
            f"{sorted(set(values) - known)}, missing {sorted(required - set(values))}"
        )
    tuples = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return target(**tuples)
