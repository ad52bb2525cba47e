"""Masks that wait in little memory, against the plain arrays that they stand for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from promptseg.pipeline.masks import CompactMask, cut, tight_box

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 11))


@given(SIZES.flatmap(lambda size: hnp.arrays(bool, (2, *size))))
def test_a_compact_mask_is_the_mask(masks: np.ndarray) -> None:
    first, second = (CompactMask.of(mask) for mask in masks)
    np.testing.assert_array_equal(first.full(), masks[0])
    np.testing.assert_array_equal(first.part(), cut(masks[0], tight_box(masks[0])))
    assert first.size == masks[0].shape
    assert first.area == masks[0].sum()
    assert first.intersection(second) == (masks[0] & masks[1]).sum()
    assert second.intersection(first) == first.intersection(second)


def test_a_part_is_put_where_it_was() -> None:
    part = np.array([[True, False], [True, True]])
    mask = CompactMask.within(part, (3, 1, 5, 3), (4, 6))
    expected = np.zeros((4, 6), bool)
    expected[1:3, 3:5] = part
    np.testing.assert_array_equal(mask.full(), expected)
    assert mask == CompactMask.of(expected)


def test_a_large_plain_mask_takes_little_memory() -> None:
    mask = np.zeros((3000, 4000), bool)
    mask[500:2500, 700:3300] = True
    assert len(CompactMask.of(mask).packed) < mask.nbytes / 1000
