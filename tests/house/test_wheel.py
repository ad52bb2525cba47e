"""The wheel that `make wheel` builds, installed where the checkout cannot be seen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from ..apps.cli.blocked_network import BLOCKED
from .documents import ROOT, read

SOURCES = {
    "promptseg": "src/promptseg",
    "promptseg/models": "models",
    "promptseg/pipeline": "pipeline",
    "promptseg/apps": "apps",
}
# Refuses the network, and every file of the checkout's packages and tests.
GUARD = """
AWAY = {away!r}

def stay_away(event, arguments):
    if event == "open" and str(arguments[0]).startswith(AWAY):
        raise PermissionError(f"read from the checkout: {{arguments[0]}}")

sys.addaudithook(stay_away)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by Makefile's own command, from a copy: a build leaves files behind."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("src", "models", "pipeline", "apps", "tests"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (command,) = re.findall(
        r"^\t\$\(BIN\)/python -m pip (wheel .+)$", read("Makefile"), re.MULTILINE
    )
    subprocess.run([sys.executable, "-m", "pip", *command.split()], cwd=folder, check=True)
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of the wheel and of what it needs, which the running one has."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run(
        [*pip, "--disable-pip-version-check", "--no-index", "--no-deps", str(wheel)], check=True
    )
    (site,) = (folder / "lib").glob("python*/site-packages")
    needed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    away = tuple(f"{ROOT / name}/" for name in (*SOURCES.values(), "tests"))
    (site / "guard_of_the_test.py").write_text(BLOCKED + GUARD.format(away=away))
    (site / "needed.pth").write_text("\n".join([*needed, "import guard_of_the_test"]))
    return folder


def run(fresh: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [fresh / "bin" / program, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=fresh.parent,
    )


def test_the_wheel_has_the_packages_their_data_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(ROOT / folder).as_posix()}"
        for package, folder in SOURCES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read("promptseg-0.1.0.dist-info/METADATA").decode("utf-8")
    about = {name for name in names if name.startswith("promptseg-0.1.0.dist-info/")}
    assert names - about == expected
    assert {
        "promptseg/py.typed",
        "promptseg/models/configs/sam_pocket.json",
        "promptseg/models/weights/SHA256SUMS",
        "promptseg/apps/evaluation/report.html",
        "promptseg/apps/web/page.css",
        "promptseg/apps/web/script/stage.js",
        "promptseg/apps/web/examples/cat.jpg",
    } <= expected
    assert "promptseg-0.1.0.dist-info/licenses/LICENSE" in about
    assert not [name for name in names if "tests" in name.split("/")]
    assert "\nRequires-Python: >=3.10\n" in metadata


def test_the_first_command_works_in_a_fresh_environment(fresh: Path) -> None:
    """Offline, without the checkout."""
    Image.fromarray(data.chelsea()).save(fresh.parent / "photo.jpg")
    done = run(fresh, "promptseg", "segment", "photo.jpg", "-t", "cat")
    assert done.returncode == 0, done.stderr
    found = fresh.parent / "promptseg-output" / "photo"
    (mask, *_) = json.loads((found / "result.json").read_text(encoding="utf-8"))["masks"]
    assert mask["label"] == "cat"
    assert (found / "overlay.png").is_file()


def test_everything_of_the_package_is_read_from_the_environment(fresh: Path) -> None:
    done = run(fresh, "python", "-m", "promptseg", "-h")
    assert done.returncode == 0, done.stderr
    assert "segment" in done.stdout
    code = """
import hashlib, pkgutil, sys
from importlib.resources import files
from pathlib import Path
import promptseg
from promptseg.models import get_model_info, list_models
from promptseg.pipeline.presets.pocket import WEIGHTS
home = Path(sys.prefix)
for package in ("promptseg", "promptseg.apps.web", "promptseg.models"):
    assert Path(str(files(package))).is_relative_to(home), package
assert WEIGHTS.is_relative_to(home)
sums = dict(reversed(line.split()) for line in (WEIGHTS / "SHA256SUMS").read_text().splitlines())
for name, expected in sums.items():
    assert hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() == expected, name
assert {path.name for path in WEIGHTS.glob("*.safetensors")} == set(sums)
assert [get_model_info(name) for name in list_models()]
for name in ("page.css", "script/stage.js"):
    assert (files("promptseg.apps.web") / name).read_text(encoding="utf-8")
loaded = [m.__file__ for name, m in sys.modules.items() if name.split(".")[0] == "promptseg"]
assert all(Path(name).is_relative_to(home) for name in loaded), loaded
"""
    done = run(fresh, "python", "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_guard_guards(fresh: Path) -> None:
    done = run(fresh, "python", "-c", f"open({str(ROOT / 'models' / 'errors.py')!r})")
    assert done.returncode == 1
    assert "read from the checkout" in done.stderr
