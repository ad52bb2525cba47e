"""The model for FiftyOne, with FiftyOne's own labels; no database is started."""

from __future__ import annotations

import re
from pathlib import Path

import fiftyone
import fiftyone.core.labels as fol
import fiftyone.core.models as fom
import numpy as np
import pytest
from PIL import Image

import promptseg
from promptseg.apps import fiftyone as own
from promptseg.apps.fiftyone import Model, detections
from promptseg.models.errors import InputError

EXAMPLES = Path(__file__).resolve().parents[2] / "apps" / "web" / "examples"


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    with Image.open(EXAMPLES / "cat.jpg") as image:
        return np.asarray(image.convert("RGB"))


def on_image(detection: fol.Detection, size: tuple[int, int]) -> np.ndarray:
    """The detection's mask on its image, as FiftyOne itself places it."""
    segmentation = detection.to_segmentation(frame_size=size[::-1], target=1)
    return np.asarray(segmentation.mask) > 0


def test_masks_are_those_of_python(pipe: promptseg.Pipeline, cat: np.ndarray) -> None:
    model = Model(["cat", "unicorn"], pipeline=pipe)
    assert isinstance(model, fom.Model)
    found = model.predict(cat)
    expected = pipe(cat, ["cat", "unicorn"])
    assert isinstance(found, fol.Detections)
    assert [item.label for item in found.detections] == expected.labels == ["cat"]
    (item,) = found.detections
    assert np.array_equal(on_image(item, cat.shape[:2]), expected.masks[0])
    assert item.confidence == pytest.approx(float(expected.scores[0]))


def test_nothing_here_thresholds_and_negatives(pipe: promptseg.Pipeline, cat: np.ndarray) -> None:
    score = float(pipe(cat, "cat").scores[0])
    for options, count in (
        ({"min_score": score + 0.01}, 0),
        ({"top_k": 1}, 1),
        ({"negative": "cat"}, 0),
    ):
        assert len(Model("cat", pipeline=pipe, **options).predict(cat).detections) == count
    assert Model("unicorn", pipeline=pipe).predict(cat).detections == []
    assert Model("dog", pipeline=pipe, min_presence=0).predict(cat).detections != []


def test_a_batch_is_its_images(pipe: promptseg.Pipeline, cat: np.ndarray) -> None:
    model = Model("cat", pipeline=pipe)
    batch = model.predict_all([cat, np.zeros((40, 60, 3), np.uint8)])
    assert [len(item.detections) for item in batch] == [1, 0]
    assert batch[0].detections[0].bounding_box == model.predict(cat).detections[0].bounding_box


def test_a_mask_lies_within_its_box() -> None:
    masks = np.zeros((2, 20, 30), np.bool_)
    masks[0, 4:9, 10:25] = True
    masks[0, 5, 12] = False
    result = promptseg.Result.of(masks, ["it", "none"], [0.9, 0.1], [1, 1], [1, 1], [1, 1])
    (item,) = detections(result)
    assert item.bounding_box == pytest.approx([10 / 30, 4 / 20, 15 / 30, 5 / 20])
    assert np.array_equal(item.mask, masks[0, 4:9, 10:25])
    assert np.array_equal(on_image(item, (20, 30)), masks[0])


def test_every_place_is_found_again() -> None:
    for size in ((7, 49), (300, 451), (683, 1024)):
        for x0, x1 in ((0, 1), (3, 7), (1, 5), (6, 7)):
            masks = np.zeros((1, *size), np.bool_)
            masks[0, x0:x1, x0 * 5 : x1 * 7] = True
            result = promptseg.Result.of(masks, ["it"], [0.9], [1], [1], [1])
            (item,) = detections(result)
            assert np.array_equal(on_image(item, size), masks[0])


def test_the_interface_is_fiftyones(pipe: promptseg.Pipeline) -> None:
    model = Model("cat", pipeline=pipe)
    assert (model.media_type, model.ragged_batches, model.transforms) == ("image", False, None)
    model.preprocess = True
    assert model.preprocess is True
    assert not model.has_embeddings
    with model as entered:
        assert entered is model


def test_the_page_runs(
    pipe: promptseg.Pipeline, cat: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/fiftyone.md, with a dataset that needs no database."""
    page = (EXAMPLES.parents[2] / "docs" / "fiftyone.md").read_text(encoding="utf-8")
    fields: dict[str, fol.Detections] = {}

    class Dataset:
        def apply_model(self, model: fom.Model, label_field: str) -> None:
            fields[label_field] = model.predict(cat)

    monkeypatch.setattr(fiftyone, "load_dataset", lambda name: Dataset())
    monkeypatch.setattr(own, "load", lambda preset, **options: pipe)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(cat).save("photo.jpg")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "fiftyone.md", "exec"), names)
    for found in (fields["promptseg"], names["found"]):
        assert [item.label for item in found.detections] == ["cat"]


def test_what_cannot_be_asked_is_told() -> None:
    with pytest.raises(InputError, match="say what to look for"):
        Model([])
    with pytest.raises(InputError, match="min_presence"):
        Model("cat", min_presence=3)
