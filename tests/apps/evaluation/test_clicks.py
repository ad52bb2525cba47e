"""Simulated clicks on masks made by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from promptseg.apps.evaluation.clicks import interior_depth, next_click

SIZE = (20, 30)


def box(*corners: int) -> np.ndarray:
    x0, y0, x1, y1 = corners
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


NOTHING = np.zeros(SIZE, bool)


def test_depth_counts_from_the_nearest_cell_outside() -> None:
    depth = interior_depth(box(2, 3, 7, 8))
    assert depth.shape == SIZE
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(
        depth[3:8, 2:7],
        [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 2, 3, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]],
    )
    assert depth.sum() == 16 * 1 + 8 * 2 + 3


def test_the_border_of_the_picture_is_outside() -> None:
    depth = interior_depth(np.ones((3, 5), bool))
    np.testing.assert_array_equal(depth, [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]])


def test_the_first_click_is_the_centre() -> None:
    assert next_click(box(2, 3, 7, 8), NOTHING) == (4, 5, 1)
    # At the border the deepest cell is well inside all the same.
    assert next_click(box(0, 0, 5, 5), NOTHING) == (2, 2, 1)


def test_what_is_missing_is_clicked_as_foreground() -> None:
    target = box(2, 3, 21, 14)
    assert next_click(target, box(2, 3, 16, 14)) == (18, 5, 1)  # 5 x 11 cells are missing


def test_what_is_too_much_is_clicked_as_background() -> None:
    target = box(2, 3, 9, 10)
    assert next_click(target, box(2, 3, 14, 10)) == (11, 5, 0)  # 5 x 7 cells too many


def test_the_deeper_error_comes_first_and_a_tie_means_foreground() -> None:
    target = box(0, 0, 10, 10)
    shifted = box(5, 0, 15, 10)  # lacks 5 x 10 cells and has as many too many
    assert next_click(target, shifted)[2] == 1
    assert next_click(target, shifted | box(15, 0, 17, 10))[2] == 0
    assert next_click(target, shifted & ~box(5, 0, 6, 10))[2] == 1


def test_cells_that_do_not_count_are_never_clicked() -> None:
    target = box(2, 3, 21, 14)
    valid = ~box(10, 0, 30, 20)
    column, row, label = next_click(target, NOTHING, valid)
    assert (column, row, label) == (5, 6, 1)  # the deepest of 8 x 11 cells, the first of equals
    # All errors are where nothing counts: the centre of the target.
    assert next_click(target, target & valid, valid) == next_click(target, NOTHING)


def test_without_an_error_the_centre_of_the_target_is_clicked() -> None:
    target = box(2, 3, 7, 8)
    assert next_click(target, target) == (4, 5, 1)


@given(
    hnp.arrays(np.bool_, (6, 7)),
    hnp.arrays(np.bool_, (6, 7)),
    st.none() | hnp.arrays(np.bool_, (6, 7)),
)
def test_a_click_lies_on_an_error_with_the_right_label(
    target: np.ndarray, prediction: np.ndarray, valid: np.ndarray | None
) -> None:
    column, row, label = next_click(target, prediction, valid)
    error = (target ^ prediction) if valid is None else (target ^ prediction) & valid
    if error.any():
        assert error[row, column]
        assert label == target[row, column]
    elif target.any():
        assert target[row, column]
        assert label == 1
