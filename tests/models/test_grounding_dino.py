"""Grounding DINO against transformers' own way from a picture and a caption to boxes."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from promptseg.models.errors import InputError
from promptseg.models.grounding.grounding_dino import GroundingDino, create_grounding_dino

from .detector_answers import IMAGES, assert_equal_to_all

SPECIAL = [101, 102, 1012]


@pytest.fixture(scope="module")
def folder(detector_folders: dict[str, Path]) -> Path:
    return detector_folders["grounding-dino"]


@pytest.fixture(scope="module")
def detector(folder: Path) -> GroundingDino:
    return create_grounding_dino(folder)


def replace_positions(model: transformers.PreTrainedModel, positions: list[list[int]]) -> None:
    """Fix the positions (B, L) of captions' tokens; versions of transformers differ."""
    fixed = torch.tensor(positions)
    model.model.text_backbone.register_forward_pre_hook(
        lambda _, inputs: (*inputs[:3], fixed, *inputs[4:]), prepend=True
    )
    model.model.encoder.register_forward_pre_hook(
        lambda _, inputs, named: (inputs, {**named, "text_position_ids": fixed}),
        prepend=True,
        with_kwargs=True,
    )


@pytest.mark.parametrize(
    ("shape", "phrase"),
    [("wide", "cat"), ("high", "traffic light"), ("square", "The red dog on the bike")],
)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_equals_transformers(folder: Path, shape: str, phrase: str, dtype: str) -> None:
    image = IMAGES[shape]
    model = transformers.GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = transformers.GroundingDinoProcessor.from_pretrained(folder)
    inputs = processor(images=Image.fromarray(image), text=[[phrase]], return_tensors="pt")
    count = inputs["input_ids"].shape[1]
    replace_positions(model, [[0, *range(count - 2), 0]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        outputs = model(**inputs)
    (expected,) = processor.post_process_grounded_object_detection(
        outputs, threshold=0, target_sizes=[image.shape[:2]]
    )
    ids = inputs["input_ids"][0]
    own = torch.isin(ids, torch.tensor(SPECIAL), invert=True).nonzero()[:, 0]
    scores = outputs.logits[0][:, own].float().sigmoid().max(1).values
    detector = create_grounding_dino(folder, dtype=dtype)
    (found,) = detector.ground([phrase], detector.look(image))
    assert len(own) == len(phrase.split())
    assert len(scores.unique()) > 10
    assert_equal_to_all(found, expected["boxes"], scores, image)


def test_the_caption_is_lower_case_with_one_period(detector: GroundingDino) -> None:
    view = detector.look(IMAGES["wide"])
    asked = ["st bike", " St. Bike. ", "ST  BIKE", "st?bike.", "St.\nBike..."]
    first, *others = detector.ground(asked, view)
    assert [found.phrase for found in [first, *others]] == asked
    for other in others:
        np.testing.assert_allclose(other.boxes_xyxy, first.boxes_xyxy, atol=1e-3)
        np.testing.assert_allclose(other.scores, first.scores, atol=1e-5)


def test_the_text_model_reads_captions_as_in_training(folder: Path) -> None:
    """A worked example: a phrase and its period are one block that counts its own positions."""
    detector = create_grounding_dino(folder)
    replace_positions(detector.model, [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])  # as transformers 5.0
    read: list[tuple[torch.Tensor, torch.Tensor]] = []
    detector.model.model.text_backbone.register_forward_pre_hook(
        lambda _, inputs: read.append((inputs[1], inputs[3]))
    )
    fused: list[torch.Tensor] = []
    detector.model.model.encoder.register_forward_pre_hook(
        lambda _, inputs, named: fused.append(named["text_position_ids"]), with_kwargs=True
    )
    detector.ground(["traffic light", "cat"], detector.look(IMAGES["wide"]))
    ((mask, positions),) = read
    assert torch.equal(fused[0], positions)
    # [CLS] traffic light . [SEP], and [CLS] cat . [SEP] [PAD]
    assert positions.tolist() == [[0, 0, 1, 2, 0], [0, 0, 1, 0, 0]]
    expected = torch.eye(5, dtype=torch.bool).repeat(2, 1, 1)
    expected[0, 1:4, 1:4] = True
    expected[1, 1:3, 1:3] = True
    assert torch.equal(mask.reshape(2, 5, 5).bool(), expected)


@pytest.mark.parametrize("phrase", ["", " ", ".", "?!", "Ωmega", "猫", "zebra giraffe"])
def test_unknown_words_alone_are_refused(detector: GroundingDino, phrase: str) -> None:
    view = detector.look(IMAGES["wide"])
    with pytest.raises(InputError, match="has no word that the model knows; name the object in"):
        detector.ground(["cat", phrase], view)


def test_an_unknown_word_beside_a_known_one_is_read(detector: GroundingDino) -> None:
    (found,) = detector.ground(["zebra cat"], detector.look(IMAGES["wide"]))
    assert found.presence > 0


def test_a_long_phrase_is_refused(detector: GroundingDino) -> None:
    view = detector.look(IMAGES["wide"])
    detector.ground([" ".join(["cat"] * 13)], view)
    with pytest.raises(InputError, match="has 17 tokens and the model reads 16; shorten it"):
        detector.ground([" ".join(["cat"] * 14)], view)


def test_threads_do_not_see_each_others_pictures(detector: GroundingDino) -> None:
    mine, others = detector.look(IMAGES["wide"]), detector.look(IMAGES["high"])
    (alone,) = detector.ground(["cat"], others)
    answers = []
    with detector.backbone.remember(mine.features):
        thread = threading.Thread(
            target=lambda: answers.append(detector.ground(["cat"], detector.look(IMAGES["high"])))
        )
        thread.start()
        thread.join()
    np.testing.assert_allclose(answers[0][0].boxes_xyxy, alone.boxes_xyxy, atol=1e-3)


def test_the_layout_of_the_published_weights_is_read(
    detector: GroundingDino, folder: Path, tmp_path: Path
) -> None:
    """They have the indices of Swin's windows, and no norm after its last stage."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    norm = [name for name in weights if "swin.layernorm" in name]
    tables = [name for name in weights if name.endswith("self.relative_position_bias_table")]
    assert (len(norm), len(tables)) == (2, 4)
    for name in norm:
        del weights[name]
    for name in tables:
        index = name.replace("bias_table", "index")
        weights[index] = torch.zeros(9, 9, dtype=torch.int64)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    image = IMAGES["wide"]
    other = create_grounding_dino(tmp_path)
    (expected,) = detector.ground(["cat"], detector.look(image))
    (found,) = other.ground(["cat"], other.look(image))
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
