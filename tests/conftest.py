"""Fixtures that several test folders use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from promptseg.models import device


@pytest.fixture(autouse=True, scope="session")
def full_precision() -> Iterator[None]:
    """Compute in float32 unless a test says otherwise, so that results are the same everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "bf16_units", lambda: "")
        yield


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The project's root folder."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def gradient_image() -> np.ndarray:
    """A small RGB image whose pixels all differ: (12, 20, 3) uint8."""
    rows, columns = np.mgrid[0:12, 0:20]
    return np.stack([rows * 20, columns * 12, rows + columns], axis=-1).astype(np.uint8)
