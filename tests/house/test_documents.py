"""What README and CONTRIBUTING tell a reader to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from PIL import Image
from skimage import data

from promptseg.apps.cli.main import app
from promptseg.pipeline.result import Result

DOCUMENTS = ("README.md", "CONTRIBUTING.md")


def read(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def commands(text: str, program: str) -> list[list[str]]:
    """Commands of a program in indented lines, without their comments."""
    joined = text.replace("\\\n", " ")
    lines = re.findall(rf"^ {{4}}({program} .*)$", joined, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def understand(arguments: list[str]) -> None:
    """Parse a command's arguments without running it; an unknown option raises."""
    command = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    command.make_context("promptseg", rest)


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_make_targets_exist(repo_root: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read(repo_root, "Makefile"), re.MULTILINE))
    named = {
        target
        for document in DOCUMENTS
        for target in re.findall(r"(?:^ {4}|`)make ([a-z-]+)", read(repo_root, document), re.M)
    }
    assert {"demo", "test", "lint", "format", "train-pocket"} <= named
    assert named <= targets


def test_every_command_and_folder_is_told_of(repo_root: Path) -> None:
    readme, contributing = read(repo_root, "README.md"), read(repo_root, "CONTRIBUTING.md")
    changelog = read(repo_root, "CHANGELOG.md")
    root = typer.main.get_command(app)
    for name in root.commands:
        assert f"promptseg {name}" in readme, name
        assert f"`promptseg {name}" in changelog, name
    for name in ("make train-pocket", "benchmarks/speed.py", "docs/data.md"):
        assert name in readme, name
        assert name in changelog, name
    code = {path.relative_to(repo_root).parts[0] for path in repo_root.glob("[a-z]*/*.py")}
    for folder in {*code, "src/promptseg", "docs", "models/backbones"}:
        assert f"`{folder}/" in contributing, folder
    families = re.search(r"the families \(([^)]*)\)", contributing)
    assert families is not None
    for name in re.findall(r"`(\w+)`", families[1]):
        assert (repo_root / "models" / name).is_dir(), name


def test_readmes_commands_are_understood(repo_root: Path) -> None:
    examples = commands(read(repo_root, "README.md"), "promptseg")
    assert len(examples) >= 6
    for arguments in examples:
        understand(arguments)


def test_readmes_python_compiles(repo_root: Path) -> None:
    blocks = python_blocks(read(repo_root, "README.md"))
    assert len(blocks) >= 4
    for block in blocks:
        compile(block, "README.md", "exec")


def test_readmes_python_runs_with_pocket(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = python_blocks(read(repo_root, "README.md"))
    # The block on a published checkpoint is run in test_docs.py.
    offline = [block for block in blocks if "create_model" not in block]
    assert len(offline) >= 3
    for name in ("photo.jpg", "street.jpg"):
        Image.fromarray(data.chelsea()).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in offline:
        exec(block, names)
        assert isinstance(names["result"], Result)


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_documents_have_no_hidden_text_and_no_broken_links(repo_root: Path, document: str) -> None:
    text = read(repo_root, document)
    assert "<!--" not in text
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (repo_root / target).exists(), target
