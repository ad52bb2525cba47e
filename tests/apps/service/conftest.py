"""The preset pocket, and the HTTP service with it in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import promptseg
from promptseg.apps.service.answers import Answerer
from promptseg.apps.service.http import build_service

EXAMPLES = Path(__file__).resolve().parents[3] / "apps" / "web" / "examples"


@pytest.fixture(scope="session")
def cat() -> bytes:
    """A photograph's file."""
    return (EXAMPLES / "cat.jpg").read_bytes()


@pytest.fixture
def answerer(pipe: promptseg.Pipeline) -> Answerer:
    return Answerer(pipe, "pocket", most_embeddings=2)


@pytest.fixture
def client(answerer: Answerer) -> Iterator[TestClient]:
    app = build_service(answerer)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as made:
        yield made
