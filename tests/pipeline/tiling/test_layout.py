"""Tiles cover a picture and share enough of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.models.errors import InputError
from promptseg.pipeline.tiling.layout import lay_tiles, read_tiles, window_around


@settings(deadline=None)
@given(st.tuples(st.integers(1, 700), st.integers(1, 700)), st.integers(64, 200))
def test_tiles_cover_a_picture(size: tuple[int, int], side: int) -> None:
    covered = np.zeros(size, int)
    tiles = lay_tiles(size, (side, side + 9))
    for x0, y0, x1, y1 in tiles:
        assert (y1 - y0, x1 - x0) == (min(side, size[0]), min(side + 9, size[1]))
        covered[y0:y1, x0:x1] += 1
    assert covered.min() == 1
    rows = sorted({tile[1] for tile in tiles})
    shared = side - np.diff(rows)
    assert (shared >= int(0.2 * side) - 1).all()


def test_tiles_of_a_worked_example() -> None:
    assert lay_tiles((100, 180), (100, 100)) == [(0, 0, 100, 100), (80, 0, 180, 100)]
    assert lay_tiles((50, 70), (100, 100)) == [(0, 0, 70, 50)]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((150, 40, 170, 60), (110, 0, 210, 100)),
        ((0, 0, 10, 10), (0, 0, 100, 100)),
        ((290, 95, 300, 100), (200, 0, 300, 100)),
    ],
)
def test_a_window_has_its_box_in_the_middle(box, expected) -> None:
    assert window_around(box, (100, 300), (100, 100)) == expected


@pytest.mark.parametrize(
    ("tiles", "expected"),
    [("auto", (512, 512)), (640, (640, 640)), ((300, 400), (300, 400)), ([300, 400], (300, 400))],
)
def test_sizes_of_tiles_are_read(tiles, expected) -> None:
    assert read_tiles(tiles, 512) == expected


@pytest.mark.parametrize(
    "tiles", ["small", 63, 5000, (512,), (512, 512, 3), (512.0, 512), True, (True, 512), None, {}]
)
def test_other_sizes_of_tiles_are_refused(tiles) -> None:
    with pytest.raises(InputError, match="tile"):
        read_tiles(tiles, 512)
