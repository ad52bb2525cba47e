"""The command line of `promptseg eval`, with a pipeline whose answers are known."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptseg.apps.evaluation import run as evaluation


@pytest.fixture
def run_eval(run, loads, pipe, data_folder):
    """Run `promptseg eval` on the four pictures."""
    loads(pipe)

    def invoke(*arguments: object):
        return run("eval", "--data", data_folder, *arguments)

    return invoke


def cells(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


def test_the_command_writes_figures_and_goes_on(run_eval, pipe) -> None:
    out = Path("new/figures.json")  # the folder is not there yet
    done = run_eval("--json", out)
    assert done.exit_code == 0, done.output
    assert ["mIoU", "0.917", "0.875", "0.893"] in cells(done.stdout)
    written = json.loads(out.read_text())
    assert set(written) == {"figures", "by_source", "by_class", "settings", "version"}
    assert written["figures"]["objects"] == 7
    assert written["figures"]["mIoU"] == pytest.approx(6.25 / 7)
    assert {name: group["objects"] for name, group in written["by_source"].items()} == {
        "even": 3,
        "odd": 4,
    }
    assert written["by_class"]["dog"]["mIoU"] == 1
    assert written["version"] == "0.1.0"
    settings = written["settings"]
    assert settings["task"] == "boxes"
    assert settings["preset"] == "pocket"
    assert settings["split"] == "dev"
    assert settings["limit"] is None
    assert settings["weights"] == evaluation.weights_fingerprint()
    assert run_eval("--json", out).exit_code == 0
    assert pipe.segmenter.encoded == 4
    header = json.loads(Path("new/figures.json.rows.jsonl").read_text().splitlines()[0])["header"]
    assert header.items() >= {"task": "boxes", "preset": "pocket", "split": "dev"}.items()
    assert header["weights"] == evaluation.weights_fingerprint()


@pytest.mark.parametrize("task", ["text", "points", "boxes", "reference", "everything"])
def test_every_task_can_be_asked_for(run_eval, task: str) -> None:
    files = ("--json", "out.json", "--failures", "worst.png", "--report", "report.html")
    done = run_eval("--task", task, *files, "--by-class")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    assert "dog" in done.stdout
    written = json.loads(Path("out.json").read_text())
    assert set(written["by_source"]) == {"even", "odd"}
    assert set(written["by_class"]) == {"dog", "cat", "car", "bus"}
    with Image.open("worst.png") as sheet:
        assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 20
    page = Path("report.html").read_text(encoding="utf-8")
    has_scores = task in ("text", "points", "boxes")
    assert ("What a score is worth" in page) is has_scores
    assert page.count("<circle") == (page.count(" to ") if has_scores else 0)
    assert page.count("data:image/jpeg") >= 1
    assert '<th scope="row">dog</th>' in page


def test_a_table_by_class_on_demand(run_eval) -> None:
    assert ["dog", "4", "1.000"] not in [row[:3] for row in cells(run_eval().stdout)]
    assert ["dog", "4", "1.000"] in [row[:3] for row in cells(run_eval("--by-class").stdout)]


def test_fewer_pictures(run_eval, pipe) -> None:
    assert run_eval("--limit", 3).exit_code == 0
    assert pipe.segmenter.encoded == 3
    done = run_eval("--source", "odd")
    assert pipe.segmenter.encoded == 5
    assert "even" not in done.stdout


def test_several_examples_are_given_together(run_eval) -> None:
    run = run_eval("--task", "reference", "--shots", 2, "--json", "out.json")
    assert run.exit_code == 0
    assert json.loads(Path("out.json").read_text())["settings"]["shots"] == 2
    assert run_eval("--task", "reference", "--shots", 0).exit_code == 2


def test_pairs_are_bounded(run_eval) -> None:
    assert run_eval("--task", "reference", "--pairs", 1, "--json", "out.json").exit_code == 0
    assert json.loads(Path("out.json").read_text())["figures"]["pairs"] == 2
    assert json.loads(Path("out.json").read_text())["settings"]["pairs"] == 1


def test_the_failures_of_an_earlier_run_can_be_seen(run_eval, pipe) -> None:
    run_eval("--json", "out.json")
    assert run_eval("--json", "out.json", "--failures", "sheets/worst.png").exit_code == 0
    assert pipe.segmenter.encoded == 8  # all four have an object to show
    with Image.open("sheets/worst.png") as sheet:
        assert sheet.format == "PNG"


def test_the_command_refuses_rows_of_other_weights(run_eval, monkeypatch) -> None:
    assert run_eval("--json", "figures.json").exit_code == 0
    monkeypatch.setattr(evaluation, "weights_fingerprint", lambda: "another")
    done = run_eval("--json", "figures.json")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "cannot resume from 'figures.json.rows.jsonl': its weights is" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--json", "."], "--json: '.' is a folder; give a file"),
        (["--failures", "."], "--failures: '.' is a folder; give a file"),
        (["--report", "."], "--report: '.' is a folder; give a file"),
        (["--report", "report.pdf"], "--report: 'report.pdf' does not end in .html; name an HTML"),
        (["--failures", "worst.jpg"], "--failures: 'worst.jpg' does not end in .png; name a PNG"),
        (["--task", "masks"], "there is no task 'masks'; there are text, points, boxes, reference"),
        (["--split", "test"], "no sample of split 'test'; there are dev"),
        (["--source", "mars"], "--source: no picture of mars in"),
        (["--images", "."], "--images is for COCO files"),
        (["--panoptic", "."], "--panoptic is for COCO files"),
    ],
)
def test_bad_input_is_told_before_measuring(run_eval, pipe, arguments, says: str) -> None:
    done = run_eval(*arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert pipe.segmenter.encoded == 0


def test_missing_files_are_told_before_measuring(run_eval, pipe, data_folder) -> None:
    (data_folder / "2.png").unlink()
    (data_folder / "3_ids.png").unlink()
    done = run_eval()
    assert done.exit_code == 2
    assert "2.png' does not exist, and 1 more; check the paths of index.jsonl" in done.stderr
    assert pipe.segmenter.encoded == 0
    assert run_eval("--limit", 2).exit_code == 0  # the others are not needed


def test_two_pictures_of_one_name_are_told(run_eval, data_folder) -> None:
    index = data_folder / "index.jsonl"
    index.write_text(index.read_text() + "\n" + index.read_text().splitlines()[0])
    done = run_eval()
    assert done.exit_code == 2
    assert "'even/0' is the name of two pictures; rename one of them" in done.stderr


@pytest.mark.parametrize("name", ["nowhere.json", "nowhere"])
def test_data_that_is_not_there(run, name: str) -> None:
    done = run("eval", "--data", name)
    assert done.exit_code == 2
    assert f"'{name}' does not exist; give a folder with index.jsonl or a COCO" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_weights_fingerprint_is_of_names_and_contents(tmp_path, monkeypatch) -> None:
    from promptseg.pipeline.presets import pocket

    monkeypatch.setattr(pocket, "WEIGHTS", tmp_path)
    seen = set()
    for name, content in (("a", "1"), ("a", "2"), ("b", "2")):
        (tmp_path / f"{name}.safetensors").write_text(content)
        seen.add(evaluation.weights_fingerprint())
    (tmp_path / "a.safetensors").unlink()
    seen.add(evaluation.weights_fingerprint())
    (tmp_path / "README.md").write_text("no weights")
    seen.add(evaluation.weights_fingerprint())
    assert len(seen) == 4


def test_what_was_skipped_is_told_at_the_end(run_eval, data_folder) -> None:
    index = data_folder / "index.jsonl"
    first, *lines = index.read_text().splitlines()
    wrong = json.loads(first)
    wrong["regions"][0]["ids"] = "1"
    index.write_text("\n".join([json.dumps(wrong), *lines]))
    (data_folder / "2.png").write_bytes(b"no picture")
    done = run_eval()
    assert done.exit_code == 0, done.output
    named, damaged, counted = done.stderr.splitlines()
    assert named.startswith("skipped: ")
    assert "index.jsonl, line 1: regions[0].ids: Expected array, got str" in named
    assert "2.png' is not an image that can be read" in damaged
    assert counted == "skipped: 2 entries or images of the data could not be read and did not count"


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_data_that_is_no_file_is_refused_at_once(run, tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero")
    if kind == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    done = run("eval", "--data", path)
    assert done.exit_code == 2
    assert "is not a regular file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_masks_and_photographs_that_are_no_files_are_told_before_measuring(
    run_eval, pipe, data_folder
) -> None:
    (data_folder / "2.png").unlink()
    os.mkfifo(data_folder / "2.png")
    done = run_eval()
    assert done.exit_code == 2
    assert "2.png' is not a regular file; check the paths of index.jsonl" in done.stderr
    assert pipe.segmenter.encoded == 0
