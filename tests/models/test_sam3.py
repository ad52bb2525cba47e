"""SAM 3's detector against transformers' own way from a picture and a phrase to boxes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from promptseg.models.errors import InputError
from promptseg.models.grounding.sam3 import Sam3Grounder, create_sam3_grounder

from .detector_answers import IMAGES, assert_equal_to_all


@pytest.fixture(scope="module")
def folder(detector_folders: dict[str, Path]) -> Path:
    return detector_folders["sam3"]


@pytest.fixture(scope="module")
def detector(folder: Path) -> Sam3Grounder:
    return create_sam3_grounder(folder)


@pytest.mark.parametrize(
    ("shape", "phrase"),
    [("wide", "cat"), ("high", "traffic light"), ("square", "The red dog on the bike")],
)
def test_equals_transformers(detector: Sam3Grounder, folder: Path, shape: str, phrase: str) -> None:
    image = IMAGES[shape]
    model = transformers.Sam3Model.from_pretrained(folder).eval()
    processor = transformers.Sam3Processor.from_pretrained(folder)
    inputs = processor(images=Image.fromarray(image), text=phrase, return_tensors="pt")
    with torch.no_grad():
        outputs = model(
            pixel_values=inputs["pixel_values"],
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
        )
    (expected,) = processor.post_process_object_detection(
        outputs, threshold=0, target_sizes=[image.shape[:2]]
    )
    (found,) = detector.ground([phrase], detector.look(image))
    assert len(expected["scores"].unique()) > 5
    assert_equal_to_all(found, expected["boxes"], expected["scores"], image)


def test_the_layout_of_the_published_folder_is_read(
    detector: Sam3Grounder, folder: Path, tmp_path: Path
) -> None:
    """It holds the video model: this one and a tracker."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    own = json.loads((folder / "config.json").read_text())
    video = {"model_type": "sam3_video", "detector_config": own}
    (tmp_path / "config.json").write_text(json.dumps(video))
    weights = load_file(folder / "model.safetensors")
    renamed = {f"detector_model.{name}": tensor for name, tensor in weights.items()}
    renamed["tracker_model.memory.weight"] = torch.zeros(3)
    renamed["tracker_neck.weight"] = torch.zeros(3)
    save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    image = IMAGES["wide"]
    other = create_sam3_grounder(tmp_path)
    (expected,) = detector.ground(["cat"], detector.look(image))
    (found,) = other.ground(["cat"], other.look(image))
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize("phrase", ["", " ", "\n"])
def test_an_empty_phrase_is_refused(detector: Sam3Grounder, phrase: str) -> None:
    view = detector.look(IMAGES["wide"])
    with pytest.raises(InputError, match="has no word that the model knows"):
        detector.ground(["cat", phrase], view)


def test_a_long_phrase_is_refused(detector: Sam3Grounder) -> None:
    view = detector.look(IMAGES["wide"])
    detector.ground([" ".join(["cat"] * 30)], view)
    with pytest.raises(InputError, match="has 33 tokens and the model reads 32; shorten it"):
        detector.ground([" ".join(["cat"] * 31)], view)
