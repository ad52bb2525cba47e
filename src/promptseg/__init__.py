"""promptseg: type what you want and get ranked masks.

    import promptseg

    pipe = promptseg.load("pocket")
    result = pipe("photo.jpg", "cat")
    result.masks  # (N, H, W) bool, best first

Importing this package imports nothing heavy: its names are resolved on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .apps import batch as batch
    from .models.errors import CheckpointError as CheckpointError
    from .models.errors import InputError as InputError
    from .models.errors import ModelNotFoundError as ModelNotFoundError
    from .models.errors import PromptsegError as PromptsegError
    from .pipeline.cache.store import EmbeddingCache as EmbeddingCache
    from .pipeline.pipeline import Pipeline as Pipeline
    from .pipeline.presets.catalog import PRESETS as PRESETS
    from .pipeline.presets.load import load as load
    from .pipeline.prompters.reference.examples import Reference as Reference
    from .pipeline.query import Query as Query
    from .pipeline.result import RejectedMask as RejectedMask
    from .pipeline.result import Result as Result
else:  # a type checker that saw __getattr__ would accept any name
    __getattr__, __dir__, __all__ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "apps": ["batch"],
            "models.errors": [
                "CheckpointError",
                "InputError",
                "ModelNotFoundError",
                "PromptsegError",
            ],
            "pipeline.cache.store": ["EmbeddingCache"],
            "pipeline.pipeline": ["Pipeline"],
            "pipeline.presets.catalog": ["PRESETS"],
            "pipeline.presets.load": ["load"],
            "pipeline.prompters.reference.examples": ["Reference"],
            "pipeline.query": ["Query"],
            "pipeline.result": ["RejectedMask", "Result"],
        },
    )
    __all__ += ["__version__"]
