"""Polygons and run lengths, against pycocotools where it may be trusted with them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from promptseg.apps.evaluation.shapes import read_shape
from promptseg.models.errors import InputError

SIZE = (24, 32)


def draw(shape: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    return read_shape(json.dumps(shape), size, "it").draw()


def official(polygon: list[float], size: tuple[int, int] = SIZE) -> np.ndarray:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon], *size))).astype(bool)


def test_run_lengths_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = int(rng.integers(1, 70)), int(rng.integers(1, 70))
        mask = np.asfortranarray(rng.random(size) < rng.random() ** 3)
        packed = coco_mask.encode(mask.view(np.uint8))
        text = {"size": packed["size"], "counts": packed["counts"].decode()}
        np.testing.assert_array_equal(draw(text, size), mask)
        flat = np.concatenate([[0], mask.flatten(order="F"), [2]]).astype(int)
        changes = np.concatenate([[0], np.flatnonzero(np.diff(flat))])
        np.testing.assert_array_equal(
            draw({"size": size, "counts": np.diff(changes).tolist()}, size), mask
        )


def test_polygons_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        polygon = rng.uniform(-20, 45, 2 * int(rng.integers(3, 9))).round(2).tolist()
        np.testing.assert_array_equal(draw([polygon]), official(polygon))
    two = [[1, 1, 9, 1, 9, 9], [12, 3, 20, 3, 16, 15]]
    np.testing.assert_array_equal(draw(two), official(two[0]) | official(two[1]))


@pytest.mark.parametrize("far", [1e3, 1e6, 1e9, 1e12])
def test_polygons_are_clipped(far: float) -> None:
    """The whole triangle of half a picture, as pycocotools draws it from vertices nearby."""
    expected = official([0, 0, 20, 0, 20, 20], (10, 10))
    np.testing.assert_array_equal(draw([[0, 0, far, 0, far, far]], (10, 10)), expected)
    assert not draw([[far, far, 2 * far, far, far, 2 * far]] if far < 1e12 else [[far] * 6]).any()
    assert draw([[-far, -far, far, -far, far, far, -far, far]]).all()


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (None, ", got null"),
        ("text", "got str"),
        (3, "got int"),
        ([], "length >= 1"),
        ([3], "[0]: Expected array, got int"),
        ([[1, 2, 3, 4]], "[0]: Expected array of length >= 6"),
        ([[1, 2, 3, 4, 5, 6, 7]], "odd number of coordinates"),
        ([["a", 1, 2, 3, 4, 5]], "[0][0]: Expected float, got str"),
        ([[0, 0, 1e13, 0, 1, 1]], "Expected float <= 1000000000000"),
        ([[0, 0, float("nan"), 0, 1, 1]], "not valid JSON"),
        ([[0, 0, float("inf"), 0, 1, 1]], "not valid JSON"),
        ([[-1e9, 5, 1e9, 6] * 100_000], "outline"),
        ({}, "missing required field"),
        ({"size": 3, "counts": "a"}, "size: Expected array, got int"),
        ({"size": [24, 32, 1], "counts": "a"}, "size: Expected array of length 2"),
        ({"size": [2**18, 1], "counts": "a"}, "size[0]: Expected int <= 131072"),
        ({"size": [0, 0], "counts": []}, "size[0]: Expected int >= 1"),
        ({"size": [32, 24], "counts": [768]}, "run lengths of 32 x 24 pixels for a picture of 24"),
        ({"size": [24, 32], "counts": []}, "do not add up to the picture's 768 pixels"),
        ({"size": [24, 32], "counts": [1, 2, 3]}, "do not add up"),
        ({"size": [24, 32], "counts": [10, -5, 763]}, "counts[1]: Expected int >= 0"),
        ({"size": [24, 32], "counts": [2**34] * 5}, "do not add up"),
        ({"size": [24, 32], "counts": [2**63]}, "counts[0]"),
        ({"size": [24, 32], "counts": ["a"]}, "counts[0]: Expected int, got str"),
        ({"size": [24, 32], "counts": ""}, "not compressed run lengths"),
        ({"size": [24, 32], "counts": "\u00e9"}, "not compressed run lengths"),
        ({"size": [24, 32], "counts": "\u0000"}, "not compressed run lengths"),
        ({"size": [24, 32], "counts": "P"}, "not compressed run lengths"),  # more were to follow
        ({"size": [24, 32], "counts": "o" * 8 + "0"}, "larger than any picture"),
        ({"size": [24, 32], "counts": "O"}, "do not add up"),  # -1
        ({"size": [24, 32], "counts": "P13700000l0"}, "do not add up"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_other_shapes_are_refused_in_one_line(shape: object, says: str) -> None:
    with pytest.raises(InputError) as caught:
        draw(shape)
    assert says in str(caught.value)
    assert str(caught.value).startswith("it")
    assert "\n" not in str(caught.value)


def test_run_lengths_of_a_smaller_mask_are_refused() -> None:
    """They would leave most of a mask to whatever the memory held before."""
    with pytest.raises(InputError, match="do not add up to the picture's 160000 pixels"):
        draw({"size": [400, 400], "counts": "P13700000l0"}, (400, 400))
