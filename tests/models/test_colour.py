"""Colour words against scikit-image's CIELAB and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from promptseg.models.pocket.colour import (
    FOCAL_COLOURS,
    SHARE_RANGE,
    colour_share,
    keep_coloured,
    split_colour,
)
from promptseg.models.pocket.colour import _to_lab as to_lab

# CSS colours that no list of examples holds.
CSS = {
    "red": (178, 34, 34),
    "orange": (255, 140, 0),
    "yellow": (255, 215, 0),
    "green": (34, 139, 34),
    "blue": (65, 105, 225),
    "purple": (128, 0, 128),
    "pink": (255, 105, 180),
    "brown": (139, 69, 19),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
}


@pytest.mark.parametrize(
    ("phrase", "colour", "rest"),
    [
        ("red car", "red", "car"),
        ("the dark Blue shirt", "blue", "the shirt"),
        ("a gray cat", "grey", "a cat"),
        ("navy coat", "blue", "coat"),
        ("orange cat", "orange", "cat"),
        ("orange", None, "orange"),
        ("juicy orange", None, "juicy orange"),
        ("car", None, "car"),
        ("black and white dog", None, "black and white dog"),
        ("redwood tree", None, "redwood tree"),
        ("Ярко 红色", None, "Ярко 红色"),
    ],
)
def test_a_colour_word_is_taken_off(phrase: str, colour: str | None, rest: str) -> None:
    assert split_colour(phrase) == (colour, rest)


def test_lab_equals_scikit_images() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image[0, :2] = [[0, 0, 0], [255, 255, 255]]
    np.testing.assert_allclose(to_lab(image), rgb2lab(image), atol=0.02)


@pytest.mark.parametrize("name", FOCAL_COLOURS)
def test_css_colours_are_what_they_are_called(name: str) -> None:
    pixel = np.array(CSS[name], np.uint8)[None, None]
    shares = {colour: float(colour_share(pixel, colour)[0, 0]) for colour in FOCAL_COLOURS}
    assert max(shares, key=lambda colour: shares[colour]) == name
    assert min(shares.values()) >= 0
    assert sum(shares.values()) <= 1 + 1e-5


def heat_of_two() -> np.ndarray:
    heat = np.full((6, 12), 0.1, np.float32)
    heat[1:5, 1:5] = 0.9
    heat[1:5, 7:11] = 0.8
    return heat


def test_regions_of_another_colour_are_cooled() -> None:
    share = np.zeros((6, 12), np.float32)
    share[:, 6:] = 1.0
    heat, presence = keep_coloured(heat_of_two(), 0.9, share)
    assert presence == pytest.approx(0.9)
    assert heat[1:5, 1:5].max() == 0
    np.testing.assert_allclose(heat[1:5, 7:11], 0.8)
    assert np.unravel_index(heat.argmax(), heat.shape)[1] >= 7


def test_a_region_counts_as_far_as_it_has_the_colour() -> None:
    low, high = SHARE_RANGE
    share = np.full((6, 12), (low + high) / 2, np.float32)
    heat, presence = keep_coloured(heat_of_two(), 0.9, share)
    assert presence == pytest.approx(0.45)
    np.testing.assert_allclose(heat[1:5, 1:5], 0.45, rtol=1e-5)
    np.testing.assert_allclose(heat[0], 0.025, rtol=1e-5)  # no nearer to the peak than before


def test_nothing_of_the_colour_is_not_present() -> None:
    heat, presence = keep_coloured(heat_of_two(), 0.9, np.zeros((6, 12), np.float32))
    assert presence == 0
    assert heat.max() < 0.1


def test_a_map_without_heat_has_a_region_all_the_same() -> None:
    heat, presence = keep_coloured(np.zeros((4, 5), np.float32), 0.3, np.ones((4, 5), np.float32))
    assert presence == pytest.approx(0.3)
    assert heat.shape == (4, 5)
