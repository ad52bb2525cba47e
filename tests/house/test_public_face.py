"""The names that users rely on, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

HEAVY = "torch", "torchvision", "transformers", "timm", "numpy", "scipy", "PIL", "supervision"

# Golden lists: a change here is a change of the public interface and belongs in the changelog.
PUBLIC = {
    "promptseg": [
        "CheckpointError",
        "EmbeddingCache",
        "InputError",
        "ModelNotFoundError",
        "PRESETS",
        "Pipeline",
        "PromptsegError",
        "Query",
        "Reference",
        "RejectedMask",
        "Result",
        "__version__",
        "batch",
        "load",
    ],
    "promptseg.models": [
        "CheckpointError",
        "InputError",
        "ModelInfo",
        "ModelNotFoundError",
        "PromptsegError",
        "create_dino",
        "create_grounder",
        "create_model",
        "get_model_info",
        "list_grounders",
        "list_models",
        "load_exported",
    ],
    "promptseg.pipeline": [
        "EncodedReference",
        "EverythingConfig",
        "ImageEmbedding",
        "MaskCandidates",
        "PRESETS",
        "Pipeline",
        "PipelineConfig",
        "PromptSet",
        "Proposals",
        "Query",
        "RankingConfig",
        "Raster",
        "Reference",
        "RejectedMask",
        "Result",
        "Segmenter",
        "load",
        "load_image",
        "rank",
    ],
}


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names(module: str) -> None:
    package = import_module(module)
    assert sorted(package.__all__) == PUBLIC[module]
    assert set(PUBLIC[module]) - {"__version__"} <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense


@pytest.mark.parametrize("module", PUBLIC)
def test_a_star_import_gives_the_public_names(module: str) -> None:
    names: dict[str, object] = {}
    exec(f"from {module} import *", names)
    assert set(PUBLIC[module]) <= set(names)


@pytest.mark.parametrize(
    "code",
    [
        "import promptseg; dir(promptseg); promptseg.__version__",
        "import promptseg; promptseg.InputError",
        "import promptseg.pipeline, promptseg.models",
        "from promptseg.apps.cli.main import app; app(['--version'], standalone_mode=False)",
        "from promptseg.apps.cli.main import app; app(['app', '--help'], standalone_mode=False)",
    ],
)
def test_importing_is_light_and_warns_of_nothing(code: str) -> None:
    done = run_python(f"import sys\n{code}\nprint([m for m in {HEAVY} if m in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


def test_result_types_do_not_need_torch() -> None:
    done = run_python(
        "import sys, promptseg\n"
        "assert len(promptseg.Result.empty((3, 4))) == 0\n"
        "print('torch' in sys.modules)"
    )
    assert done.stdout == "False\n", done.stderr


def test_the_command_line_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "promptseg.apps.cli.main", "segment", "missing.png", "-t", "cat"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr == "error: 'missing.png' does not exist; check the path\n"
