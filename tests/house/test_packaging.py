"""What pyproject.toml says of the packages equals what is on disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings tomli on Python 3.10
    import tomli as tomllib


@pytest.fixture(scope="module")
def setuptools_table(repo_root: Path) -> dict[str, Any]:
    content = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))
    return content["tool"]["setuptools"]


def package_folders(root: Path, package_dir: dict[str, str]) -> dict[str, Path]:
    """Every folder with Python files under the mapped ones, by package name."""
    found = {}
    for name, folder in package_dir.items():
        for path in (root / folder).rglob("*.py"):
            below = path.parent.relative_to(root / folder).parts
            if "__pycache__" not in below:
                found[".".join((name, *below))] = path.parent
    return found


def test_packages_are_those_on_disk(repo_root: Path, setuptools_table: dict[str, Any]) -> None:
    # An editable install works without; a wheel would lack the folder.
    on_disk = package_folders(repo_root, setuptools_table["package-dir"])
    assert sorted(setuptools_table["packages"]) == sorted(on_disk)


def test_every_package_has_an_init(repo_root: Path, setuptools_table: dict[str, Any]) -> None:
    on_disk = package_folders(repo_root, setuptools_table["package-dir"])
    lacking = [name for name, folder in on_disk.items() if not (folder / "__init__.py").is_file()]
    assert lacking == []


def test_data_files_are_shipped(repo_root: Path, setuptools_table: dict[str, Any]) -> None:
    shipped: set[Path] = set()
    for package, patterns in setuptools_table["package-data"].items():
        folder = package_folders(repo_root, setuptools_table["package-dir"])[package]
        for pattern in patterns:
            shipped |= {path for path in folder.glob(pattern) if path.is_file()}
    data = {
        path
        for folder in setuptools_table["package-dir"].values()
        for path in (repo_root / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert data == shipped
    assert repo_root / "models/configs/sam_vit_b.json" in shipped
    assert repo_root / "src/promptseg/py.typed" in shipped
