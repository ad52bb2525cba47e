"""What people expect of a command line: -h, `python -m`, tab completion, whole names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from promptseg.models.hub.sources import SOURCES

COMMANDS = ["", "segment", "app", "eval", "everything", "concept", "concept save", "concept show",
            "models", "models list", "models fetch", "models doctor", "serve", "serve http",
            "serve label-studio", "serve mcp"]  # fmt: skip


AS_A_SCRIPT = """
import sys
sys.argv[0] = "promptseg"
from promptseg.apps.cli.main import main
main()
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "TERM": "dumb", "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_h_helps(run, command) -> None:
    short, long = run(*command.split(), "-h"), run(*command.split(), "--help")
    assert (short.exit_code, short.stdout) == (0, long.stdout)
    assert f"Usage: root {command}".strip() in short.stdout


def test_the_package_runs_as_a_module() -> None:
    done = python("-m", "promptseg", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("promptseg ")
    done = python("-m", "promptseg", "segment", "photo.jpg", "-t", "cat", "--preset", "huge")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no preset is called 'huge'")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("promptseg mod", {"models"}),
        ("promptseg segment --min-p", {"--min-presence"}),
        ("promptseg segment --preset ", {"pocket", "mobile", "base", "large"}),
        ("promptseg everything --format coco", {"coco", "coco-polygons"}),
        ("promptseg segment --dtype b", {"bf16"}),
        ("promptseg segment --strategy ", {"prototype", "bidirectional", "graph"}),
        ("promptseg models fetch sam-vit-h", {"sam-vit-huge"}),
    ],
)
def test_the_tab_key_completes(typed, offered) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = python("-c", AS_A_SCRIPT, **words, _PROMPTSEG_COMPLETE="complete_bash")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == offered


def test_names_of_the_hub_are_whole_on_80_columns(run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = run("models", "list")
    assert done.exit_code == 0, done.output
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    assert {source.repo for source in SOURCES.values()} <= set(lines)
    assert {source.name for source in SOURCES.values()} <= {line.split(" ")[0] for line in lines}
