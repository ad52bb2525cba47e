"""`promptseg serve ...` on the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from promptseg.apps.cli import serve

EXAMPLES = Path(__file__).resolve().parents[3] / "apps" / "web" / "examples"


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        ("http", "fastapi", "serve"),
        ("http", "python_multipart", "serve"),
        ("label-studio", "uvicorn", "label-studio"),
        ("mcp", "mcp", "mcp"),
    ],
)
def test_without_its_packages_the_remedy_is_told(
    run, monkeypatch: pytest.MonkeyPatch, command: str, module: str, extra: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        serve.importlib.util, "find_spec", lambda name: None if name == module else found(name)
    )
    done = run("serve", command)
    assert done.exit_code == 2
    assert f"needs {module}; run: pip install 'promptseg[{extra}]'\n" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http", "--preset", "huge"], "no preset is called 'huge'"),
        (["http", "--device", "tpu"], "there is no device 'tpu'"),
        (["label-studio", "--url", "nonsense"], "'nonsense' is not an address"),
        (["label-studio", "--local-files", "none"], "'none' is not a folder"),
        (["mcp", "--root", "none"], "--root: 'none' is not a folder"),
    ],
)
def test_mistakes_are_told_in_one_line(run, loads, arguments: list[str], words: str) -> None:
    loader = loads(AssertionError("a model was loaded"))
    done = run("serve", *arguments)
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert loader.options == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["http", "--prot", "1"],
        ["http", "--port", "99999"],
        ["label-studio", "--url", "nonsense"],
        ["mcp", "--root", "/none"],
    ],
)
def test_mistakes_are_told_before_torch_is_imported(arguments: list[str]) -> None:
    code = (
        "import sys; from promptseg.apps.cli.main import app\n"
        f"try: app({['serve', *arguments]!r})\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == ["2", "False"], done.stderr


def test_a_taken_port_is_told(run, loads) -> None:
    loader = loads(AssertionError("a model was loaded"))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = run("serve", "http", "--port", port)
    assert done.exit_code == 2
    assert f"error: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert loader.options == []


def test_the_mcp_server_speaks_on_its_streams(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "cat.jpg", tmp_path / "cat.jpg")
    arguments = ["-m", "promptseg", "serve", "mcp", "--root", str(tmp_path)]
    server = StdioServerParameters(
        command=sys.executable, args=arguments, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    )

    async def ask() -> dict[str, object]:
        with (tmp_path / "log").open("w") as log:
            async with Client(stdio_client(server, errlog=log)) as client:
                answer = await client.call_tool(
                    "segment", {"image": "cat.jpg", "text": ["cat", "unicorn"]}
                )
        assert not answer.is_error, answer.content
        return json.loads(answer.content[1].text)

    with ThreadPoolExecutor(1) as thread:  # browser tests leave an event loop in this one
        told = thread.submit(anyio.run, ask).result(180)
    assert [mask["label"] for mask in told["masks"]] == ["cat"]
    assert [item["label"] for item in told["left_out"]] == ["unicorn"]
