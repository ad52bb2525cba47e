"""Fixtures that several test folders use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The project's root folder."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def gradient_image() -> np.ndarray:
    """A small RGB image whose pixels all differ: (12, 20, 3) uint8."""
    rows, columns = np.mgrid[0:12, 0:20]
    return np.stack([rows * 20, columns * 12, rows + columns], axis=-1).astype(np.uint8)
