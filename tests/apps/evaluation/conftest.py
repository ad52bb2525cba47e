"""Made-up pictures, and a pipeline whose answers to them are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptseg.apps.evaluation.index_folder import VOID, read_index_collection
from promptseg.pipeline.decoding.prompts import MaskCandidates
from promptseg.pipeline.result import Result

SIZE = (30, 40)


def block(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


# A block of 20 x 10 and, three pictures of four, an L: three quarters of its box of 8 x 8.
DOG = block(5, 5, 25, 15)
CORNER = block(28, 16, 36, 24) & ~block(32, 16, 36, 20)
LEFT, WHOLE, NOTHING = block(5, 5, 15, 15), DOG, block(0, 0, 0, 0)
TOO_MUCH = DOG | block(25, 0, 40, 20)
SECOND = [None, "cat", "car", "bus"]  # what the L is called, by picture


def write_folder(folder: Path) -> Path:
    """Pictures 0 and 2 of source "even", 1 and 3 of "odd"."""
    folder.mkdir()
    lines = []
    for number, label in enumerate(SECOND):
        ids = np.zeros(SIZE, np.uint8)
        ids[DOG] = 1
        regions = [{"label": "dog", "ids": [1], "instances": True}]
        if label is not None:
            ids[CORNER] = 2
            regions.append({"label": label, "ids": [2], "instances": False})
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


def result_of(masks: Sequence[np.ndarray], labels: Sequence[str], predicted: float = 1.0) -> Result:
    stacked = np.array(masks, bool).reshape(-1, *SIZE)
    ones = np.ones(len(stacked), np.float32)
    return Result.of(
        masks=stacked,
        labels=list(labels),
        scores=ones,
        iou_predictions=predicted * ones,
        stability_scores=ones,
        prompt_scores=ones,
    )


# Answers to 1, 2, ... clicks: what the three masks are and what the IoU token says of each. The
# token prefers the left half first, then too much, then the whole.
ANSWERS = [
    ((LEFT, WHOLE, NOTHING), (0.9, 0.3, 0.1)),
    ((LEFT, TOO_MUCH, NOTHING), (0.2, 0.8, 0.1)),
    ((WHOLE, LEFT, NOTHING), (1.0, 0.5, 0.0)),
    ((WHOLE, LEFT, NOTHING), (1.0, 0.5, 0.0)),
    ((NOTHING, LEFT, WHOLE), (0.5, 0.25, 1.0)),
]
# What the pipeline's best mask is.
BEST = [LEFT, TOO_MUCH, WHOLE, WHOLE, TOO_MUCH]
# And the single mask.
SINGLE = [(WHOLE, 0.75), (TOO_MUCH, 0.5), (LEFT, 0.25), (LEFT, 0.5), (WHOLE, 1.0)]


@dataclass
class FakeSegmenter:
    """The n-th click gives ANSWERS[n - 1] or SINGLE[n - 1]."""

    encoded: int = 0
    fails_at: int | None = None
    clicks: list[dict[str, Any]] = field(default_factory=list)

    def encode_image(self, image: np.ndarray) -> int:
        if self.encoded == self.fails_at:
            raise KeyboardInterrupt
        self.encoded += 1
        return int(image[0, 0, 0]) // 20

    def decode(
        self,
        embedding: int,
        *,
        point_coords: Any = None,
        point_labels: Any = None,
        mask_input: Any = None,
        multimask_output: bool,
    ) -> MaskCandidates:
        before = None if mask_input is None else float(np.unique(mask_input).item())
        number = len(point_coords[0])
        last = (*point_coords[0][-1], point_labels[0][-1])
        self.clicks.append(
            {"number": number, "last": last, "before": before, "three": multimask_output}
        )
        if not multimask_output:
            mask, score = SINGLE[number - 1]
            return candidates([[mask]], [score])
        masks, predicted = ANSWERS[number - 1]
        return candidates([masks], predicted)


@dataclass
class FakePrompter:
    """Points at the middle of the dog for every phrase but "bus", which it sees at the corner."""

    config: str = "thresholds"

    def peaks(self, embedding: int, phrases: Sequence[str]) -> list[tuple[float, float]]:
        return [(0.0, 0.0) if phrase == "bus" else (15.0, 10.0) for phrase in phrases]

    def presence(self, embedding: int, phrases: Sequence[str]) -> list[float]:
        return [{"dog": 0.9, "cat": 0.6, "car": 0.6, "bus": 0.3}[phrase] for phrase in phrases]


@dataclass(frozen=True)
class FakeReference:
    """Examples: the number of each one's picture and its mask."""

    label: str
    shots: tuple[tuple[int, np.ndarray], ...]


@dataclass
class FakePipeline:
    """Finds the dog in two halves, and takes it for the cat; no car, and a bus without gate only.

    A box gives the whole box.
    An example is found where the first picture's number is lower, as its own mask.
    """

    segmenter: FakeSegmenter = field(default_factory=FakeSegmenter)
    text_prompter: FakePrompter | None = field(default_factory=FakePrompter)
    reference_prompter: object = "answers below"
    config: str = "ranking"
    encoded_references: list[str] = field(default_factory=list)
    clicked: list[tuple[int, int, int]] = field(default_factory=list)

    known: dict[str, list[np.ndarray]] = field(
        default_factory=lambda: {"dog": [LEFT, block(15, 5, 20, 15)], "cat": [DOG]}
    )

    def encode_reference(self, reference: Any) -> Any:
        self.encoded_references.append(reference.label)
        number = int(reference.image[0, 0, 0]) // 20
        return FakeReference(reference.label, ((number, reference.mask),))

    def __call__(
        self,
        image: Any,
        *,
        text: Sequence[str] = (),
        reference: Sequence[Any] = (),
        points: Sequence[tuple[int, int]] = (),
        point_labels: Sequence[int] = (),
        min_presence: float | None = None,
        boxes: Sequence[tuple[int, int, int, int]] = (),
    ) -> Result:
        if boxes:
            return result_of([block(*box) for box in boxes], ["box"] * len(boxes), 0.5)
        if points:
            assert len(points) == len(point_labels)
            self.clicked.append((*points[-1], point_labels[-1]))
            return result_of([BEST[len(points) - 1], NOTHING], ["", ""])
        if text:
            known = self.known if min_presence is None else {**self.known, "bus": [CORNER]}
            named = [(phrase, mask) for phrase in text for mask in known.get(phrase, [])]
            return result_of([mask for _, mask in named], [phrase for phrase, _ in named])
        number = self.segmenter.encode_image(image)
        found = [(mask, item.label) for item in reference for at, mask in item.shots if at < number]
        return result_of([mask for mask, _ in found], [label for _, label in found])

    def everything(self, image: np.ndarray) -> Result:
        self.segmenter.encode_image(image)
        return result_of([block(0, 0, 40, 5), LEFT, TOO_MUCH], ["", "", ""])


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """Four pictures with their masks."""
    return write_folder(tmp_path / "data")


@pytest.fixture
def collection(data_folder: Path):
    """The four pictures."""
    return read_index_collection(data_folder, "dev")


@pytest.fixture
def fakes() -> SimpleNamespace:
    """What the made-up pictures hold, and the classes of the pipeline that knows them."""
    return SimpleNamespace(
        Pipeline=FakePipeline,
        Segmenter=FakeSegmenter,
        Prompter=FakePrompter,
        DOG=DOG,
        CORNER=CORNER,
        LEFT=LEFT,
        TOO_MUCH=TOO_MUCH,
        block=block,
    )


@pytest.fixture
def pipe() -> FakePipeline:
    """A pipeline whose answers are known."""
    return FakePipeline()
