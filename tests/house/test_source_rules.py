"""Rules of the house that a reader of the source would check."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {
    "models": {"models"},
    "pipeline": {"models", "pipeline"},
    "apps": {"models", "pipeline", "apps"},
}
# Folders of models/. A family may stand on a backbone, but on no other family; a backbone on
# neither. What all of them share lies beside the folders.
BACKBONES = "backbones"
FAMILIES = {"sam", "grounding", "features"}
# The registry, which knows the families, and the public face of models/.
ABOVE_FAMILIES = {"registry", "__init__"}
# Modules of pipeline/, lowest first; each imports from lower steps only.
PIPELINE_STEPS = (
    {"masks", "loading", "files"},
    {"types"},
    {"images", "marks", "boxes", "presence", "regions"},
    {"segmenter", "proposals", "reference"},
    {"ranking", "concepts"},
    {"cascade"},
    {"agreement", "prompters", "everything"},
    {"fusion"},
    {"config"},
    {"proposing"},
    {"pipeline"},
    {"pocket", "published"},
    {"presets"},
)
SHIPPED = sorted(
    path
    for folder in ("src/promptseg", *LAYERS)
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)
LONGEST_FILE = 450


def import_name(path: Path) -> list[str]:
    """The file's package below promptseg, with the module: models/sam/sam.py -> models.sam.sam."""
    below = path.relative_to(ROOT).with_suffix("").parts
    if below[:2] == ("src", "promptseg"):
        below = below[2:]
    return list(below)


def imported(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and target below promptseg of each import of our own code."""
    module = import_name(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = module[: len(module) - node.level]
            stem = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield node.lineno, [*stem, alias.name]


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_something_to_check() -> None:
    assert len(SHIPPED) > 15


@pytest.mark.parametrize("path", SHIPPED, ids=identify)
def test_imports_flow_one_way(path: Path) -> None:
    layer = import_name(path)[0]
    if layer not in LAYERS:  # the public face may name everything
        return
    for line, target in imported(path):
        if target[0] in LAYERS:
            assert target[0] in LAYERS[layer], f"{identify(path)}:{line} imports {target}"


def test_every_folder_of_models_is_a_family_or_the_backbones() -> None:
    folders = {path.parent.name for path in (ROOT / "models").glob("*/__init__.py")}
    assert folders == {*FAMILIES, BACKBONES}


def may_import(own: list[str], target: list[str]) -> bool:
    """Whether a module below models/ may import another one there."""
    if own[1] in ABOVE_FAMILIES:
        return True
    if target[1] in ABOVE_FAMILIES:
        return False
    if own[1] in FAMILIES:
        return target[1] == own[1] or target[1] not in FAMILIES
    return target[1] not in FAMILIES and (own[1] == BACKBONES or target[1] != BACKBONES)


@pytest.mark.parametrize("path", SHIPPED, ids=identify)
def test_model_families_do_not_import_each_other(path: Path) -> None:
    own = import_name(path)
    for line, target in imported(path):
        if own[0] == target[0] == "models":
            assert may_import(own, target), f"{identify(path)}:{line} imports {target}"


@pytest.mark.parametrize(
    ("own", "target", "allowed"),
    [
        ("models.sam.pocket", "models.backbones.efficientnet_lite", True),
        ("models.sam.pocket", "models.sam.layers", True),
        ("models.sam.pocket", "models.errors", True),
        ("models.sam.pocket", "models.grounding.heat", False),
        ("models.sam.pocket", "models.registry", False),
        ("models.backbones.efficientnet_lite", "models.errors", True),
        ("models.backbones.efficientnet_lite", "models.sam.layers", False),
        ("models.backbones.efficientnet_lite", "models.registry", False),
        ("models.checkpoint", "models.errors", True),
        ("models.checkpoint", "models.sam.checkpoints", False),
        ("models.preprocess", "models.backbones.efficientnet_lite", False),
        ("models.registry", "models.sam.pocket", True),
    ],
)
def test_the_rule_of_families(own: str, target: str, allowed: bool) -> None:
    assert may_import(own.split("."), target.split(".")) == allowed


def pipeline_step(module: str) -> int:
    steps = [i for i, modules in enumerate(PIPELINE_STEPS) if module in modules]
    assert len(steps) == 1, f"give pipeline/{module} its place in PIPELINE_STEPS"
    return steps[0]


@pytest.mark.parametrize("path", SHIPPED, ids=identify)
def test_the_pipeline_imports_downwards(path: Path) -> None:
    own = import_name(path)
    if own[0] != "pipeline" or own[1] == "__init__":
        return
    for line, target in imported(path):
        if target[0] == "pipeline" and target[1] != own[1]:
            lower = pipeline_step(target[1]) < pipeline_step(own[1])
            assert lower, f"{identify(path)}:{line} imports {target}"


@pytest.mark.parametrize("path", SHIPPED, ids=identify)
def test_own_imports_are_relative(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for name in names:
            first = name.split(".")[0]
            assert first not in {"promptseg", *LAYERS}, f"{identify(path)}:{node.lineno}: {name}"


@pytest.mark.parametrize("path", SHIPPED, ids=identify)
def test_no_assert_print_or_kwargs(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        place = f"{identify(path)}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), f"{place}: an assert checks nothing under -O"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{place}: use logging, or the command line's console"
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            assert node.args.kwarg is None, f"{place}: name the arguments"


@pytest.mark.parametrize("path", SHIPPED, ids=identify)
def test_files_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", SHIPPED, ids=identify)
def test_modules_say_what_they_are(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
