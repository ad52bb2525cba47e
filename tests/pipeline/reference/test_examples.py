"""References as users give them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import promptseg
from promptseg.models.errors import InputError
from promptseg.models.features.dense import DenseFeatures
from promptseg.pipeline.images import load_mask
from promptseg.pipeline.prompters.reference.examples import (
    EncodedReference,
    Reference,
    Shot,
    read_references,
)

IMAGE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
MASK = np.zeros((20, 30), bool)
MASK[5:12, 8:20] = True


def test_a_mask_is_read_from_anything(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(MASK).save(path)
    palette = Image.fromarray(MASK.astype(np.uint8) * 3).convert("P")
    palette.putpalette([0, 0, 0] * 256)  # all black: the numbers count
    red = np.zeros((20, 30, 3), np.uint8)
    red[MASK] = (9, 0, 0)
    clear = np.full((20, 30, 4), 255, np.uint8)
    clear[~MASK, 3] = 0
    jpeg = tmp_path / "mask.jpg"
    Image.fromarray(MASK.astype(np.uint8) * 255).save(jpeg, quality=60)
    for source in (
        MASK,
        MASK.astype(np.uint8),
        MASK[..., None].astype(np.int64) * 7,
        path,
        str(path),
        Image.open(path),
        palette,
        Image.fromarray(red),
        Image.fromarray(clear),
    ):
        reference = Reference(IMAGE, source)
        np.testing.assert_array_equal(reference.mask, MASK)
        assert reference.mask.dtype == np.bool_
    # A JPEG's black is not quite black.
    assert (np.asarray(Image.open(jpeg)) > 0)[~MASK].any()
    assert (load_mask(jpeg) == MASK).mean() > 0.98


def test_a_reference_is_a_frozen_value() -> None:
    image, mask = IMAGE.copy(), MASK.copy()
    reference = Reference(image, mask, label=" cat ")
    image[:], mask[:] = 0, False
    np.testing.assert_array_equal(reference.image, IMAGE)
    np.testing.assert_array_equal(reference.mask, MASK)
    assert reference.label == "cat"
    assert not reference.marks
    with pytest.raises(ValueError, match="read-only"):
        reference.mask[0, 0] = True
    with pytest.raises(FrozenInstanceError):
        reference.label = "dog"
    assert promptseg.Reference is Reference


def test_boxes_and_points_are_marks() -> None:
    boxed = Reference(IMAGE, box=(1, 2, 10, 12))
    np.testing.assert_array_equal(boxed.marks.boxes, [[1, 2, 10, 12]])
    assert boxed.mask is None
    for point in ((3, 4), [(3, 4)], np.array([3, 4])):
        np.testing.assert_array_equal(Reference(IMAGE, point=point).marks.points, [[3, 4]])
    several = Reference(IMAGE, point=[(3, 4), (5, 6)]).marks
    np.testing.assert_array_equal(several.points, [[3, 4], [5, 6]])
    np.testing.assert_array_equal(several.point_labels, [1, 1])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "one of mask, box and point .* got none"),
        ({"mask": MASK, "box": (0, 0, 5, 5)}, "got mask and box"),
        ({"mask": np.zeros((20, 30), bool)}, "mask is empty"),
        ({"mask": np.ones((20, 30), np.uint8)}, "covers the whole image"),
        ({"mask": MASK[:, :29]}, "mask is 29 x 20 pixels and its image 30 x 20"),
        ({"mask": MASK.astype(float)}, "must be bool or uint8, not float64"),
        ({"mask": IMAGE}, r"must be \(H, W\), not \(20, 30, 3\)"),
        ({"mask": 3}, "a mask must be a path"),
        ({"mask": "nowhere.png"}, "'nowhere.png' does not exist"),
        ({"mask": Image.new("L", (0, 5))}, "has no pixels"),
        ({"box": (0, 0, 5)}, "box must be 4 numbers"),
        ({"box": "here"}, "box must be an array of numbers"),
        ({"box": (5, 0, 1, 9)}, "wrong order"),
        ({"box": (40, 0, 50, 9)}, "lies outside the image"),
        ({"point": (1, 2, 3)}, r"point must be \(x, y\)"),
        ({"point": []}, r"point must be \(x, y\)"),
        ({"point": (31, 2)}, "lies outside the image"),
        ({"point": (np.nan, 2)}, "must be finite"),
        ({"mask": MASK, "label": " "}, "label of a reference must be a non-empty text"),
        ({"mask": MASK, "label": 4}, "label of a reference must be a non-empty text"),
    ],
    ids=str,
)
def test_senseless_references_are_refused(given, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Reference(IMAGE, **given)


def test_a_broken_image_is_refused() -> None:
    with pytest.raises(InputError, match="does not exist"):
        Reference("nowhere.jpg", MASK)


def shot(model_id: str = "test") -> Shot:
    features = DenseFeatures(torch.zeros(2, 3, 4), (20, 30), (20, 30), (10.0, 10.0), model_id)
    return Shot(features, torch.ones(2, 3))


def test_encoded_references_are_of_one_model() -> None:
    encoded = EncodedReference("cat", (shot(), shot()))
    assert encoded.model_id == "test"
    with pytest.raises(InputError, match="at least one example"):
        replace(encoded, shots=())
    with pytest.raises(InputError, match="encoded by other and test, whose features cannot"):
        replace(encoded, shots=(shot(), shot("other")))


def test_queries_are_one_or_several() -> None:
    reference, encoded = Reference(IMAGE, MASK), EncodedReference("cat", (shot(),))
    assert read_references(None) == ()
    assert read_references(reference) == (reference,)
    assert read_references([reference, encoded]) == (reference, encoded)
    for query, says in (
        ([], "empty list"),
        ("cat.jpg", "must be a Reference or a list of them, got 'cat.jpg'"),
        (IMAGE, "must be a Reference or a list"),
        ([IMAGE], r"got a ndarray; write Reference\(image, mask\)"),
    ):
        with pytest.raises(InputError, match=says):
            read_references(query)
