"""Masks as run lengths against plain arrays and against pycocotools."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from promptseg.pipeline.compact_mask import CompactMask, compress_lengths, read_lengths
from promptseg.pipeline.masks import cut, tight_box

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 11))
ANY_MASK = SIZES.flatmap(lambda size: hnp.arrays(bool, size))
TWO_MASKS = SIZES.flatmap(lambda size: hnp.arrays(bool, (2, *size)))


@given(ANY_MASK)
def test_a_compact_mask_is_the_mask(mask: np.ndarray) -> None:
    packed = CompactMask.of(mask)
    np.testing.assert_array_equal(packed.full(), mask)
    np.testing.assert_array_equal(packed.part(), cut(mask, tight_box(mask)))
    assert packed.size == mask.shape
    assert packed.box == tight_box(mask)
    assert packed.area == mask.sum()
    assert packed == CompactMask.of(mask)


@given(ANY_MASK)
def test_run_lengths_are_those_of_pycocotools(mask: np.ndarray) -> None:
    packed = CompactMask.of(mask)
    expected = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert packed.to_rle() == {**expected, "counts": expected["counts"].decode()}
    assert coco_mask.area(expected) == packed.area
    x0, y0, x1, y1 = packed.box
    if y1 - y0 < mask.shape[0]:  # runs over several columns have the full height there
        assert coco_mask.toBbox(expected).tolist() == [x0, y0, x1 - x0, y1 - y0]
    lengths = read_lengths(packed.counts)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    np.testing.assert_array_equal(flat, mask.ravel(order="F"))


# pycocotools has six characters for each length and none for the end of the string: where every
# length takes six, which is from 2**24 on, it writes beyond its buffer, and the process may abort.
@given(st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=9))
def test_lengths_are_written_and_read_as_by_pycocotools(lengths: list[int]) -> None:
    rle = coco_mask.frPyObjects({"size": (1, sum(lengths)), "counts": lengths}, 1, sum(lengths))
    assert compress_lengths(lengths) == rle["counts"]
    assert read_lengths(rle["counts"]).tolist() == lengths


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=9))
def test_lengths_of_any_size_are_kept(lengths: list[int]) -> None:
    assert read_lengths(compress_lengths(lengths)).tolist() == lengths


@given(SIZES.flatmap(lambda size: hnp.arrays(bool, (3, *size))))
def test_a_union_is_that_of_pycocotools(masks: np.ndarray) -> None:
    found = CompactMask.union([CompactMask.of(mask) for mask in masks])
    assert found == CompactMask.of(masks.any(0))
    expected = coco_mask.merge(
        [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]
    )
    assert found.counts == expected["counts"]


@given(TWO_MASKS)
def test_shared_pixels_are_counted(masks: np.ndarray) -> None:
    first, second = (CompactMask.of(mask) for mask in masks)
    shared = (masks[0] & masks[1]).sum()
    assert first.shares([second, first, second]).tolist() == [shared, first.area, shared]
    assert second.shares([first]).tolist() == [shared]
    assert first.shares([]).tolist() == []


@given(ANY_MASK, st.data())
def test_pieces_are_joined(mask: np.ndarray, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, mask.shape[1]))
    pieces = [(x, 0, piece) for x, piece in ((0, mask[:, :at]), (at, mask[:, at:])) if piece.size]
    assert CompactMask.join(iter(pieces), mask.shape) == CompactMask.of(mask)


@given(ANY_MASK, st.integers(1, 5))
def test_a_reduced_mask_has_the_middles_of_the_blocks(mask: np.ndarray, factor: int) -> None:
    y, x = (
        np.minimum(np.arange(ceil(side / factor)) * factor + factor // 2, side - 1)
        for side in mask.shape
    )
    expected = CompactMask.of(mask[np.ix_(y, x)])
    assert CompactMask.of(mask).reduced(factor) == expected


def test_a_part_is_put_where_it_was() -> None:
    part = np.array([[True, False, False], [True, True, False]])
    mask = CompactMask.within(part, (3, 1, 6, 3), (4, 6))
    expected = np.zeros((4, 6), bool)
    expected[1:3, 3:6] = part
    np.testing.assert_array_equal(mask.full(), expected)
    assert mask == CompactMask.of(expected)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_memory_is_bounded_by_the_pixels(share: float) -> None:
    """A plain mask takes bytes for each column, and the raggedest possible one for each pixel."""
    mask = np.zeros((300, 400), bool)
    mask[50:250, 70:330] = np.random.default_rng(0).random((200, 260)) < share
    assert len(CompactMask.of(mask).counts) < (mask.size if share == 0.5 else 3 * mask.shape[1])


def test_a_large_plain_mask_takes_little_memory() -> None:
    mask = np.zeros((3000, 4000), bool)
    mask[500:2500, 700:3300] = True
    assert len(CompactMask.of(mask).counts) < mask.nbytes / 1000


@settings(deadline=None)
@given(st.data(), st.integers(1, 4))
def test_a_union_covers_what_any_mask_covers(data: st.DataObject, count: int) -> None:
    size = data.draw(SIZES)
    masks = [data.draw(hnp.arrays(bool, size)) for _ in range(count)]
    union = CompactMask.union([CompactMask.of(mask) for mask in masks])
    assert union == CompactMask.of(np.logical_or.reduce(masks))


@settings(deadline=None)
@given(ANY_MASK, st.data())
def test_a_window_is_the_mask_s_part(mask: np.ndarray, data: st.DataObject) -> None:
    height, width = mask.shape
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = (x0, y0, data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height)))
    np.testing.assert_array_equal(CompactMask.of(mask).window(box), cut(mask, box))


@settings(deadline=None)
@given(ANY_MASK, st.integers(1, 5))
def test_a_mask_enlarged_by_a_whole_factor_reduces_to_itself(mask: np.ndarray, factor: int) -> None:
    packed = CompactMask.of(mask)
    size = (mask.shape[0] * factor, mask.shape[1] * factor)
    enlarged = packed.enlarged(size)
    assert enlarged.size == size
    if factor % 2:  # a pixel's middle keeps its value
        assert enlarged.reduced(factor) == packed


def test_an_enlarged_mask_has_the_shape_of_the_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    def disc(size: tuple[int, int]) -> np.ndarray:
        y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in size)
        return np.hypot(y[:, None], x) < 0.3

    small = CompactMask.of(disc((60, 80)))
    large = small.enlarged((733, 1111))
    expected = disc((733, 1111))
    assert (large.full() & expected).sum() / (large.full() | expected).sum() > 0.97
    monkeypatch.setattr("promptseg.pipeline.compact_mask._PIECE_PIXELS", 5000)
    assert small.enlarged((733, 1111)) == large
