"""Models by name: tables from each name to what builds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from .checkpoint import load_strictly, read_state_dict, without_initialising
from .device import read_device
from .errors import InputError, ModelNotFoundError
from .grounding.answers import Detector
from .grounding.clip.dense import DenseClip, create_dense_clip
from .grounding.grounding_dino import create_grounding_dino
from .grounding.owlv2 import create_owlv2
from .grounding.sam3 import create_sam3_grounder
from .pocket.sam import PocketSamConfig, build_pocket_sam, with_backbone
from .sam.build import SamTinyViTConfig, SamViTConfig, build_sam_tiny_vit, build_sam_vit
from .sam.checkpoints import suggest_model, to_official_layout
from .sam.sam import Sam
from .sam.sam2 import Sam2, Sam2Size, create_sam2

DetectorName = Literal["grounding_dino", "owlv2", "sam3"]

CONFIG_FOLDER = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class ModelInfo:
    """Description of a model that can be read without building it.

    Attributes:
        name: Name for :func:`create_model`.
        description: One line about it.
        parameters: Number of parameters.
        license: Licence of the published weights.
        weights: Where the published weights are.
    """

    name: str
    description: str
    parameters: int
    license: str
    weights: str


@dataclass(frozen=True)
class _Family:
    """How models of one kind are built and how their checkpoints are read."""

    config_class: type[Any]
    build: Callable[[Any], Sam]
    to_layout: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


_SAM_VIT = _Family(SamViTConfig, build_sam_vit, to_official_layout)
_SAM_TINY_VIT = _Family(SamTinyViTConfig, build_sam_tiny_vit, to_official_layout)
_SAM_POCKET = _Family(PocketSamConfig, build_pocket_sam, with_backbone)

# Name -> family, None for SAM 2; the sizes are in configs/<name>.json.
_MODELS: dict[str, _Family | None] = {
    "sam_pocket": _SAM_POCKET,
    "sam_vit_t": _SAM_TINY_VIT,
    "sam_vit_b": _SAM_VIT,
    "sam_vit_l": _SAM_VIT,
    "sam_vit_h": _SAM_VIT,
    "sam2.1_hiera_tiny": None,
    "sam2.1_hiera_small": None,
    "sam2.1_hiera_base_plus": None,
    "sam2.1_hiera_large": None,
}

_DETECTORS: dict[str, Callable[..., Detector[Any]]] = {
    "grounding_dino": create_grounding_dino,
    "owlv2": create_owlv2,
    "sam3": create_sam3_grounder,
}
_GROUNDERS = (*_DETECTORS, "dense_clip")


def list_models() -> list[str]:
    """Names for :func:`create_model`; within a family, smallest model first."""
    return list(_MODELS)


def list_grounders() -> list[str]:
    """Names for :func:`create_grounder`."""
    return list(_GROUNDERS)


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
) -> Sam | Sam2:
    """Build a model that turns points, boxes and masks into masks, in evaluation mode.

    Args:
        name: One of :func:`list_models`.
        checkpoint: Weights: an official file, or a file or folder from the Hugging Face hub. None
            leaves the weights random. SAM 2.1 needs a folder, or the hub id of one that is on this
            machine.
        device: Device to put the model on.
        seed: Seed of the random weights; the global random state is not touched.

    Returns:
        The model, with the name as its ``model_id``.

    Raises:
        ModelNotFoundError: There is no model of that name.
        InputError: There is no such device.
        CheckpointError: The checkpoint is missing, broken or another model's.
        InputError: SAM 2.1 was asked for without a checkpoint.
    """
    family, device = _find(name), read_device(device)
    if family is None:
        return _create_sam2(name, checkpoint, device)
    # Weights first: with a wrong file there is no need to build a large model.
    if checkpoint is not None:
        state = family.to_layout(read_state_dict(checkpoint))
        return create_loaded(name, state, source=checkpoint, device=device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = family.build(_read_config(name)[1])
    model.model_id = name
    return model.to(device).eval()


def create_loaded(
    name: str, state: Mapping[str, Tensor], *, source: str | Path, device: torch.device
) -> Sam:
    """Build a SAM with weights that were read already, in evaluation mode.

    Args:
        name: One of :func:`list_models`, not a SAM 2.1.
        state: All its tensors by name, which the model takes over.
        source: Where they come from, for the error message.
        device: Device to put the model on.

    Raises:
        ModelNotFoundError: There is no such model.
        CheckpointError: A tensor is missing, unexpected or has another shape.
    """
    family = _find(name)
    if family is None:
        raise ModelNotFoundError(f"{name} is built by create_model, from a folder")
    # Buffers that are drawn at random are filled all the same.
    with torch.random.fork_rng(devices=[]), without_initialising():
        model = family.build(_read_config(name)[1])
    hint = suggest_model(state, wanted=name)
    load_strictly(model, state, source=source, name=name, hint=hint)
    model.model_id = name
    return model.to(device).eval()


@overload
def create_grounder(
    name: DetectorName,
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "auto",
) -> Detector[Any]: ...


@overload
def create_grounder(
    name: Literal["dense_clip"],
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "auto",
) -> DenseClip: ...


@overload
def create_grounder(
    name: str,
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "auto",
) -> Detector[Any] | DenseClip: ...


def create_grounder(
    name: str,
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "auto",
) -> Detector[Any] | DenseClip:
    """Build a model that finds phrases in images: ``look`` at an image, then ``ground`` phrases.

    Args:
        name: One of :func:`list_grounders`. The first three give boxes, "dense_clip" heat maps.
        checkpoint: A folder in the layout of the Hugging Face hub, or the hub id of a model that
            is on this machine. A folder of "dense_clip" has an ``open_clip_config.json``.
        device: Device to put the model on.
        dtype: Type that it computes in: "auto", "fp32", "bf16" or "fp16".

    Raises:
        ModelNotFoundError: There is no grounder of that name.
        CheckpointError: The checkpoint is missing, broken or another model's.
        InputError: There is no such dtype.
    """
    if name == "dense_clip":
        return create_dense_clip(name, checkpoint, device=device, dtype=dtype)
    create = _DETECTORS.get(name) if isinstance(name, str) else None
    if create is None:
        raise ModelNotFoundError(
            f"no grounder is called {name!r}; there are {', '.join(_GROUNDERS)}"
        )
    return create(checkpoint, device=device, dtype=dtype)


def _find(name: str) -> _Family | None:
    if not isinstance(name, str) or name not in _MODELS:
        raise ModelNotFoundError(f"no model is called {name!r}; there are {', '.join(_MODELS)}")
    return _MODELS[name]


def _create_sam2(name: str, checkpoint: str | Path | None, device: str | torch.device) -> Sam2:
    if checkpoint is None:
        repo = f"facebook/{name.replace('_', '-')}"
        raise InputError(
            f"{name} is built from a folder with its configuration and weights: run "
            f"`hf download {repo}` and give checkpoint={repo!r}"
        )
    model = create_sam2(checkpoint, size=_read_config(name)[1], device=device)
    model.model_id = name
    return model


@cache
def _read_config(name: str) -> tuple[ModelInfo, Any]:
    """The description and the configuration in ``configs/<name>.json``."""
    content = json.loads((CONFIG_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    info = _hydrate(ModelInfo, {"name": name, **content["about"]}, name)
    family = _MODELS[name]
    config_class = Sam2Size if family is None else family.config_class
    return info, _hydrate(config_class, content["config"], name)


def _hydrate(target: type[Any], values: Mapping[str, Any], name: str) -> Any:
    """Build a dataclass from JSON values.

    Raises:
        ValueError: Fields are unknown or missing.
    """
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
