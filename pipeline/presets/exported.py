"""Presets whose masks come from an exported folder."""

from __future__ import annotations

from ...models.errors import InputError
from ...models.exported.sam import ExportedSam, load_exported
from .catalog import LoadOptions


def exported_model(name: str, options: LoadOptions) -> ExportedSam | None:
    """Load the exported folder of the options; None if there is none.

    Args:
        name: Name of the model that the preset's masks are by.
        options: With the folder and the runtime, which computes in float32.

    Raises:
        InputError: The folder holds another model, the device is not the CPU, or the runtime is
            unknown or not installed.
        CheckpointError: The folder holds no exported model.
    """
    if options.exported is None:
        return None
    if options.device.type != "cpu":
        raise InputError(
            f"exported models run on the CPU, not on {options.device}; use device='cpu'"
        )
    model = load_exported(options.exported, runtime=options.runtime)
    if model.model_id != name:
        raise InputError(
            f"{str(options.exported)!r} holds {model.model_id}, and the masks of this preset are "
            f"by {name}; run `promptseg export {name}`"
        )
    return model
