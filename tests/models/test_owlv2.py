"""OWLv2 against transformers' own way from a picture and phrases to boxes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from promptseg.models.errors import InputError
from promptseg.models.grounding.owlv2 import Owlv2, create_owlv2

from .detector_answers import IMAGES, assert_equal_to_all


@pytest.fixture(scope="module")
def folder(detector_folders: dict[str, Path]) -> Path:
    return detector_folders["owlv2"]


@pytest.fixture(scope="module")
def detector(folder: Path) -> Owlv2:
    return create_owlv2(folder)


@pytest.mark.parametrize(
    ("shape", "phrase"),
    [("wide", "cat"), ("high", "traffic light"), ("square", "The red dog on the bike")],
)
def test_equals_transformers(detector: Owlv2, folder: Path, shape: str, phrase: str) -> None:
    image = IMAGES[shape]
    model = transformers.Owlv2ForObjectDetection.from_pretrained(folder).eval()
    processor = transformers.Owlv2Processor.from_pretrained(folder)
    inputs = processor(images=Image.fromarray(image), text=[[phrase]], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    (expected,) = processor.post_process_grounded_object_detection(
        outputs, threshold=0, target_sizes=torch.tensor([image.shape[:2]])
    )
    (found,) = detector.ground([phrase], detector.look(image))
    assert len(expected["scores"].unique()) > 10
    assert_equal_to_all(found, expected["boxes"], expected["scores"], image)


def test_boxes_in_the_padding_are_not_of_the_picture(detector: Owlv2) -> None:
    high, square = IMAGES["high"], IMAGES["square"]
    view = detector.look(high)
    assert view.boxes_xyxy[:, 2].max() > high.shape[1]
    assert detector.look(square).boxes_xyxy.shape == view.boxes_xyxy.shape == (16, 4)
    (found,) = detector.ground(["cat"], view)
    assert found.boxes_xyxy[:, 2].max() <= high.shape[1]
    assert 0 < len(found.scores) < 16


@pytest.mark.parametrize("phrase", ["", " ", "\n"])
def test_an_empty_phrase_is_refused(detector: Owlv2, phrase: str) -> None:
    view = detector.look(IMAGES["wide"])
    with pytest.raises(InputError, match="has no word that the model knows"):
        detector.ground(["cat", phrase], view)


def test_a_long_phrase_is_refused(detector: Owlv2) -> None:
    view = detector.look(IMAGES["wide"])
    detector.ground([" ".join(["cat"] * 14)], view)
    with pytest.raises(InputError, match="has 17 tokens and the model reads 16; shorten it"):
        detector.ground([" ".join(["cat"] * 15)], view)
