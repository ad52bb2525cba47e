"""`promptseg segment` on single images: the table, files, JSON, options, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from promptseg.apps.cli.options import ModelOptions
from promptseg.models.errors import CheckpointError, ModelNotFoundError


def files_under(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name[0] != "."
    }


def without_time(line: str) -> dict[str, object]:
    """A record as it is in the file, which tells no time."""
    record = json.loads(line)
    assert record.pop("seconds") >= 0
    return record


def test_table_shows_every_score_and_rejected_masks(run, fake_pipeline, photo) -> None:
    done = run("segment", photo, "-t", "cat", "-t", "dog")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["1", "cat", "0.90", "0.90", "1.00", "1.00", "50.0%", "0,0,40,60"] in rows
    assert ["2", "dog", "0.80", "0.80", "1.00", "1.00", "50.0%", "40,0,80,60"] in rows
    assert "rejected: 1" in done.stdout
    assert "'dog': overlaps a better mask of 'dog' (IoU 1.00) (score 0.70" in done.stdout


def test_files_of_one_image(run, fake_pipeline, photo, tmp_path) -> None:
    out = tmp_path / "out"
    done = run("segment", photo, "-t", "cat", "-t", "dog", "--out", out)
    assert done.exit_code == 0, done.output
    assert files_under(out) == {
        "result.json",
        "overlay.png",
        "mask_01_cat.png",
        "mask_02_dog.png",
    }
    told = json.loads((out / "result.json").read_text())
    assert told["schema"] == "promptseg.result/1"
    assert told["image"] == str(photo)
    assert told["image_size"] == [60, 80]
    assert told["files"] == {
        "folder": str(out),
        "overlay": "overlay.png",
        "masks": ["mask_01_cat.png", "mask_02_dog.png"],
    }
    for entry, name in zip(told["masks"], told["files"]["masks"], strict=True):
        pixels = np.asarray(Image.open(out / name))
        np.testing.assert_array_equal(pixels, coco_mask.decode(entry["segmentation"]) * 255)
    overlay, original = np.asarray(Image.open(out / "overlay.png")), np.asarray(Image.open(photo))
    assert overlay.shape == original.shape
    assert (overlay != original).any(axis=-1).mean() > 0.9


def test_without_out_files_go_to_a_folder_named_like_the_image(run, fake_pipeline, photo) -> None:
    assert run("segment", photo, "-t", "cat").exit_code == 0
    assert files_under(Path("promptseg-output/photo")) >= {"result.json", "overlay.png"}


def test_a_second_run_removes_the_masks_of_the_first(run, fake_pipeline, photo, tmp_path) -> None:
    out = tmp_path / "out"
    run("segment", photo, "-t", "cat", "-t", "dog", "--out", out)
    (out / "mask_09_mine.png").write_text("not the program's")
    run("segment", photo, "-t", "dog", "--out", out)
    assert files_under(out) == {"result.json", "overlay.png", "mask_01_dog.png", "mask_09_mine.png"}


def test_options_reach_the_pipeline(run, fake_pipeline, photo) -> None:
    done = run(
        "segment", photo, "-t", " cat ", "--text", "red car", "-t", "cat", "--negative", "toy",
        "--point", "3,4", "--point", "-1.5,6,0", "--box", "1,2,30,40",
        "--top-k", 2, "--min-score", 0.25, "--no-overlap",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (query,) = fake_pipeline.queries
    assert query.text == ("cat", "red car")
    assert query.negative_text == ("toy",)
    assert query.reference == query.negative_reference == ()
    assert query.marks.points.tolist() == [[3.0, 4.0], [-1.5, 6.0]]
    assert query.marks.point_labels.tolist() == [1, 0]
    assert query.marks.boxes.tolist() == [[1.0, 2.0, 30.0, 40.0]]
    assert fake_pipeline.rankings == [(2, 0.25, True)]


def test_what_is_not_given_is_left_to_the_preset(run, fake_pipeline, photo) -> None:
    run("segment", photo, "--box", "1,2,30,40")
    (query,) = fake_pipeline.queries
    assert not query.finds
    assert fake_pipeline.rankings == [(None, None, None)]


def test_models_are_loaded_as_asked(run, loads, fake_pipeline, photo, tmp_path) -> None:
    loader = loads(fake_pipeline)
    run("segment", photo, "-t", "cat")
    run("segment", photo, "-t", "cat", "--preset", "base", "--device", "cuda:1", "--dtype", "bf16",
        "--weights", tmp_path, "--strategy", "graph")  # fmt: skip
    assert loader.options == [
        ModelOptions(), ModelOptions("base", "cuda:1", "bf16", tmp_path, "graph"),
    ]  # fmt: skip


def test_json_alone_on_stdout_and_no_files(run, fake_pipeline, photo) -> None:
    done = run("segment", photo, "-t", "cat", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [entry["label"] for entry in told["masks"]] == ["cat"]
    assert told["files"] is None
    assert not Path("promptseg-output").exists()


def test_json_with_out_writes_the_same_record(run, fake_pipeline, photo, tmp_path) -> None:
    done = run("segment", photo, "-t", "cat", "--json", "--out", tmp_path / "out")
    assert without_time(done.stdout) == json.loads((tmp_path / "out/result.json").read_text())


def test_nothing_found_is_an_answer(run, fake_pipeline, photo, tmp_path) -> None:
    done = run("segment", photo, "-t", "zebra", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    line = "nothing here that matches 'zebra': presence 0.03 below 0.20; --min-presence 0.03"
    assert line in " ".join(done.stdout.split())
    assert json.loads((tmp_path / "out/result.json").read_text())["masks"] == []
    overlay = np.asarray(Image.open(tmp_path / "out/overlay.png"))
    np.testing.assert_array_equal(overlay, np.asarray(Image.open(photo)))


def test_one_phrase_found_the_other_not(run, fake_pipeline, photo) -> None:
    done = run("segment", photo, "-t", "cat", "-t", "zebra")
    assert "nothing here that matches 'zebra': presence 0.03 below 0.20" in done.stdout
    assert "nothing here that matches 'cat'" not in done.stdout
    assert "rejected" not in done.stdout  # told already


def test_all_masks_below_min_score_says_so(run, fake_pipeline, photo) -> None:
    done = run("segment", photo, "-t", "cat", "--min-score", 0.95)
    assert "nothing here that matches 'cat': score 0.90 below min_score 0.95" in done.stdout
    assert done.exit_code == 0


def test_phrases_are_no_markup_and_no_paths(run, fake_pipeline, photo, tmp_path) -> None:
    phrase = "[bold]../../etc[/bold]"
    done = run("segment", photo, "-t", phrase, "-t", "cat", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert phrase in done.stdout


def test_one_bad_image_does_not_stop_the_others(run, fake_pipeline, photo, tmp_path) -> None:
    notes = tmp_path / "notes.jpg"
    notes.write_text("not a picture")
    other = photo.with_name("other.png")
    other.write_bytes(photo.read_bytes())
    out = tmp_path / "out"
    done = run("segment", photo, notes, "missing.png", other, "-t", "cat", "--out", out)
    assert done.exit_code == 1
    assert files_under(out / "photo") == files_under(out / "other")
    assert not (out / "notes").exists()
    assert not (out / "missing").exists()
    errors = done.stderr.splitlines()
    assert len(errors) == 3
    assert "notes.jpg' is not an image" in errors[0]
    assert errors[1] == "error: 'missing.png' does not exist; check the path"
    assert errors[2] == f"error: 2 of 4 images failed; see '{out / 'failures.txt'}'"


def test_json_of_several_images_is_one_line_each(run, fake_pipeline, photo) -> None:
    done = run("segment", photo, "missing.png", photo, "-t", "cat", "--json")
    assert done.exit_code == 1
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert first["masks"] == third["masks"]
    assert second == {
        "image": "missing.png",
        "error": "'missing.png' does not exist; check the path",
    }


def test_images_of_one_name_do_not_overwrite_each_other(run, fake_pipeline, photo, tmp_path):
    twin = tmp_path / "photo.png"
    twin.write_bytes(photo.read_bytes())
    out = tmp_path / "out"
    done = run("segment", photo, twin, "-t", "cat", "--out", out, "--json")
    assert done.exit_code == 0
    told = [json.loads((out / name / "result.json").read_text()) for name in ("photo", "photo-2")]
    assert [without_time(line) for line in done.stdout.splitlines()] == told
    for record in told:
        folder = Path(record["files"]["folder"])
        assert (folder / record["files"]["overlay"]).is_file()
        assert all((folder / name).is_file() for name in record["files"]["masks"])
    assert [record["image"] for record in told] == [str(photo), str(twin)]


@pytest.mark.parametrize("as_json", [False, True])
def test_progress_bar_on_a_terminal_leaves_stdout_alone(
    run, fake_pipeline, photo, monkeypatch, as_json: bool
) -> None:
    options = ["--json"] if as_json else ["--out", "out"]
    plain = run("segment", photo, "missing.png", photo, "-t", "cat", *options)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    done = run("segment", photo, "missing.png", photo, "-t", "cat", *options)
    assert done.exit_code == 1
    for count in ("0/3", "1/3", "2/3"):
        assert count in done.stderr
    assert "'missing.png' does not exist" in done.stderr
    assert "segmenting" not in done.stdout
    assert "segmenting" not in plain.stderr
    if as_json:
        assert [sorted(json.loads(line)) for line in done.stdout.splitlines()] == [
            sorted(json.loads(line)) for line in plain.stdout.splitlines()
        ]
    else:
        assert done.stdout.count("cat") == plain.stdout.count("cat") == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say what to look for: give --text, --reference, --concept,"),
        (["--negative", "toy"], "say what to look for"),
        (["-t", ""], "--text: the text is empty"),
        (["-t", "cat", "-t", "  "], "--text: the text is empty"),
        (["-t", "cat", "--negative", ""], "--negative: the text is empty"),
        # How Python hands on an argument's byte FF, and a lone surrogate of its own.
        (["-t", "\udcffcat"], r"--text: '\udcffcat' is not valid Unicode text"),
        (["-t", "cat", "--negative", "a\udce9"], "--negative: 'a\\udce9' is not valid Unicode"),
        (["--point", "nan,3"], "--point must be finite"),
        (["--point", "3"], "--point: '3' is not X,Y or X,Y,LABEL in pixels"),
        (["--point", "3,4,2"], "--point: LABEL must be 1 (foreground) or 0 (background)"),
        (["--point", "3,4,1,1"], "--point"),
        (["--point", "a,b"], "--point: 'a,b' is not X,Y or X,Y,LABEL in pixels"),
        (["--box", "30,2,1,40"], "has its corners in the wrong order; give x0 <= x1, y0 <= y1"),
        (["--box", "1,2,3"], "--box: '1,2,3' is not X0,Y0,X1,Y1 in pixels"),
        (["--box", "1,2,nan,4"], "--box must be finite"),
        (["-t", "cat", "--weights", "nowhere"], "--weights: 'nowhere' is not a folder"),
        (["-t", "crash"], "cannot be used"),
    ],
)
def test_bad_queries_are_one_line_and_exit_2(
    run, fake_pipeline, photo, arguments: list[str], says: str
) -> None:
    done = run("segment", photo, *arguments)
    assert done.exit_code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""
    assert not Path("promptseg-output").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment"],
        ["segment", "--nonsense"],
        ["segment", "a.png", "-t", "cat", "--top-k", "0"],
        ["segment", "a.png", "-t", "cat", "--min-score", "1.5"],
        ["segment", "a.png", "-t", "cat", "--min-score", "nan"],
        ["nonsense"],
    ],
)
def test_usage_errors_exit_2(run, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_one_bad_image_alone_exits_2_before_models_are_loaded(run, loads) -> None:
    loads(AssertionError("loaded"))
    done = run("segment", "missing.png", "-t", "cat", "--out", "out")
    assert done.exit_code == 2
    assert done.stderr == "error: 'missing.png' does not exist; check the path\n"
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelNotFoundError("no preset is called 'huge'; there are pocket"), 2),
        (CheckpointError("the weights are truncated;\ndownload them again"), 2),
        (RuntimeError("no\nmemory"), 1),
    ],
)
@pytest.mark.parametrize("command", [("segment", "-t", "cat"), ("everything",)])
def test_a_pipeline_that_cannot_load_stops_at_once(run, loads, photo, command, error, code) -> None:
    loads(error)
    done = run(*command, photo, photo, "--json")
    name = "RuntimeError: " if code == 1 else ""
    message = name + " ".join(str(error).split())
    assert done.exit_code == code
    assert done.stderr == f"error: {message}\n"
    assert json.loads(done.stdout) == {"image": str(photo), "error": message}


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu cpu", ""])
def test_unknown_devices_exit_2(run, photo, device: str) -> None:
    done = run("segment", photo, "-t", "cat", "--device", device)
    assert done.exit_code == 2
    assert f"there is no device {device!r}" in done.stderr


def test_an_image_that_fails_in_the_models_exits_1(run, fake_pipeline, photo, monkeypatch) -> None:
    def run_out(self, image, query, **options) -> None:
        raise RuntimeError("not enough memory: you tried to allocate\n4 GB")

    monkeypatch.setattr(type(fake_pipeline), "propose", run_out)
    done = run("segment", photo, "-t", "cat")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "RuntimeError: not enough memory: you tried to allocate 4 GB" in done.stderr


def test_out_that_is_a_file(run, fake_pipeline, photo, tmp_path) -> None:
    done = run("segment", photo, "-t", "cat", "--out", photo)
    assert done.exit_code == 2
    assert "is a file; give a folder" in done.stderr
    done = run("segment", photo, "-t", "cat", "--out", photo / "below")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1


def test_version_and_models(run, repo_root: Path) -> None:
    assert run("--version").stdout == "promptseg 0.1.0\n"
    done = run("models", "list")
    assert done.exit_code == 0
    for name in ("sam_vit_b", "sam_vit_l", "sam_vit_h", "sam_vit_t", "sam_pocket"):
        assert name in done.stdout
    assert "93.7 M" in done.stdout
    assert "pocket" in [line.split()[0] for line in done.stdout.splitlines() if line.split()]
    assert "Apache-2.0" in done.stdout


def test_a_least_presence_reaches_the_query_the_records_and_the_log(
    run, fake_pipeline, photo, tmp_path
) -> None:
    done = run("segment", photo, "-t", "bird", "--out", tmp_path / "own")
    line = "matches 'bird': presence 0.03 below 0.20; --min-presence 0.03 tries it anyway"
    assert line in " ".join(done.stdout.split())
    assert json.loads((tmp_path / "own" / "result.json").read_text())["min_presence"] is None
    out = tmp_path / "out"
    done = run("segment", photo.parent, "-t", "cat", "--min-presence", "0.1", "--out", out)
    assert done.exit_code == 0, done.output
    assert [query.min_presence for query in fake_pipeline.queries] == [None, 0.1]
    (record,) = out.rglob("result.json")
    assert json.loads(record.read_text())["min_presence"] == 0.1
    (log,) = out.glob("run.jsonl")
    assert json.loads(log.read_text().splitlines()[0])["promptseg_run"]["min_presence"] == 0.1
    again = run("segment", photo.parent, "-t", "cat", "--out", out, "--resume")
    assert again.exit_code == 2
    assert "its min_presence is 0.1, not null as in this run" in again.stderr


@pytest.mark.parametrize("value", ["-0.1", "1.01", "nan", "inf"])
def test_a_least_presence_is_from_0_to_1(run, photo, tmp_path, value) -> None:
    out = tmp_path / "out"
    done = run("segment", photo, "-t", "cat", f"--min-presence={value}", "--out", out)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --min-presence must be between 0 and 1, not")
    assert not out.exists()
