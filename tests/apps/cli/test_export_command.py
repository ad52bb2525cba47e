"""`promptseg export`: what it writes, what it prints, and what it leaves alone."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from promptseg.apps.cli.main import app
from promptseg.models import load_exported
from promptseg.models.sam.build import build_sam_tiny_vit
from promptseg.pipeline.decoding.compare import Agreement
from promptseg.pipeline.presets import masks

from ...shrunken import SHRUNKEN_TINY_VIT, randomise

ARGUMENTS = ["export", "sam_vit_t", "--format", "openvino", "--int8", "--out"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shrunken MobileSAM in place of the real one."""

    def load(name: str, checkpoint: Path | None = None):
        model = build_sam_tiny_vit(SHRUNKEN_TINY_VIT)
        randomise(model, seed=1)
        model.model_id = name
        return model.eval()

    monkeypatch.setattr(masks, "load_sam", load)


def run(*arguments: str | Path):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_int8_for_openvino(tiny: None, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    done = run(*ARGUMENTS, out)
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"sam_vit_t: 5 files, 2 MB, in .*folder", first)
    assert re.fullmatch(
        r"OpenVINO, int8 beside torch: .* IoU of 117 masks 0\.\d+ on average, 0\.\d+ at least",
        second,
    )
    assert {path.name for path in out.iterdir()} == {
        "encoder.xml",
        "encoder.bin",
        "decoder.xml",
        "decoder.bin",
        "manifest.json",
    }
    assert list(out.parent.iterdir()) == [out]
    assert load_exported(out).manifest.int8 is True
    done = run(*ARGUMENTS, out)
    assert done.exit_code == 2
    assert "has files already" in done.stderr


def test_nothing_is_kept_that_differs(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(sam: object, folder: Path, **_: object) -> None:
        for name in ("encoder.onnx", "decoder.onnx", "manifest.json"):
            (folder / name).write_text("new")

    monkeypatch.setattr("promptseg.models.exported.export.export_sam", write)
    monkeypatch.setattr("promptseg.models.exported.sam.load_exported", lambda folder, runtime: None)
    monkeypatch.setattr("promptseg.pipeline.decoding.segmenter.Segmenter", lambda *_, **__: None)
    answer = Agreement(0.5, 20.0, 0.1, 0.9, 0.8, 4)
    monkeypatch.setattr("promptseg.pipeline.decoding.compare.compare_segmenters", lambda *_: answer)
    out = tmp_path / "out"
    done = run("export", "sam_vit_t", "--out", out)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: nothing was kept: what onnxruntime computes is not what")
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / "encoder.onnx").write_text("old")
    (out / "notes.txt").write_text("mine")
    done = run("export", "sam_vit_t", "--out", out, "--overwrite")
    assert done.exit_code == 1
    assert (out / "encoder.onnx").read_text() == "old"
    monkeypatch.setattr(Agreement, "is_exact", lambda self: True)
    done = run("export", "sam_vit_t", "--out", out, "--overwrite")
    assert done.exit_code == 0, done.output
    assert (out / "encoder.onnx").read_text() == "new"
    assert (out / "notes.txt").read_text() == "mine"
    assert len(list(out.iterdir())) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sam_vit_q"], "no model that can be exported is called 'sam_vit_q'; there are sam_po"),
        (["sam_pocket", "--format", "trt"], "there is no format 'trt'; use onnx or openvino"),
        (["sam_vit_b"], "or give --checkpoint FILE"),
        (["sam_pocket", "--checkpoint", "missing.pth"], "missing.pth"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTSEG_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    done = run("export", *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_inputs_and_other_files_stay(tmp_path: Path) -> None:
    weights = tmp_path / "encoder.onnx"
    weights.write_text("weights")
    done = run("export", "sam_vit_t", "--checkpoint", weights, "--overwrite", "--out", tmp_path)
    assert done.exit_code == 2
    assert "is an input" in done.stderr
    done = run("export", "sam_vit_t", "--out", weights)
    assert done.exit_code == 2
    assert "is not a folder" in done.stderr
    assert weights.read_text() == "weights"


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = run("export", "sam_pocket", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "error: exported models need onnxruntime; run: pip install 'promptseg[export]'"
    ]
