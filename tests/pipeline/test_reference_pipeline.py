"""References end to end: features are colours, and the segmenter does as the prompts say."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from promptseg.models.backbones.efficientnet_lite import EfficientNetLite2
from promptseg.models.errors import InputError
from promptseg.models.features.dense import DenseFeatures
from promptseg.models.features.pocket import PocketFeatures
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.prompters.matching.prototype import PrototypeConfig, PrototypeStrategy
from promptseg.pipeline.prompters.reference import ReferencePrompter
from promptseg.pipeline.reference import Reference
from promptseg.pipeline.types import Result

SIZE = (96, 96)
RED, BLUE, GREY = (220, 40, 40), (40, 40, 220), (128, 120, 128)
LEFT, RIGHT = (8, 16, 40, 72), (56, 16, 88, 72)


@dataclass
class Colours:
    """Features: the mean colour of 8 x 8 pixels, as deviation from grey."""

    model_id: str = "colours"
    seen: list[np.ndarray] = field(default_factory=list)

    def extract(self, image: np.ndarray) -> DenseFeatures:
        self.seen.append(image)
        height, width = image.shape[0] // 8, image.shape[1] // 8
        mean = image[: 8 * height, : 8 * width].reshape(height, 8, width, 8, 3).mean((1, 3))
        tokens = torch.tensor(mean - 127.5, dtype=torch.float32)
        size = (image.shape[0], image.shape[1])
        return DenseFeatures(tokens, size, size, (8.0, 8.0), self.model_id)


def picture(*things: tuple[tuple[int, int, int], tuple[int, int, int, int]]) -> np.ndarray:
    image = np.full((*SIZE, 3), GREY, np.uint8)
    for colour, (x0, y0, x1, y1) in things:
        image[y0:y1, x0:x1] = colour
    return image


def pixels(box: tuple[int, int, int, int]) -> np.ndarray:
    return picture(((255, 255, 255), box))[..., 0] == 255


def iou(mask: np.ndarray, other: np.ndarray) -> float:
    return (mask & other).sum() / (mask | other).sum()


def assert_found(result: Result, *expected: tuple[str, tuple[int, int, int, int]]) -> None:
    assert result.labels == [label for label, _ in expected]
    for mask, (_, box) in zip(result.masks, expected, strict=True):
        assert iou(mask, pixels(box)) > 0.8


@pytest.fixture
def colours() -> Colours:
    return Colours()


STRATEGY = PrototypeStrategy(
    PrototypeConfig(level=0.0, level_fall=0.0, presence_level=0.7, presence_gain=20)
)


@pytest.fixture
def pipeline(obedient_segmenter, colours, make_grounder) -> Pipeline:
    heat = np.zeros((24, 24), np.float32)
    heat[4:18, 14:22] = 0.9  # RIGHT
    return Pipeline(
        obedient_segmenter,
        text_prompter=make_grounder({"right": heat}).prompter(obedient_segmenter),
        reference_prompter=ReferencePrompter(colours, obedient_segmenter, STRATEGY),
    )


SHOWN = picture((RED, (32, 32, 64, 64)), (BLUE, (72, 72, 96, 96)))
RED_ONE = Reference(SHOWN, pixels((32, 32, 64, 64)))
BLUE_ONE = Reference(SHOWN, pixels((72, 72, 96, 96)), label="blue")


def test_what_is_shown_is_found(pipeline, colours) -> None:
    result = pipeline(picture((RED, LEFT), (BLUE, RIGHT)), reference=RED_ONE)
    assert_found(result, ("reference", LEFT))
    assert result.image_size == SIZE
    assert len(colours.seen) == 2


def test_all_instances_are_found(pipeline) -> None:
    result = pipeline(picture((RED, LEFT), (RED, RIGHT)), reference=RED_ONE)
    assert sorted(result.boxes_xyxy[:, 0] < 48) == [False, True]
    assert len(pipeline(picture((RED, LEFT), (RED, RIGHT)), reference=RED_ONE, top_k=1)) == 1


def test_what_is_not_there_gives_an_empty_result_with_the_reason(pipeline) -> None:
    result = pipeline(picture((BLUE, RIGHT)), reference=RED_ONE)
    assert len(result) == 0
    assert result.masks.shape == (0, *SIZE)
    (dropped,) = result.rejected
    assert dropped.label == "reference"
    assert dropped.reason.startswith("presence 0.")
    # And in a picture of nothing at all.
    assert len(pipeline(picture(), reference=RED_ONE)) == 0


def test_labels_are_apart_and_examples_of_one_label_together(pipeline, colours) -> None:
    target = picture((RED, LEFT), (BLUE, RIGHT))
    result = pipeline(target, reference=[RED_ONE, BLUE_ONE])
    assert dict(zip(result.labels, result.boxes_xyxy[:, 0] < 48, strict=True)) == {
        "reference": True,
        "blue": False,
    }
    assert len(colours.seen) == 3  # the target once for both
    both = [RED_ONE, Reference(SHOWN, BLUE_ONE.mask)]
    result = pipeline(target, reference=both)
    assert result.labels == ["reference"] * 2


def test_a_reference_is_encoded_once_for_many_images(pipeline, colours) -> None:
    encoded = pipeline.encode_reference([RED_ONE, Reference(SHOWN[:, ::-1], RED_ONE.mask[:, ::-1])])
    assert encoded.label == "reference"
    assert len(encoded.shots) == len(colours.seen) == 2
    for box in (LEFT, RIGHT):
        assert_found(pipeline(picture((RED, box)), reference=encoded), ("reference", box))
    assert len(colours.seen) == 4
    again = pipeline.encode_reference([encoded, RED_ONE])
    assert len(again.shots) == 3
    with pytest.raises(InputError, match="of one label at a time, got 'reference', 'blue'"):
        pipeline.encode_reference([RED_ONE, BLUE_ONE])


@pytest.mark.parametrize("mark", [{"box": (32, 32, 63, 63)}, {"point": (48, 48)}], ids=str)
def test_a_mark_becomes_a_mask(pipeline, obedient_segmenter, mark) -> None:
    shown = picture((RED, (32, 32, 64, 64)))
    encoded = pipeline.encode_reference(Reference(shown, **mark))
    embedding = obedient_segmenter.encode_image(shown)
    if "box" in mark:
        masks = obedient_segmenter.decode(
            embedding, boxes=[mark["box"]], multimask_output=False
        ).masks
    else:
        masks = obedient_segmenter.decode(
            embedding, point_coords=[[mark["point"]]], point_labels=[[1]]
        ).masks
    expected = masks[0, 0].reshape(12, 8, 12, 8).mean((1, 3))  # the one of highest predicted IoU
    np.testing.assert_allclose(encoded.shots[0].coverage, expected, atol=1e-6)
    result = pipeline(picture((RED, LEFT)), reference=encoded)
    assert_found(result, ("reference", LEFT))


def test_a_mark_without_an_object_is_refused(pipeline, obedient_segmenter, monkeypatch) -> None:
    whole = Reference(SHOWN, box=(0, 0, 96, 96))
    with pytest.raises(InputError, match=r"box gives no usable mask: .* covers the whole image"):
        pipeline.encode_reference(whole)
    sam = obedient_segmenter.model
    monkeypatch.setattr(sam, "mask_threshold", 100.0, raising=False)
    with pytest.raises(InputError, match=r"point gives no usable mask: .* is empty.*; or give a"):
        pipeline(SHOWN, reference=Reference(SHOWN, point=(48, 48)))


def test_points_boxes_and_negatives_choose(pipeline) -> None:
    target = picture((RED, LEFT), (RED, RIGHT))
    assert_found(pipeline(target, reference=RED_ONE, points=[(20, 40)]), ("reference", LEFT))
    assert_found(pipeline(target, reference=RED_ONE, boxes=[(48, 0, 96, 96)]), ("reference", RIGHT))
    result = pipeline(target, reference=RED_ONE, negative_text="right")
    assert_found(result, ("reference", LEFT))
    assert "the negative 'right'" in result.rejected[0].reason


def test_sizes_may_differ(pipeline) -> None:
    target = np.full((40, 130, 3), GREY, np.uint8)
    target[8:32, 80:112] = RED
    result = pipeline(target, reference=RED_ONE)
    assert result.masks.shape == (1, 40, 130)
    expected = np.zeros((40, 130), bool)
    expected[8:32, 80:112] = True
    assert iou(result.masks[0], expected) > 0.7


def test_what_makes_no_sense_is_refused(pipeline, obedient_segmenter) -> None:
    with pytest.raises(InputError, match="text and references are not combined yet"):
        pipeline(SHOWN, text="right", reference=RED_ONE)
    with pytest.raises(InputError, match="empty list"):
        pipeline(SHOWN, reference=[])
    plain = Pipeline(obedient_segmenter)
    with pytest.raises(InputError, match="no reference prompter"):
        plain(SHOWN, reference=RED_ONE)
    other = Pipeline(
        obedient_segmenter,
        reference_prompter=ReferencePrompter(Colours("others"), obedient_segmenter, STRATEGY),
    )
    with pytest.raises(InputError, match=r"encoded by 'colours', .* of 'others'; encode it with"):
        other(SHOWN, reference=pipeline.encode_reference(RED_ONE))


def test_the_encoders_own_features_are_not_computed_again(tiny_segmenter, monkeypatch) -> None:
    backbone = tiny_segmenter.model.image_encoder.backbone
    extractor = PocketFeatures(backbone, input_size=tiny_segmenter.model.image_size)
    prompter = ReferencePrompter(extractor, tiny_segmenter, STRATEGY)
    image = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    expected = extractor.extract(image)
    passes = []
    forward = EfficientNetLite2.forward
    monkeypatch.setattr(
        EfficientNetLite2, "forward", lambda self, x: passes.append(x) or forward(self, x)
    )
    embedding = tiny_segmenter.encode_image(image)
    found = prompter.features_of(embedding)
    assert len(passes) == 1
    torch.testing.assert_close(found.tokens, expected.tokens)
    assert found.cell_size == expected.cell_size
    mask = np.zeros((60, 90), bool)
    mask[5:30, 5:40] = True
    (encoded,) = prompter.encode([Reference(image, mask)])
    assert len(passes) == 2
    torch.testing.assert_close(encoded.shots[0].features.tokens, expected.tokens)
    object.__setattr__(embedding, "image", None)
    with pytest.raises(ValueError, match="keeps its image"):
        ReferencePrompter(Colours(), tiny_segmenter, STRATEGY).features_of(embedding)
