"""promptseg: type what you want and get ranked masks.

    import promptseg

    pipe = promptseg.load("pocket")
    result = pipe("photo.jpg", text="cat")
    result.masks  # (N, H, W) bool, best first

Importing this package imports nothing heavy: the names below are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models.errors import CheckpointError, InputError, ModelNotFoundError, PromptsegError
    from .pipeline.pipeline import Pipeline
    from .pipeline.presets.catalog import PRESETS
    from .pipeline.presets.load import load
    from .pipeline.prompters.reference.examples import Reference
    from .pipeline.query import Query
    from .pipeline.result import RejectedMask, Result

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "CheckpointError",
    "InputError",
    "ModelNotFoundError",
    "Pipeline",
    "PromptsegError",
    "Query",
    "Reference",
    "RejectedMask",
    "Result",
    "__version__",
    "load",
]

# Public name -> the module that defines it.
_HOMES = {
    "PRESETS": ".pipeline.presets.catalog",
    "CheckpointError": ".models.errors",
    "InputError": ".models.errors",
    "ModelNotFoundError": ".models.errors",
    "Pipeline": ".pipeline.pipeline",
    "PromptsegError": ".models.errors",
    "Query": ".pipeline.query",
    "Reference": ".pipeline.prompters.reference.examples",
    "RejectedMask": ".pipeline.result",
    "Result": ".pipeline.result",
    "load": ".pipeline.presets.load",
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
