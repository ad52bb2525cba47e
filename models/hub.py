"""Weights of the Hugging Face hub by their id; what was fetched once is found without network."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import CheckpointError

# Most wanted first.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def find_weights(checkpoint: str | Path) -> Path:
    """Path of a checkpoint, fetched from the hub if it is not a path but a hub id.

    Args:
        checkpoint: A path, or "owner/name". A path that exists is never taken for an id.

    Raises:
        CheckpointError: The hub does not have it or cannot be reached.
    """
    path = Path(checkpoint)
    if isinstance(checkpoint, Path) or path.exists() or not _HUB_ID.fullmatch(checkpoint):
        return path
    # Importing it takes a while, and local weights do not need it.
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        for name in WEIGHT_FILES:
            try:
                return Path(huggingface_hub.hf_hub_download(checkpoint, name))
            except LocalEntryNotFoundError:  # not known to be missing: the hub was not reached
                raise
            except EntryNotFoundError:
                continue
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint!r} is no path, and the hub does not give it "
            f"({' '.join(str(error).split())[:160]}); check the name and the network, or download "
            "the weights and give their path"
        ) from error
    raise CheckpointError(f"{checkpoint!r} on the hub has none of {', '.join(WEIGHT_FILES)}")
