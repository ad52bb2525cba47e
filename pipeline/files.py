"""Writing files and folders as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, its folder made if need be; what was there stays until all is written.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all, its folder made if need be."""
    write_whole(path, text.encode("utf-8"))


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of just these files, in the place of one that is there.

    It stands when it is whole; an interruption leaves the earlier one, or none.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = partial_path(folder)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        whole = staging / "whole"
        whole.mkdir(parents=True)
        for name, content in files.items():
            (whole / name).write_bytes(content)
        if folder.exists():
            folder.replace(staging / "earlier")
        whole.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def partial_path(path: Path) -> Path:
    """Return where a file or folder is written before it is moved into its place.

    It is beside it, hidden, and always the same for the same path: what a killed run left is
    replaced by the next that writes there. It is short, however long the name.
    """
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
    return path.with_name(f".promptseg-{digest[:16]}.partial")
