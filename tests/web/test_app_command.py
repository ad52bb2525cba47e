"""`promptseg app` on the command line."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from promptseg.apps.cli import app as app_command
from promptseg.apps.cli.main import app

from .conftest import start_app, stop_app

DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def test_without_gradio_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        app_command.importlib.util,
        "find_spec",
        lambda name: None if name == "gradio" else found(name),
    )
    done = CliRunner().invoke(app, ["app"])
    assert done.exit_code == 2
    assert done.stderr == "error: the web app needs gradio; run: pip install 'promptseg[app]'\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preset", "huge"], "no preset is called 'huge'"),
        (["--device", "tpu"], "there is no device 'tpu'"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(options: list[str], words: str) -> None:
    done = CliRunner().invoke(app, ["app", *options])
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_told() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "promptseg.apps.cli.main", "app", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=180,
        )
    assert done.returncode == 2
    assert f"error: cannot listen on 127.0.0.1:{port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_starts_without_its_weights_and_leaves_nothing_behind(tmp_path: Path) -> None:
    # A proxy that nobody runs, and where Gradio's folder would be something else, as if another
    # user's.
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    environment = {**proxies, "NO_PROXY": "", "no_proxy": ""}
    (tmp_path / "gradio").touch()
    options = ["--preset", "mobile", "--max-pixels", "50000", "--allow-host", "seg.example"]
    process, url = start_app(tmp_path, *options, environment=environment)
    try:
        with DIRECTLY.open(url, timeout=30) as page:
            text = page.read().decode()
        assert "mobile (not ready)" in text
        assert list(tmp_path.glob("promptseg-app-*"))
        for host, status in (("seg.example", 200), ("evil.example", 403)):
            request = urllib.request.Request(url, headers={"Host": host})
            try:
                answer = DIRECTLY.open(request, timeout=30)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                assert answer.status == status
    finally:
        stop_app(process)
    assert process.returncode == 0
    assert list(tmp_path.glob("promptseg-app-*")) == []
    assert (tmp_path / "gradio").is_file()
