"""The networks of promptseg, their configurations, and reading their weights.

Nothing here knows the pipeline or the apps. Names are resolved on first use, so that importing the
errors alone does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .errors import CheckpointError, InputError, ModelNotFoundError, PromptsegError
    from .exported.sam import load_exported
    from .features.dino import create_dino
    from .registry import (
        ModelInfo,
        create_grounder,
        create_model,
        get_model_info,
        list_grounders,
        list_models,
    )

__all__ = [
    "CheckpointError",
    "InputError",
    "ModelInfo",
    "ModelNotFoundError",
    "PromptsegError",
    "create_dino",
    "create_grounder",
    "create_model",
    "get_model_info",
    "list_grounders",
    "list_models",
    "load_exported",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "errors": ["CheckpointError", "InputError", "ModelNotFoundError", "PromptsegError"],
        "exported.sam": ["load_exported"],
        "features.dino": ["create_dino"],
        "registry": [
            "ModelInfo",
            "create_grounder",
            "create_model",
            "get_model_info",
            "list_grounders",
            "list_models",
        ],
    },
)
