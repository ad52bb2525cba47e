"""The SAMs that can be exported, with the weights that are here."""

from __future__ import annotations

from pathlib import Path

from ...models.errors import CheckpointError, MissingWeightsError, ModelNotFoundError
from ...models.hub.find import find_source
from ...models.hub.sources import get_source
from ...models.registry import create_model
from ...models.sam.sam import Sam
from .pocket import shipped

# Name of the model -> name of its published weights; pocket's are installed.
EXPORTABLE = {"sam_pocket": "", "sam_vit_t": "mobile-sam", "sam_vit_b": "sam-vit-base"}


def load_sam(name: str, checkpoint: Path | None = None) -> Sam:
    """Load a SAM by name, with weights of a file or else with those that are on this machine.

    Raises:
        ModelNotFoundError: It is not one of those that can be exported.
        CheckpointError: The weights are missing, broken or another model's.
    """
    if name not in EXPORTABLE:
        raise ModelNotFoundError(
            f"no model that can be exported is called {name!r}; there are {', '.join(EXPORTABLE)}"
        )
    sam = create_model(name, checkpoint=checkpoint or _weights(name))
    if not isinstance(sam, Sam):
        raise TypeError(f"{name} must be a Sam, got {type(sam).__name__}")
    return sam


def _weights(name: str) -> Path:
    source = EXPORTABLE[name]
    if not source:
        return shipped(f"{name}.safetensors")
    try:
        return find_source(source) / get_source(source).weights
    except MissingWeightsError as error:
        raise CheckpointError(f"{error}, or give --checkpoint FILE") from error
