"""The image's recipe fits the project; `make docker` says plainly where it cannot be built."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .documents import ROOT, read

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings tomli on Python 3.10
    import tomli as tomllib


def test_the_image_starts_the_command_as_an_ordinary_user() -> None:
    lines = read("Dockerfile").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if re.match(r"[A-Z]+ ", line)]
    assert ["ENTRYPOINT", '["promptseg"]'] in steps
    users = [value for step, value in steps if step == "USER"]
    assert users == ["promptseg"]
    assert any(
        "useradd" in value and "promptseg" in value for step, value in steps if step == "RUN"
    )
    bases = [value.split()[0] for step, value in steps if step == "FROM"]
    assert set(bases) == {"python:3.11-slim"}
    assert "https://download.pytorch.org/whl/cpu" in read("Dockerfile")


def test_the_build_gets_what_the_wheel_needs_and_no_more() -> None:
    rules = [line for line in read(".dockerignore").splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    project = tomllib.loads(read("pyproject.toml"))
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    needed = {Path(folder).parts[0] for folder in folders}
    assert let_in == needed | {"pyproject.toml", project["project"]["readme"], "LICENSE"}
    assert fnmatch.filter(rules, "*__pycache__*")


@pytest.mark.parametrize(
    ("docker", "says"),
    [
        (None, "docker is not installed"),
        ("exit 1", "docker is installed, but its service does not answer"),
        ('echo "docker $*"', "docker build --tag promptseg ."),
    ],
    ids=["missing", "asleep", "there"],
)
def test_make_docker_builds_or_says_why_not(docker: str | None, says: str, tmp_path: Path) -> None:
    for tool in ("sh", "make"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    if docker is not None:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (tmp_path / "docker").chmod(0o755)
    done = subprocess.run(
        ["make", "docker"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (0 if says.startswith("docker build") else 2)
    assert says in done.stdout + done.stderr
