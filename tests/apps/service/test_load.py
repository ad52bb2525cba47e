"""Ten clients at once for some seconds: no wrong answer, bounded memory, a graceful end."""

from __future__ import annotations

import importlib.util
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import httpx
import pytest

import promptseg

SECONDS, CLIENTS = 8.0, 10


@pytest.fixture(scope="module")
def load() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "serve_load.py"
    spec = importlib.util.spec_from_file_location("serve_load", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve_load"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_ten_clients_at_once(load: ModuleType, pipe: promptseg.Pipeline) -> None:
    questions = load.make_questions(pipe, 2)
    process, url = load.start_server(embeddings=1)
    try:
        tally, memory = load.run_load(url, process.pid, questions, CLIENTS, SECONDS)
        with ThreadPoolExecutor(1) as asker, httpx.Client(base_url=url, trust_env=False) as client:
            box = next(item for item in questions if "boxes" in item.data)
            files = {"image": box.image}
            data = load.as_form(box.data)
            asked = asker.submit(client.post, "/segment", files=files, data=data, timeout=60)
            while (
                not asked.done()
                and httpx.get(f"{url}/health", trust_env=False).json()["waiting"] == 0
            ):
                time.sleep(0.01)
            process.terminate()
            last = asked.result()
    finally:
        code = load.stop_server(process)
    assert tally.wrong == []
    assert (code, last.status_code) == (0, 200)  # what was being answered is finished
    assert sum(tally.kinds.values()) >= CLIENTS
    assert tally.kinds["200"] > 0
    assert max(memory[2:]) - memory[1] < load.MAX_GROWTH
