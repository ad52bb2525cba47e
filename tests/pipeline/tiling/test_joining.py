"""Masks of neighbouring tiles: which are joined, which are copies, which stay apart."""

from __future__ import annotations

import numpy as np
import pytest

from promptseg.pipeline.compact_mask import CompactMask
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.tiling.joining import Sighting, drop_copies, is_cut, join

SIZE = (200, 360)
LEFT, RIGHT = (0, 0, 200, 200), (160, 0, 360, 200)


def sighting(*masks: tuple[tuple[int, int, int, int], tuple[int, int, int, int]], scores=None):
    """Boxes as masks, each with its tile."""
    drawn = np.zeros((len(masks), *SIZE), bool)
    for plane, ((x0, y0, x1, y1), _) in zip(drawn, masks, strict=True):
        plane[y0:y1, x0:x1] = True
    values = np.array(scores or [0.5] * len(masks))
    found = Proposals.of(drawn, ["a"] * len(masks), values, values, values)
    return Sighting(found, tuple(tile for _, tile in masks))


def boxes(seen: Sighting, **options) -> list[tuple[int, int, int, int]]:
    return sorted(mask.box for mask in join(seen, **options).found.masks)


def test_pieces_that_both_end_at_the_seam_are_joined() -> None:
    seen = sighting(((100, 50, 200, 80), LEFT), ((160, 50, 300, 80), RIGHT), scores=[0.9, 0.5])
    joined = join(seen)
    assert [mask.box for mask in joined.found.masks] == [(100, 50, 300, 80)]
    # The means by area.
    assert joined.found.iou_predictions == pytest.approx((0.9 * 100 + 0.5 * 140) / 240)
    assert joined.cut.tolist() == joined.joined.tolist() == [True]


def test_a_piece_of_what_the_other_tile_sees_whole_is_dropped() -> None:
    seen = sighting(((181, 50, 200, 80), LEFT), ((181, 50, 250, 80), RIGHT))
    assert boxes(seen) == [(181, 50, 250, 80)]


def test_of_two_whole_ones_the_better_stays() -> None:
    big = (0, 0, 260, 200)
    seen = sighting(((174, 50, 226, 80), big), ((175, 51, 225, 80), RIGHT), scores=[0.4, 0.6])
    assert boxes(seen) == [(175, 51, 225, 80)]


def test_pieces_that_differ_in_the_overlap_stay_apart() -> None:
    seen = sighting(((100, 50, 200, 80), LEFT), ((160, 90, 300, 120), RIGHT))
    assert boxes(seen) == [(100, 50, 200, 80), (160, 90, 300, 120)]
    little = sighting(((100, 50, 200, 80), LEFT), ((160, 70, 300, 120), RIGHT))
    assert len(boxes(little)) == 2


def test_other_labels_are_not_joined() -> None:
    seen = sighting(((100, 50, 200, 80), LEFT), ((160, 50, 300, 80), RIGHT))
    other = Proposals.of(
        np.array([mask.full() for mask in seen.found.masks]), ["a", "b"], [1, 1], [1, 1], [1, 1]
    )
    assert len(join(Sighting(other, seen.tiles)).found) == 2


def test_nested_masks_agree_only_as_wholes() -> None:
    big = (0, 0, 260, 200)
    seen = sighting(((175, 40, 225, 100), big), ((180, 45, 200, 60), RIGHT))
    assert len(boxes(seen)) == 1
    assert len(boxes(seen, nested=True)) == 2


def test_nothing_is_joined_to_nothing() -> None:
    assert len(join(sighting()).found) == 0
    assert len(drop_copies(Proposals.none(SIZE))) == 0


def test_copies_of_earlier_masks_are_dropped() -> None:
    found = sighting(
        ((10, 10, 50, 50), LEFT), ((12, 12, 48, 48), LEFT), ((60, 10, 90, 50), LEFT)
    ).found
    assert [mask.box for mask in drop_copies(found).masks] == [(10, 10, 50, 50), (60, 10, 90, 50)]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 100, 200), False),  # at the picture's edges
        ((100, 50, 200, 60), True),
        ((100, 50, 188, 60), True),
        ((100, 50, 187, 60), False),  # more than a sixteenth of the tile away
    ],
)
def test_a_mask_near_an_inner_edge_is_cut(box, expected) -> None:
    assert is_cut(box, LEFT, SIZE) is expected


def test_a_mask_of_its_own_size_is_needed() -> None:
    with pytest.raises(ValueError, match="tile each"):
        Sighting(sighting(((0, 0, 9, 9), LEFT)).found, ())
    assert CompactMask.of(np.ones(SIZE, bool)).area == 200 * 360
