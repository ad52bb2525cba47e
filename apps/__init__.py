"""Programs built on the pipeline: the command line and what it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from . import batch as batch
else:  # a type checker that saw __getattr__ would accept any name
    __getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["batch"])
