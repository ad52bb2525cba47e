"""One pipeline for all tests of the house."""

from __future__ import annotations

import pytest

import promptseg


@pytest.fixture(scope="session")
def pipe() -> promptseg.Pipeline:
    """The preset pocket."""
    return promptseg.load("pocket")
