"""Presets whose masks come from an exported folder; importing this module does not import torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.errors import InputError
from ...models.exported.manifest import (
    PACKAGES,
    choose_runtime,
    missing_package,
    read_manifest,
)
from .catalog import LoadOptions

if TYPE_CHECKING:
    from ...models.exported.sam import ExportedSam


def exported_model(name: str, options: LoadOptions) -> ExportedSam | None:
    """Load the exported folder of the options; None if there is none.

    Args:
        name: Name of the model that the preset's masks are by.
        options: With the folder and the runtime, which computes in float32.

    Raises:
        InputError: See :func:`check_exported`.
        CheckpointError: The folder holds no exported model.
    """
    if options.exported is None:
        return None
    check_exported(name, options.exported, options.runtime, str(options.device))
    from ...models.exported.sam import load_exported

    return load_exported(options.exported, runtime=options.runtime)


def check_exported(name: str, folder: Path, runtime: str | None, device: str) -> None:
    """Check that a preset can decode its masks from an exported folder, without opening models.

    Args:
        name: Name of the model that the preset's masks are by.
        folder: The exported folder.
        runtime: "onnx" or "openvino"; None for the one that the folder was written for.
        device: Device that the preset runs on.

    Raises:
        InputError: The folder holds another model, the device is not the CPU, or the runtime is
            unknown, not installed, or cannot read the folder.
        CheckpointError: The folder holds no exported model.
    """
    if device.partition(":")[0] != "cpu":
        raise InputError(f"exported models run on the CPU, not on {device}; use the device cpu")
    manifest = read_manifest(folder)
    if manifest.model != name:
        raise InputError(
            f"{str(folder)!r} holds {manifest.model}, and the masks of this preset are by {name}; "
            f"run `promptseg export {name}`"
        )
    for package in PACKAGES[choose_runtime(runtime, manifest.format)]:
        if not _is_installed(package):
            raise missing_package(package)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # blocked or broken
        return False
