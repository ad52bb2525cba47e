"""What all detectors have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils import logging

from promptseg.models.errors import InputError
from promptseg.models.grounding.answers import MIN_SCORE
from promptseg.models.grounding.grounding_dino import create_grounding_dino
from promptseg.models.grounding.owlv2 import create_owlv2
from promptseg.models.grounding.sam3 import create_sam3_grounder

from .detector_answers import IMAGES

CREATE: dict[str, Callable[..., Any]] = {
    "grounding-dino": create_grounding_dino,
    "owlv2": create_owlv2,
    "sam3": create_sam3_grounder,
}
# What sees the picture.
TOWER = {
    "grounding-dino": lambda model: model.model.backbone.conv_encoder.backbone,
    "owlv2": lambda model: model.owlv2.vision_model,
    "sam3": lambda model: model.vision_encoder,
}
PHRASES = ["traffic light", "light", "cat", "a red dog on the bike", "traffic", "man", "cat"]


@pytest.fixture(scope="module", params=CREATE)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, detector_folders: dict[str, Path]) -> Path:
    return detector_folders[name]


@pytest.fixture(scope="module")
def detector(name: str, folder: Path) -> Any:
    return CREATE[name](folder)


def test_a_batch_equals_one_by_one(name: str, folder: Path) -> None:
    sizes = [{"batch_size": size} for size in (3, 20)] if name != "sam3" else [{}]
    for options in sizes:
        detector = CREATE[name](folder, **options)
        view = detector.look(IMAGES["wide"])
        together = detector.ground(PHRASES, view)
        assert [found.phrase for found in together] == PHRASES
        assert len({round(found.presence, 5) for found in together}) == len(set(PHRASES))
        for phrase, found in zip(PHRASES, together, strict=True):
            (alone,) = detector.ground([phrase], view)
            side = max(IMAGES["wide"].shape)
            np.testing.assert_allclose(found.scores, alone.scores, rtol=0, atol=1e-5)
            np.testing.assert_allclose(
                found.boxes_xyxy / side, alone.boxes_xyxy / side, rtol=0, atol=1e-5
            )
            assert found.presence == pytest.approx(alone.presence, abs=1e-5)


def test_the_picture_is_seen_once(name: str, detector: Any) -> None:
    seen: list[int] = []
    counting = TOWER[name](detector.model).register_forward_hook(lambda *_: seen.append(1))
    views = [detector.look(IMAGES["wide"]), detector.look(IMAGES["high"])]
    assert len(seen) == 2
    first = [detector.ground(PHRASES, view) for view in views]
    again = [detector.ground(PHRASES, view) for view in views]
    counting.remove()
    assert len(seen) == 2
    for found, same in zip([*first[0], *first[1]], [*again[0], *again[1]], strict=True):
        assert found.presence == pytest.approx(same.presence, abs=1e-5)
        np.testing.assert_allclose(found.boxes_xyxy, same.boxes_xyxy, atol=1e-3)
    assert abs(first[0][0].presence - first[1][0].presence) > 1e-4


def test_memory_is_bounded_by_the_batch(folder: Path, name: str) -> None:
    if "batch_size" in inspect.signature(CREATE[name]).parameters:
        detector, largest = CREATE[name](folder, batch_size=2), 2
    else:
        detector, largest = CREATE[name](folder), 1
    text = {
        "grounding-dino": lambda model: model.model.text_backbone,
        "owlv2": lambda model: model.owlv2.text_model,
        "sam3": lambda model: model.text_encoder,
    }[name](detector.model)
    sizes: list[int] = []
    text.register_forward_hook(lambda *args: sizes.append(len(args[-1][0])))
    detector.ground(["cat"] * 7, detector.look(IMAGES["wide"]))
    assert sum(sizes) == 7
    assert max(sizes) == largest


def test_no_phrases_no_detections(detector: Any) -> None:
    assert detector.ground([], detector.look(IMAGES["wide"])) == []


def test_no_detection_has_the_right_shapes(detector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptseg.models.grounding.answers.MIN_SCORE", 1.1)
    (found,) = detector.ground(["cat"], detector.look(IMAGES["wide"]))
    assert found.boxes_xyxy.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert found.boxes_xyxy.dtype == found.scores.dtype == np.float32
    assert MIN_SCORE < found.presence <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, "fp16"])
def test_half_precision_comes_near(
    name: str, folder: Path, detector: Any, dtype: str | torch.dtype
) -> None:
    half = CREATE[name](folder, dtype=dtype)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}
    (expected,) = detector.ground(["traffic light"], detector.look(IMAGES["wide"]))
    (found,) = half.ground(["traffic light"], half.look(IMAGES["wide"]))
    assert found.boxes_xyxy.dtype == found.scores.dtype == np.float32
    assert found.presence == pytest.approx(expected.presence, abs=0.02)
    assert found.presence != expected.presence
    np.testing.assert_allclose(found.boxes_xyxy[0], expected.boxes_xyxy[0], atol=0.5)


def test_nothing_global_changes(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def state() -> list[object]:
        return [
            torch.get_default_dtype(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_num_threads(),
            torch.get_rng_state().tolist(),
            logging.get_verbosity(),
            logging.is_progress_bar_enabled(),
        ]

    monkeypatch.setattr(logging, "_tqdm_active", True)
    monkeypatch.setattr(logging._get_library_root_logger(), "level", logging.INFO)
    before = state()
    assert before[-2:] == [logging.INFO, True]
    detector = CREATE[name](folder, dtype="bf16")
    assert state() == before
    detector.ground(["cat"], detector.look(IMAGES["wide"]))
    assert state() == before


def test_small_and_odd_pictures(detector: Any) -> None:
    for size in [(3, 5), (1, 3), (90, 30), (1, 1)]:
        image = np.full((*size, 3), 7, np.uint8)
        image.flags.writeable = False
        (found,) = detector.ground(["cat"], detector.look(image))
        assert (found.boxes_xyxy >= 0).all()
        assert (found.boxes_xyxy <= [size[1], size[0], size[1], size[0]]).all()


def test_a_view_of_part_of_an_array_is_seen(detector: Any) -> None:
    part = IMAGES["square"][::-1, 4:-4, ::-1]
    (found,) = detector.ground(["cat"], detector.look(part))
    (expected,) = detector.ground(["cat"], detector.look(np.ascontiguousarray(part)))
    np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1e-3)


def test_bad_settings_are_refused(name: str, folder: Path) -> None:
    with pytest.raises(InputError, match="no dtype 'int8' to run in; use auto, fp32, bf16 or fp16"):
        CREATE[name](folder, dtype="int8")
    if "batch_size" in inspect.signature(CREATE[name]).parameters:
        with pytest.raises(InputError, match="batch_size must be 1 or more, got 0"):
            CREATE[name](folder, batch_size=0)
