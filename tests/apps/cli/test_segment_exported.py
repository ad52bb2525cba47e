"""Masks from an exported folder on the command line: how it is asked for, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from promptseg.apps.cli.options import ModelOptions
from promptseg.models.exported.manifest import Manifest


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder as `promptseg export sam_pocket` writes it; nothing opens its models here."""
    manifest = Manifest(
        model="sam_pocket",
        family="pocket",
        format="onnx",
        int8=False,
        version="1",
        opset=18,
        image_size=512,
        mask_input_size=(128, 128),
        num_multimask_outputs=3,
        mask_threshold=0.0,
        pixel_mean=(0, 0, 0),
        pixel_std=(1, 1, 1),
        encoder_inputs=("a",),
        encoder_outputs=("b",),
        decoder_inputs=("c",),
        decoder_outputs=("d",),
    )
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifest.to_json())
    for name in ("encoder.onnx", "decoder.onnx"):
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize("command", [("segment", "-t", "cat"), ("everything",)])
def test_the_folder_reaches_the_preset(run, loads, photo, exported, command) -> None:
    loader = loads(RuntimeError("loaded"))
    for runtime in ((), ("--runtime", "openvino")):
        run(*command, photo, "--exported", exported, *runtime)
    assert loader.options == [
        ModelOptions(exported=exported),
        ModelOptions(exported=exported, runtime="openvino"),
    ]
    told = loader.options[1].describe()
    assert (told["exported"], told["runtime"]) == (str(exported), "openvino")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--exported", "none"), "manifest.json in 'none' does not exist; check the path; give a"),
        (("--runtime", "onnx"), "--runtime is what runs --exported; give the exported folder"),
        (("--exported", "here", "--runtime", "tensorrt"), "no runtime 'tensorrt'; use onnx or ope"),
        (("--exported", "here", "--device", "cuda:1"), "run on the CPU, not on cuda:1; use the"),
        (("--exported", "here", "--preset", "base"), "holds sam_pocket, and the masks of this"),
    ],
)
@pytest.mark.parametrize("command", [("segment", "-t", "cat"), ("everything",)])
def test_what_cannot_run_is_refused(
    run, loads, photo, exported, command, arguments, message
) -> None:
    loader = loads(RuntimeError("loaded"))
    given = [exported if item == "here" else item for item in arguments]
    done = run(*command, photo, *given)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert not loader.options


def test_a_missing_runtime_is_named(run, loads, photo, exported, monkeypatch) -> None:
    loads(RuntimeError("loaded"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = run("everything", photo, "--exported", exported)
    assert done.exit_code == 2
    assert "exported models need onnxruntime; run: pip install 'promptseg[export]'" in done.stderr
