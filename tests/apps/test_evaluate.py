"""Measuring on made-up pictures with a segmenter whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptseg.apps import console, eval_command
from promptseg.apps.datasets import VOID, read_index
from promptseg.apps.evaluate import evaluate, summarise
from promptseg.models.errors import InputError
from promptseg.pipeline.types import MaskCandidates, PromptSet, Result

SIZE = (30, 40)


def block(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


# A block of 20 x 10 and, three pictures of four, an L: three quarters of its box of 8 x 8.
DOG = block(5, 5, 25, 15)
CORNER = block(28, 16, 36, 24) & ~block(32, 16, 36, 20)


def write_folder(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    lines = []
    for number in range(count):
        ids = np.zeros(SIZE, np.uint8)
        ids[DOG] = 1
        regions = [{"label": "dog", "ids": [1], "instances": True}]
        if number:
            ids[CORNER] = 2
            regions.append({"label": f"thing {number}", "ids": [2], "instances": False})
        ids[0, :3] = 3  # too small to count
        regions.append({"label": "crumb", "ids": [3], "instances": True})
        ids[29] = VOID
        Image.fromarray(np.full((*SIZE, 3), 20 * number, np.uint8)).save(folder / f"{number}.png")
        Image.fromarray(ids).save(folder / f"{number}_ids.png")
        lines.append(
            {
                "image": f"{number}.png",
                "mask": f"{number}_ids.png",
                "source": "even" if number % 2 == 0 else "odd",
                "split": "dev",
                "regions": regions,
            }
        )
    (folder / "index.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def candidates(masks: Sequence[Sequence[np.ndarray]], predicted: Any) -> MaskCandidates:
    """Of B prompts; the logits of mask c are all c."""
    stacked = np.array(masks, bool)
    b, c = stacked.shape[:2]
    logits = np.zeros((b, c, 4, 4), np.float32) + np.arange(c)[:, None, None]
    scores = np.array(predicted, np.float32).reshape(b, c)
    return MaskCandidates(stacked, scores, logits, scores)


# Answers to 1, 2, ... clicks: what the three masks are and what the IoU token says of each. The
# token prefers the left half first, then too much, then the whole.
LEFT, WHOLE, NOTHING = block(5, 5, 15, 15), DOG, block(0, 0, 0, 0)
TOO_MUCH = DOG | block(25, 0, 40, 20)
ANSWERS = [
    ((LEFT, WHOLE, NOTHING), (0.9, 0.3, 0.1)),
    ((LEFT, TOO_MUCH, NOTHING), (0.2, 0.8, 0.1)),
    ((WHOLE, LEFT, NOTHING), (1.0, 0.5, 0.0)),
    ((WHOLE, LEFT, NOTHING), (1.0, 0.5, 0.0)),
    ((NOTHING, LEFT, WHOLE), (0.5, 0.25, 1.0)),
]


@dataclass
class FakeSegmenter:
    """A box gives the whole box; the n-th click gives ANSWERS[n - 1]."""

    encoded: int = 0
    fails_at: int | None = None
    clicks: list[dict[str, Any]] = field(default_factory=list)

    def encode_image(self, image: np.ndarray) -> None:
        if self.encoded == self.fails_at:
            raise KeyboardInterrupt
        self.encoded += 1

    def decode(
        self,
        embedding: None,
        *,
        boxes: Any = None,
        point_coords: Any = None,
        point_labels: Any = None,
        mask_input: Any = None,
        multimask_output: bool,
    ) -> MaskCandidates:
        if boxes is not None:
            assert not multimask_output
            masks = [[block(*(int(edge) for edge in box))] for box in boxes]
            return candidates(masks, [0.5] * len(masks))
        assert multimask_output
        before = None if mask_input is None else float(np.unique(mask_input).item())
        last = (*point_coords[0][-1], point_labels[0][-1])
        self.clicks.append({"number": len(point_coords[0]), "last": last, "before": before})
        masks, predicted = ANSWERS[len(point_coords[0]) - 1]
        return candidates([masks], predicted)


@dataclass
class FakePrompter:
    """Points at the middle of the dog for every phrase."""

    config: str = "thresholds"

    def __call__(self, embedding: None, phrases: Sequence[str]) -> tuple[PromptSet, tuple[()]]:
        prompts = PromptSet(
            prompt_scores=np.array([0.2, 0.9], np.float32),
            labels=("any", "any"),
            point_coords=np.array([[[0.0, 0.0]], [[15.0, 10.0]]]),
            point_labels=np.ones((2, 1), int),
        )
        return prompts, ()


@dataclass
class FakePipeline:
    """Finds the dog in two halves, and a crumb that is too small to count."""

    segmenter: FakeSegmenter = field(default_factory=FakeSegmenter)
    text_prompter: FakePrompter = field(default_factory=FakePrompter)
    config: str = "ranking"

    def find(self, embedding: None, phrase: str) -> Result:
        known = {"dog": [LEFT, block(15, 5, 20, 15)], "thing 3": [DOG]}
        masks = np.array(known.get(phrase, [])).reshape(-1, *SIZE).astype(bool)
        ones = np.ones(len(masks), np.float32)
        boxes = np.zeros((len(masks), 4), np.float32)
        return Result(
            masks=masks,
            boxes_xyxy=boxes,
            labels=[phrase] * len(masks),
            scores=ones,
            iou_predictions=ones,
            stability_scores=ones,
            prompt_scores=ones,
        )


@pytest.fixture
def samples(tmp_path: Path):
    return read_index(write_folder(tmp_path / "data"), "dev")


def test_boxes(samples) -> None:
    rows = evaluate(FakePipeline(), samples, "boxes")
    assert [row["label"] for row in rows] == [
        "dog", "dog", "thing 1", "dog", "thing 2", "dog", "thing 3",
    ]  # fmt: skip
    assert [row["iou"] for row in rows] == [1, 1, 0.75, 1, 0.75, 1, 0.75]
    figures = summarise("boxes", rows)
    assert figures["even"] == {"objects": 3, "mIoU": pytest.approx(2.75 / 3)}
    assert figures["odd"] == {"objects": 4, "mIoU": pytest.approx(3.5 / 4)}
    assert figures["all"] == {"objects": 7, "mIoU": pytest.approx(6.25 / 7)}


def test_points_click_on_the_largest_error(samples) -> None:
    pipe = FakePipeline()
    rows = evaluate(pipe, samples[:1], "points")
    # On the dog's middle, on the missing right half's, and on the excess's (15 x 20, at the
    # border of the picture). Then nothing is left, and clicks repeat the dog's middle.
    assert pipe.segmenter.clicks == [
        {"number": 1, "last": (9, 9, 1), "before": None},
        {"number": 2, "last": (19, 9, 1), "before": 0.0},
        {"number": 3, "last": (32, 7, 0), "before": 1.0},
        {"number": 4, "last": (9, 9, 1), "before": 0.0},
        {"number": 5, "last": (9, 9, 1), "before": 0.0},
    ]
    (row,) = rows
    assert row["1"]["ious"] == [0.5, 1, 0]
    assert row["3"]["ious"] == [1, 0.5, 0]
    assert row["5"]["ious"] == [0, 0.5, 1]
    figures = summarise("points", rows)["all"]
    assert figures == pytest.approx(
        {
            "objects": 1,
            "1 selected": 0.5,
            "1 best": 1.0,
            "1 IoU error": (0.4 + 0.7 + 0.1) / 3,
            "1 picks best": 0.0,
            "3 selected": 1.0,
            "3 best": 1.0,
            "3 IoU error": 0.0,
            "3 picks best": 1.0,
            "5 selected": 1.0,
            "5 best": 1.0,
            "5 IoU error": 0.25,
            "5 picks best": 1.0,
        },
        abs=1e-6,
    )


def test_text_asks_for_what_is_there_and_as_much_that_is_not(samples) -> None:
    rows = evaluate(FakePipeline(), samples, "text")
    # Absent phrases: none of the picture's own, the crumb included.
    assert [(row["label"], row["present"]) for row in rows] == [
        ("dog", True), ("thing 2", False),
        ("dog", True), ("thing 1", True), ("thing 3", False),
        ("dog", True), ("thing 2", True),
        ("dog", True), ("thing 3", True), ("thing 1", False),
    ]  # fmt: skip
    by_phrase = {(row["label"], row["present"]): row for row in rows}
    assert by_phrase["dog", True]["iou"] == 0.75  # union of two masks: 15 of 20 columns
    assert by_phrase["thing 1", True]["iou"] == 0  # nothing found
    assert by_phrase["dog", True]["pointed"]
    assert not by_phrase["thing 3", True]["pointed"]  # the surest prompt is on the dog
    figures = summarise("text", rows)["all"]
    # Found: the 4 dogs and thing 3, once where it is and once where it is not.
    assert figures == pytest.approx(
        {
            "phrases": 7,
            "mIoU": 4 * 0.75 / 7,
            "pointing": 4 / 7,
            "IL_MCC": (5 * 2 - 1 * 2) / np.sqrt(6 * 7 * 3 * 4),
            "empty if absent": 2 / 3,
            "found if present": 5 / 7,
        }
    )


def test_figures_that_no_row_counts_for_are_left_out() -> None:
    present = {"source": "s", "label": "dog", "present": True, "found": True}
    present |= {"iou": 0.5, "pointed": True}
    absent = {"source": "s", "label": "cat", "present": False, "found": False}
    assert summarise("text", [present])["all"] == {
        "phrases": 1, "mIoU": 0.5, "pointing": 1.0, "found if present": 1.0,
    }  # fmt: skip
    assert summarise("text", [absent])["all"] == {"empty if absent": 1.0}
    assert summarise("text", []) == {}


def test_an_unknown_task_is_refused(samples) -> None:
    with pytest.raises(InputError, match="there is no task 'masks'; there are boxes, points"):
        evaluate(FakePipeline(), samples, "masks")


def test_pictures_of_one_name_are_refused(samples) -> None:
    with pytest.raises(InputError, match="'even/0' is the name of two pictures"):
        evaluate(FakePipeline(), [*samples, samples[0]], "boxes")


@pytest.mark.parametrize("task", ["boxes", "points", "text"])
@pytest.mark.parametrize("cut", [0, 7])
def test_an_interrupted_run_goes_on(samples, tmp_path: Path, task: str, cut: int) -> None:
    expected = evaluate(FakePipeline(), samples, task)
    whole, store = tmp_path / "new" / "whole.jsonl", tmp_path / "new" / "cut.jsonl"
    assert evaluate(FakePipeline(), samples, task, store=whole) == expected
    with pytest.raises(KeyboardInterrupt):
        evaluate(FakePipeline(FakeSegmenter(fails_at=2)), samples, task, store=store)
    if cut:
        store.write_bytes(store.read_bytes()[:-cut])
    pipe = FakePipeline()
    assert evaluate(pipe, samples, task, store=store) == expected
    assert pipe.segmenter.encoded == (3 if cut else 2)
    assert store.read_bytes() == whole.read_bytes()
    again = FakePipeline()
    assert evaluate(again, samples, task, store=store) == expected
    assert again.segmenter.encoded == 0


def test_a_run_cut_off_in_its_first_line_starts_anew(samples, tmp_path: Path) -> None:
    store = tmp_path / "rows.jsonl"
    store.write_text('{"header": {"ta')
    expected = evaluate(FakePipeline(), samples, "boxes")
    assert evaluate(FakePipeline(), samples, "boxes", store=store) == expected


ABOUT = {"preset": "pocket", "weights": "1f"}


@pytest.mark.parametrize(
    ("task", "about", "pipe", "says"),
    [
        ("points", ABOUT, FakePipeline(), "its task is 'boxes', that of this run 'points'"),
        ("boxes", {**ABOUT, "preset": "x"}, FakePipeline(), "its preset is 'pocket', that of"),
        ("boxes", {**ABOUT, "weights": "2a"}, FakePipeline(), "its weights is '1f', that of"),
        ("boxes", {**ABOUT, "split": "dev"}, FakePipeline(), "its split is None"),
        ("boxes", {"preset": "pocket"}, FakePipeline(), "its weights is '1f', that of this run"),
        ("boxes", ABOUT, FakePipeline(config="other"), "its settings is"),
        ("boxes", ABOUT, FakePipeline(text_prompter=FakePrompter("other")), "its settings is"),
    ],
)
def test_rows_of_another_run_are_refused_and_kept(
    samples, tmp_path: Path, task: str, about: dict[str, str], pipe: FakePipeline, says: str
) -> None:
    store = tmp_path / "rows.jsonl"
    evaluate(FakePipeline(), samples, "boxes", store=store, about=ABOUT)
    before = store.read_bytes()
    with pytest.raises(InputError) as caught:
        evaluate(pipe, samples, task, store=store, about=about)
    message = str(caught.value)
    assert says in message
    assert str(store) in message
    assert "delete the file" in message
    assert "\n" not in message
    assert store.read_bytes() == before
    assert pipe.segmenter.encoded == 0


def test_rows_drawn_from_other_labels_are_refused(samples, tmp_path: Path) -> None:
    store = tmp_path / "rows.jsonl"
    evaluate(FakePipeline(), samples[:2], "text", store=store)
    with pytest.raises(InputError, match="its labels is"):
        evaluate(FakePipeline(), samples, "text", store=store)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda lines: [lines[0], "{broken", *lines[2:]], "line 2 is broken"),
        (lambda lines: [*lines[:2], "[]", *lines[3:]], "line 3 is broken"),
        (lambda lines: [*lines[:2], '{"name": "even/0", "rows": [3]}'], "line 3 is broken"),
        (lambda lines: [*lines[:2], '{"name": 3, "rows": []}'], "line 3 is broken"),
        (lambda lines: lines[1:], "its first line does not say what was measured"),
        (lambda lines: ["dear diary"], "its first line does not say"),
        (lambda lines: ['{"header": 3}'], "its first line does not say"),
        (lambda lines: ["\udcff"], "it is not UTF-8 text"),
    ],
)
def test_a_broken_store_is_refused_and_kept(samples, tmp_path: Path, spoil, says: str) -> None:
    store = tmp_path / "rows.jsonl"
    evaluate(FakePipeline(), samples, "boxes", store=store)
    lines = spoil(store.read_text().splitlines())
    content = "".join(line + "\n" for line in lines).encode(errors="surrogateescape")
    store.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        evaluate(FakePipeline(), samples, "boxes", store=store)
    assert str(store) in str(caught.value)
    assert store.read_bytes() == content


@pytest.fixture
def eval_boxes(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run `promptseg eval --task boxes` on four pictures with the known segmenter."""
    folder = write_folder(tmp_path / "data")
    pipe = FakePipeline()
    monkeypatch.setattr(eval_command, "load_pipeline", lambda preset, device: pipe)

    def invoke(*arguments: object):
        done = run("eval", "--data", folder, "--task", "boxes", *arguments)
        return done, pipe.segmenter

    return invoke


def test_the_command_writes_figures_and_goes_on(eval_boxes) -> None:
    out = Path("new/figures.json")  # the folder is not there yet
    done, segmenter = eval_boxes("--json", out)
    assert done.exit_code == 0, done.output
    assert ["mIoU", "0.917", "0.875", "0.893"] in [
        line.split() for line in done.stdout.splitlines()
    ]
    first = json.loads(out.read_text())
    assert first["all"] == {"objects": 7, "mIoU": pytest.approx(6.25 / 7)}
    assert eval_boxes("--json", out)[0].exit_code == 0
    assert segmenter.encoded == 4
    header = json.loads(Path("new/figures.json.rows.jsonl").read_text().splitlines()[0])["header"]
    assert header["task"] == "boxes"
    assert header["preset"] == "pocket"
    assert header["split"] == "dev"
    assert header["version"] == "0.1.0"
    assert header["weights"] == console.weights_fingerprint()


def test_the_command_refuses_rows_of_other_weights(eval_boxes, monkeypatch) -> None:
    assert eval_boxes("--json", "figures.json")[0].exit_code == 0
    monkeypatch.setattr(eval_command, "weights_fingerprint", lambda: "another")
    done, _ = eval_boxes("--json", "figures.json")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "'figures.json.rows.jsonl' holds no rows to go on from: its weights is" in done.stderr


def test_the_command_refuses_a_folder_before_measuring(eval_boxes) -> None:
    done, segmenter = eval_boxes("--json", ".")
    assert done.exit_code == 2
    assert done.stderr == "error: --json: '.' is a folder; give a file\n"
    assert segmenter.encoded == 0


def test_the_weights_fingerprint_is_of_names_and_contents(tmp_path, monkeypatch) -> None:
    from promptseg.pipeline import presets

    monkeypatch.setattr(presets, "WEIGHTS", tmp_path)
    seen = set()
    for name, content in (("a", "1"), ("a", "2"), ("b", "2")):
        (tmp_path / f"{name}.safetensors").write_text(content)
        seen.add(console.weights_fingerprint())
    (tmp_path / "a.safetensors").unlink()
    seen.add(console.weights_fingerprint())
    (tmp_path / "README.md").write_text("no weights")
    seen.add(console.weights_fingerprint())
    assert len(seen) == 4
