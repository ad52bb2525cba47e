"""References end to end: features are colours, and the segmenter does as the prompts say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from promptseg.models.embedding import ImageEmbedding
from promptseg.models.errors import InputError
from promptseg.models.features.dense import DenseFeatures
from promptseg.models.pocket.backbone import EfficientNetLite2
from promptseg.models.pocket.features import PocketFeatures
from promptseg.pipeline.images import load_mask
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.presets.load import load
from promptseg.pipeline.prompters.reference.concepts import load_concept, save_concept
from promptseg.pipeline.prompters.reference.examples import Reference
from promptseg.pipeline.prompters.reference.prompter import (
    ReferenceConfig,
    ReferencePrompter,
    context_box,
    same_picture,
)
from promptseg.pipeline.prompters.reference.prototype import PrototypeConfig, PrototypeStrategy
from promptseg.pipeline.result import Result

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

    def extract_encoded(self, embedding: ImageEmbedding) -> DenseFeatures:
        return self.extract(embedding.pixels())


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
        assert iou(mask, pixels(box)) > 0.75


@pytest.fixture
def colours() -> Colours:
    return Colours()


STRATEGY = PrototypeStrategy(
    PrototypeConfig(level=0.0, level_fall=0.0, presence_level=0.6, presence_gain=20)
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
    assert len(colours.seen) == 4  # the target once for both, and the blue one from nearer by
    both = [RED_ONE, Reference(SHOWN, BLUE_ONE.mask)]
    result = pipeline(target, reference=both)
    assert result.labels == ["reference"] * 2


def test_one_query_sees_the_picture_once(pipeline, colours) -> None:
    encoded = [pipeline.encode_reference(one) for one in (RED_ONE, BLUE_ONE)]
    colours.seen.clear()
    target = picture((RED, LEFT), (BLUE, RIGHT))
    pipeline(target, text="right", reference=encoded)
    assert len(colours.seen) == 1
    np.testing.assert_array_equal(colours.seen[0], target)
    pipeline(target, text="right", reference=encoded[0])
    assert len(colours.seen) == 2


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
    # The one of highest predicted IoU.
    np.testing.assert_array_equal(encoded.shots[0].mask.full(), masks[0, 0])
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
    with pytest.raises(InputError, match="with several phrases, label an example"):
        pipeline(SHOWN, text=["right", "left"], reference=RED_ONE)
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
    shallow = EfficientNetLite2.shallow
    monkeypatch.setattr(
        EfficientNetLite2, "shallow", lambda self, x: passes.append(x) or shallow(self, x)
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


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((100, 200), (90, 40, 110, 60), (70, 20, 130, 80)),  # 3 times the box, around it
        ((100, 200), (90, 40, 110, 50), (70, 15, 130, 75)),  # square
        ((100, 200), (0, 0, 20, 20), (0, 0, 60, 60)),  # shifted into the picture
        ((100, 200), (180, 80, 200, 100), (140, 40, 200, 100)),
        ((100, 200), (50, 10, 100, 20), (0, 0, 150, 100)),  # as high as the picture
        ((100, 200), (100, 50, 101, 51), (75, 25, 125, 75)),  # enlarged 4 times at most
    ],
    ids=str,
)
def test_the_part_around_a_small_object(size, box, expected) -> None:
    mask = np.zeros(size, bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    assert context_box(mask, 3.0, 4.0) == expected


def test_a_tiny_object_is_seen_from_nearer_by(pipeline, colours) -> None:
    box = (44, 44, 52, 52)  # four quarters of a cell
    encoded = pipeline.encode_reference(Reference(picture((RED, box)), pixels(box)))
    (shot,) = encoded.shots
    np.testing.assert_array_equal(colours.seen[1], picture((RED, box))[36:60, 36:60])
    assert shot.coverage.shape == (3, 3)
    assert shot.coverage[1, 1] == shot.coverage.sum() == 1
    np.testing.assert_array_equal(shot.mask.full(), pixels(box))
    assert shot.whole is shot.picture
    assert shot.whole.image_size == SIZE
    result = pipeline(picture((RED, LEFT), (BLUE, RIGHT)), reference=encoded)
    assert_found(result, ("reference", LEFT))
    # Its own picture gives back its own mask.
    np.testing.assert_array_equal(
        pipeline(picture((RED, box)), reference=encoded).masks, [pixels(box)]
    )
    # One of 16 cells is large enough.
    (large,) = pipeline.encode_reference(RED_ONE).shots
    assert large.whole is None
    assert large.picture is large.features


@pytest.mark.parametrize("place", [(0, 0), (95, 95), (47, 48)], ids=str)
def test_an_object_of_one_pixel_is_no_reason_to_fail(pipeline, place) -> None:
    mask = np.zeros(SIZE, bool)
    mask[place] = True
    result = pipeline(picture((RED, LEFT)), reference=Reference(SHOWN, mask))
    assert result.masks.shape[1:] == SIZE


def test_configurations_are_checked() -> None:
    for values, says in (
        ({"context": 0.5}, "context must be 1 or more, not 0.5"),
        ({"max_zoom": 0.0}, "max_zoom must be 1 or more"),
        ({"same_picture": 1.5}, "same_picture must be between 0 and 1"),
        ({"overlap": -1.0}, "overlap must be between 0 and 1"),
    ):
        with pytest.raises(InputError, match=says):
            ReferenceConfig(**values)


def test_an_examples_own_picture_gives_back_its_mask_and_what_else_is_like_it(pipeline) -> None:
    image = picture((RED, LEFT), (RED, RIGHT))
    mask = pixels(LEFT)
    mask[20, 10] = False  # no decoder draws this
    result = pipeline(image, reference=Reference(image, mask))
    assert result.labels == ["reference"] * 2
    np.testing.assert_array_equal(result.masks[0], mask)
    assert result.scores[0] == 1
    # Unmarked on the example's picture, the other one speaks against itself.
    assert iou(result.masks[1], pixels(RIGHT)) > 0.6
    assert not (result.masks[1] & pixels(LEFT)).any()
    (dropped,) = result.rejected
    assert dropped.reason == "overlaps the example's own mask (100% of the smaller area)"
    # Two examples on one picture.
    both = [Reference(image, mask), Reference(image, pixels(RIGHT))]
    result = pipeline(image, reference=both)
    assert len(result) == 2
    assert {m.tobytes() for m in result.masks} == {mask.tobytes(), pixels(RIGHT).tobytes()}


def test_a_picture_that_differs_in_a_cell_is_another_picture(pipeline, colours) -> None:
    mask = pixels((32, 32, 64, 64))
    mask[40, 40] = False
    other = SHOWN.copy()
    assert (pipeline(other, reference=Reference(SHOWN, mask)).masks[0] == mask).all()
    other[0:8, 0:8] = BLUE
    assert (pipeline(other, reference=Reference(SHOWN, mask)).masks[0] != mask).any()
    one = colours.extract(SHOWN)
    assert same_picture(one, colours.extract(SHOWN), 0.999)
    assert not same_picture(one, colours.extract(other), 0.9)
    assert not same_picture(one, colours.extract(np.ascontiguousarray(SHOWN[:64])), 0.0)


ORANGE = (220, 110, 40)


def test_what_is_more_like_a_negative_example_is_dropped(pipeline, colours) -> None:
    target = picture((RED, LEFT), (ORANGE, RIGHT))
    assert len(pipeline(target, reference=RED_ONE)) == 2
    shown = picture((ORANGE, (32, 32, 64, 64)))
    orange = Reference(shown, pixels((32, 32, 64, 64)), label="orange")
    seen = len(colours.seen)
    (mask,) = pipeline(target, reference=RED_ONE, negative_reference=orange).masks
    assert iou(mask, pixels(LEFT)) > 0.75
    assert len(colours.seen) == seen + 3  # the target and both examples, once each
    result = pipeline(picture((ORANGE, RIGHT)), reference=RED_ONE, negative_reference=[orange])
    assert len(result) == 0
    assert result.rejected
    # A negative that is not there changes nothing.
    result = pipeline(target, reference=RED_ONE, negative_reference=BLUE_ONE)
    assert len(result) == 2
    # Nor does it add anything to what is found.
    assert set(result.labels) == {"reference"}


def test_the_reason_names_both_likenesses(pipeline, monkeypatch) -> None:
    found = pipeline.reference_prompter.strategy
    monkeypatch.setattr(
        pipeline.reference_prompter,
        "strategy",
        lambda reference, *rest: found(replace(reference, negatives=()), *rest),
    )
    shown = picture((ORANGE, (32, 32, 64, 64)))
    orange = Reference(shown, pixels((32, 32, 64, 64)))
    result = pipeline(
        picture((RED, LEFT), (ORANGE, RIGHT)), reference=RED_ONE, negative_reference=orange
    )
    assert_found(result, ("reference", LEFT))
    (dropped,) = result.rejected
    assert re.fullmatch(
        r"more like a negative example \(1\.00\) than like an example \(0\.\d\d\)", dropped.reason
    )


def test_negative_examples_hold_against_phrases_too(pipeline) -> None:
    target = picture((RED, LEFT), (BLUE, RIGHT))
    assert len(pipeline(target, text="right")) == 1
    result = pipeline(target, text="right", negative_reference=BLUE_ONE)
    assert len(result) == 0
    assert "the negative 'blue'" in result.rejected[0].reason
    assert len(pipeline(target, text="right", negative_reference=RED_ONE)) == 1
    with pytest.raises(InputError, match="negative_reference is an empty list"):
        pipeline(target, text="right", negative_reference=[])
    with pytest.raises(InputError, match="say what to look for"):
        pipeline(target, negative_reference=RED_ONE)


def test_examples_of_mixed_labels_and_regions(pipeline) -> None:
    red = picture((RED, (32, 32, 64, 64)))
    blue = picture((BLUE, (8, 8, 48, 48)))
    references = [
        Reference(red, pixels((32, 32, 64, 64)), label="red"),
        Reference(blue, box=(8, 8, 47, 47), label="blue"),
        Reference(red, point=(48, 48), label="red"),
        pipeline.encode_reference(Reference(red, box=(32, 32, 63, 63), label="red")),
        Reference(blue, point=[(24, 24), (30, 30)], label="blue"),
    ]
    encoded = pipeline.reference_prompter.encode(references)
    assert [item.label for item in encoded] == ["red", "blue"]
    assert [len(item.shots) for item in encoded] == [3, 2]
    result = pipeline(
        picture((RED, LEFT), (BLUE, RIGHT), (RED, (8, 80, 40, 96))), reference=encoded
    )
    assert sorted(result.labels) == ["blue", "red", "red"]
    for label, mask in zip(result.labels, result.masks, strict=True):
        assert mask[:, 48:].any() == (label == "blue")


def test_debias_takes_the_place_away_once(obedient_segmenter, colours) -> None:
    class Placed(Colours):
        """Colours, and in two more channels the place."""

        def extract(self, image: np.ndarray) -> DenseFeatures:
            found = super().extract(image)
            rows, columns = np.indices(found.grid_size) / 12 * 400
            place = torch.tensor(np.stack([rows, columns], -1), dtype=torch.float32)
            return replace(found, tokens=torch.cat([found.tokens, place], -1))

    def cosine(debias: bool) -> float:
        seen = []

        def record(reference, target, min_presence):
            seen.append((reference, target))
            return STRATEGY(reference, target, min_presence)

        extractor = Placed()
        prompter = ReferencePrompter(extractor, obedient_segmenter, record, debias=debias)
        references = prompter.encode([RED_ONE])
        embedding = obedient_segmenter.encode_image(picture((RED, LEFT)))
        for _ in range(2):
            prompter.find(embedding, references)
        assert len(extractor.seen) == (3 if debias else 2)  # a black picture once
        reference, target = seen[0]
        return float(
            torch.cosine_similarity(
                reference.shots[0].features.tokens[6, 6], target.features.tokens[8, 1], dim=0
            )
        )

    assert cosine(False) < 0.9
    assert cosine(True) > 0.99


def test_a_saved_concept_finds_what_its_examples_find(pipeline, tmp_path) -> None:
    encoded = pipeline.encode_reference([RED_ONE, Reference(SHOWN[:, ::-1], RED_ONE.mask[:, ::-1])])
    save_concept(tmp_path / "red.safetensors", encoded)
    loaded = load_concept(tmp_path / "red.safetensors", model_id="colours")
    for target in (picture((RED, LEFT), (BLUE, RIGHT)), picture((BLUE, RIGHT)), SHOWN):
        one, other = (pipeline(target, reference=item) for item in (encoded, loaded))
        np.testing.assert_array_equal(one.masks, other.masks)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)


STORED = Path(__file__).parent / "data"  # pocket's masks of scikit-image's photographs


@pytest.fixture(scope="module")
def pocket() -> Pipeline:
    return load("pocket")


@pytest.mark.parametrize(
    ("photograph", "stored"), [("chelsea", "cat"), ("astronaut", "person"), ("coffee", "cup")]
)
def test_pocket_gives_a_photograph_its_own_mask(pocket, photograph: str, stored: str) -> None:
    image, mask = getattr(data, photograph)(), load_mask(STORED / f"{stored}.png")
    result = pocket(image, reference=Reference(image, mask))
    assert iou(np.logical_or.reduce(result.masks), mask) > 0.9
    tiny = np.zeros_like(mask)
    tiny[100:112, 200:212] = True
    result = pocket(image, reference=Reference(image, tiny), top_k=1)
    np.testing.assert_array_equal(result.masks, [tiny])


def test_pocket_matches_across_grey_and_colour(pocket) -> None:
    colour, mask = data.chelsea(), load_mask(STORED / "cat.png")
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    for target, shown in ((grey, colour), (colour, grey)):
        result = pocket(target, reference=Reference(shown, mask))
        assert iou(result.masks[0], mask) > 0.9
    flat = np.full_like(grey, 128)
    for target, shown in ((flat, colour), (colour, flat)):
        result = pocket(target, reference=Reference(shown, mask))
        assert len(result) == 0
        assert result.rejected[0].reason.startswith("presence 0.")


def test_a_preset_is_loaded_with_debias() -> None:
    debiased = load("pocket", debias=True)
    assert debiased.reference_prompter.debias
    mask = load_mask(STORED / "cat.png")
    image = data.chelsea()
    flipped = np.ascontiguousarray(image[:, ::-1])
    result = debiased(flipped, reference=Reference(image, mask), top_k=1)
    assert iou(result.masks[0], mask[:, ::-1]) > 0.9


def test_a_phrase_and_an_example_of_it_are_one_query(pipeline) -> None:
    """The phrase finds RIGHT, the example the red thing there: one mask, surer than each alone."""
    target = picture((RED, RIGHT))
    named, shown = pipeline(target, text="right"), pipeline(target, reference=RED_ONE)
    both = pipeline(target, text="right", reference=RED_ONE)
    assert_found(both, ("right", RIGHT))
    assert both.prompt_scores[0] > max(named.prompt_scores[0], shown.prompt_scores[0])
    assert any("are used instead" in item.reason for item in both.rejected)


def test_a_phrase_and_an_example_of_something_else_are_two_queries(pipeline) -> None:
    result = pipeline(picture((BLUE, LEFT)), text="right", reference=BLUE_ONE)
    assert sorted(result.labels) == ["blue", "right"]
    assert result.labels == [item for item in result.labels if item in ("blue", "right")]


def test_an_absent_phrase_with_an_example_that_is_not_there_is_nothing(pipeline) -> None:
    result = pipeline(picture((BLUE, LEFT)), text="zebra", reference=RED_ONE)
    assert len(result) == 0
    assert any("together say it is absent" in item.reason for item in result.rejected)
