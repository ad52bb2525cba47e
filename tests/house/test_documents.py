"""What README and CONTRIBUTING tell a reader to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from promptseg.apps.cli import app

DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def read(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def commands(text: str, program: str) -> list[list[str]]:
    """Commands of a program in indented lines, without their comments."""
    lines = re.findall(rf"^ {{4}}({program} .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_make_targets_exist(repo_root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", read(repo_root, "Makefile"), re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"(?:^ {4}|`)make ([a-z]+)", read(repo_root, document), re.M)
    }
    assert {"demo", "test"} <= named
    assert named <= targets


def test_readmes_commands_are_understood(repo_root: Path) -> None:
    root = typer.main.get_command(app)
    examples = commands(read(repo_root, "README.md"), "promptseg")
    assert len(examples) >= 6
    for arguments in examples:
        command = root
        rest = list(arguments)
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        # Parses without running; an unknown option or a missing value would raise.
        command.make_context("promptseg", rest)


def test_readmes_python_compiles(repo_root: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", read(repo_root, "README.md"), re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        compile(block, "README.md", "exec")


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_documents_have_no_hidden_text_and_no_broken_links(repo_root: Path, document: str) -> None:
    text = read(repo_root, document)
    assert "<!--" not in text
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (repo_root / target).exists(), target
