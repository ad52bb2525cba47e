"""The networks of promptseg, their configurations and how their weights are read.

Nothing here knows of the pipeline or the apps. The names below are resolved on first use, so
that importing the errors alone does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import CheckpointError, InputError, ModelNotFoundError, PromptsegError
    from .registry import ModelInfo, create_model, get_model_info, list_models

__all__ = [
    "CheckpointError",
    "InputError",
    "ModelInfo",
    "ModelNotFoundError",
    "PromptsegError",
    "create_model",
    "get_model_info",
    "list_models",
]

# Public name -> the module that defines it.
_HOMES = {
    "CheckpointError": ".errors",
    "InputError": ".errors",
    "ModelInfo": ".registry",
    "ModelNotFoundError": ".errors",
    "PromptsegError": ".errors",
    "create_model": ".registry",
    "get_model_info": ".registry",
    "list_models": ".registry",
}


def __getattr__(name: str) -> object:
    """Resolve a public name on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
