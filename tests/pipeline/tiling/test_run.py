"""Tiles on pictures of plain shapes, against the connected parts of the whole picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from promptseg.models.errors import InputError
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.tiling.layout import lay_tiles
from promptseg.pipeline.tiling.pictures import InMemory
from promptseg.pipeline.tiling.run import TilingConfig, find_in_tiles

from .scenes import ByColour, components, paint

SIZE = (700, 900)
TILE = (256, 256)
PLAIN = TilingConfig(stricter_by_look=0.0)


def run(pixels: np.ndarray, look, **options) -> Proposals:
    picture = options.pop("picture", None) or InMemory(pixels)
    return find_in_tiles(picture, look, TILE, config=options.pop("config", PLAIN), **options)


def masks_of(found: Proposals, label: str) -> list[np.ndarray]:
    own = [m.full() for m, name in zip(found.masks, found.labels, strict=True) if name == label]
    return sorted(own, key=lambda mask: np.flatnonzero(mask)[0])


def assert_same(found: Proposals, pixels: np.ndarray, label: str) -> None:
    expected = sorted(components(pixels, label), key=lambda mask: np.flatnonzero(mask)[0])
    actual = masks_of(found, label)
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_object_is_one_mask_wherever_the_seams_lie() -> None:
    boxes = [(x, y, x + 60, y + 45) for y in range(8, 640, 97) for x in range(5, 830, 113)]
    pixels = paint(SIZE, *(("red" if i % 3 else "blue", box) for i, box in enumerate(boxes)))
    found = run(pixels, ByColour("red", "blue"))
    assert_same(found, pixels, "red")
    assert_same(found, pixels, "blue")
    assert found.iou_predictions == pytest.approx(0.9)
    assert found.prompt_scores == pytest.approx(0.7)


def test_an_object_longer_than_a_tile_is_joined_along_its_seams() -> None:
    pixels = paint(SIZE, ("red", (20, 300, 880, 340)), ("red", (400, 20, 440, 690)))
    assert_same(run(pixels, ByColour("red")), pixels, "red")


def test_an_object_larger_than_a_tile_comes_from_the_whole_picture() -> None:
    class Shy(ByColour):
        """Sees nothing where all is of one colour, as in the middle of something large."""

        def __call__(self, pixels: np.ndarray, stricter: float) -> Proposals:
            found = super().__call__(pixels, stricter)
            filled = [m.area > 0.9 * pixels.shape[0] * pixels.shape[1] for m in found.masks]
            return found.part([i for i, full in enumerate(filled) if not full])

    pixels = paint(SIZE, ("red", (60, 50, 860, 650)), ("blue", (10, 10, 50, 40)))
    found = run(pixels, Shy("red", "blue"))
    (large,) = masks_of(found, "red")
    expected = components(pixels, "red")[0]
    assert (large & expected).sum() / (large | expected).sum() > 0.97
    assert_same(found, pixels, "blue")


def test_what_was_seen_whole_from_closer_is_no_piece_of_something_larger() -> None:
    class Blurred(ByColour):
        """Sees one object in the whole picture where there are two."""

        def __call__(self, pixels: np.ndarray, stricter: float) -> Proposals:
            found = super().__call__(pixels, stricter)
            if pixels.shape[1] != TILE[1] or pixels.shape[0] == TILE[0]:
                return found
            both = np.any([mask.full() for mask in found.masks], 0)[None]
            return Proposals.of(both, ["red"], *np.full((3, 1), 0.6))

    pixels = paint(SIZE, ("red", (100, 200, 340, 300)), ("red", (360, 200, 600, 300)))
    assert_same(run(pixels, Blurred("red")), pixels, "red")


@pytest.mark.parametrize("wider_is_better", [False, True])
def test_of_two_closer_looks_the_better_mask_stays(wider_is_better: bool) -> None:
    class Unsure(ByColour):
        """Predicts an IoU by the width of what it looks at."""

        def __call__(self, pixels: np.ndarray, stricter: float) -> Proposals:
            found = super().__call__(pixels, stricter)
            width = pixels.shape[1] / 1000
            predicted = np.full(len(found), width if wider_is_better else 1 - width, np.float32)
            return replace(found, iou_predictions=predicted)

    pixels = paint(SIZE, ("red", (200, 200, 400, 300)))
    found = run(pixels, Unsure("red"))
    assert_same(found, pixels, "red")
    assert found.iou_predictions == pytest.approx(0.28 if wider_is_better else 1 - 0.23)


def test_an_object_that_a_seam_cuts_is_looked_at_once_more() -> None:
    pixels = paint((256, 460), ("red", (190, 60, 290, 160)))
    assert lay_tiles((256, 460), TILE) == [(0, 0, 256, 256), (204, 0, 460, 256)]
    look = ByColour("red")
    found = run(pixels, look, config=TilingConfig(stricter_by_look=1.0))
    assert_same(found, pixels, "red")
    # Two tiles, and later the whole, are stricter; the one from closer is as strict as one look.
    by = np.log2(3)
    assert [stricter for _, stricter in look.asked] == pytest.approx([by, by, 0.0, by])


def test_the_closer_look_shows_little_else() -> None:
    small, long = (190, 60, 230, 90), (120, 400, 520, 440)
    look = ByColour("red", "blue")
    run(paint(SIZE, ("red", small), ("blue", long)), look)
    windows = [size for size, _ in look.asked[len(lay_tiles(SIZE, TILE)) : -1]]
    # Three quarters of a tile, and where it is more, the object's own side and margins just so wide
    # that no edge counts as cutting. Of the larger one the surroundings are shown as well.
    assert windows == [(192, 460), (192, 192), (192, 560)]


def test_what_is_not_found_again_from_closer_is_dropped() -> None:
    class Doubtful(ByColour):
        """Does not see from closer what it saw in a tile."""

        def __call__(self, pixels: np.ndarray, stricter: float) -> Proposals:
            found = super().__call__(pixels, stricter)
            return found if stricter else found.part([])

    pixels = paint(SIZE, ("red", (300, 300, 340, 340)))
    found = run(pixels, Doubtful("red"), config=TilingConfig(0.5))
    assert len(found) == 0
    assert [item.reason for item in found.rejected] == [
        "not found again from closer (the closest of 23 looks)"
    ]
    kept = run(pixels, Doubtful("red"), config=TilingConfig(0.5, confirm=False))
    assert_same(kept, pixels, "red")


def test_what_its_surroundings_tell_is_looked_at_with_them() -> None:
    class Lost(ByColour):
        """Sees nothing in less than a tile."""

        def __call__(self, pixels: np.ndarray, stricter: float) -> Proposals:
            found = super().__call__(pixels, stricter)
            return found if pixels.shape[:2] == TILE else found.part([])

    pixels = paint(SIZE, ("red", (300, 300, 340, 340)))
    found = run(pixels, Lost("red"))
    assert_same(found, pixels, "red")
    assert found.rejected == ()


def test_an_absent_phrase_is_told_once_by_the_closest_look() -> None:
    pixels = paint(SIZE, ("red", (10, 10, 60, 60)))
    look = ByColour("red", "blue")
    found = run(pixels, look)
    (rejected,) = found.rejected
    assert rejected.label == "blue"
    # The tiles, the whole, and one more look at the red box.
    assert len(look.asked) == len(lay_tiles(SIZE, TILE)) + 2
    assert rejected.reason == f"presence 0.10 below 0.50 (the closest of {len(look.asked)} looks)"
    assert rejected.presence == 0.1


def test_negatives_are_joined_like_what_is_wanted() -> None:
    pixels = paint(SIZE, ("red", (10, 300, 890, 320)), ("blue", (230, 10, 290, 60)))
    found = run(pixels, ByColour("red", against="blue"))
    assert_same(found.negatives, pixels, "blue")
    assert_same(found, pixels, "red")


def test_masks_end_where_there_is_no_data_and_empty_tiles_are_not_looked_at() -> None:
    pixels = paint(SIZE, ("red", (600, 100, 660, 160)))

    class Half(InMemory):
        def read(self, box):
            return super().read(box)[0], (np.arange(box[0], box[2]) >= 630)[None].repeat(
                box[3] - box[1], 0
            )

        def overview(self, side):
            small = super().overview(side)[0]
            valid = np.arange(small.shape[1]) >= 630 * small.shape[1] / SIZE[1]
            return small, valid[None].repeat(small.shape[0], 0)

    look = ByColour("red")
    found = run(pixels, look, picture=Half(pixels))
    (mask,) = masks_of(found, "red")
    expected = components(pixels, "red")[0] & (np.arange(SIZE[1]) >= 630)
    np.testing.assert_array_equal(mask, expected)
    with_data = [tile for tile in lay_tiles(SIZE, TILE) if tile[2] > 630]
    assert len(with_data) + 1 <= len(look.asked) < len(lay_tiles(SIZE, TILE))


def test_tiles_that_fail_are_told_and_the_others_looked_at() -> None:
    pixels = paint(SIZE, ("red", (10, 10, 60, 60)), ("red", (800, 600, 850, 650)))
    broken = lay_tiles(SIZE, TILE)[-1]

    class Damaged(InMemory):
        def read(self, box):
            if box == broken:
                raise InputError("a block is\ndamaged")
            return super().read(box)

    found = run(pixels, ByColour("red"), picture=Damaged(pixels))
    assert [(tile.box, tile.reason) for tile in found.unseen] == [(broken, "a block is damaged")]
    assert len(masks_of(found, "red")) == 1

    class Lost(InMemory):
        def read(self, box):
            raise InputError("the file is gone")

    with pytest.raises(InputError, match="the file is gone"):
        run(pixels, ByColour("red"), picture=Lost(pixels))


def test_a_picture_of_one_tile_is_one_look() -> None:
    pixels = paint((200, 250), ("red", (10, 10, 60, 60)))
    look = ByColour("red")
    assert_same(run(pixels, look, config=TilingConfig(stricter_by_look=1.0)), pixels, "red")
    assert look.asked == [((200, 250), 0.0)]


def test_progress_ends_at_the_number_of_looks() -> None:
    pixels = paint(SIZE, *(("red", (x, 300, x + 90, 330)) for x in range(5, 800, 130)))
    told: list[tuple[int, int]] = []
    look = ByColour("red")
    run(pixels, look, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == list(range(1, len(look.asked) + 1))
    assert told[-1] == (len(look.asked), len(look.asked))


def test_masks_within_each_other_stay_where_they_may() -> None:
    class Parts(ByColour):
        """Each red object, and its left half."""

        def __call__(self, pixels: np.ndarray, stricter: float) -> Proposals:
            wholes = components(pixels, "red")
            halves = []
            for whole in wholes:
                half = whole.copy()
                half[:, np.flatnonzero(whole.any(0)).mean().astype(int) :] = False
                halves.append(half)
            masks = np.array([*wholes, *halves]).reshape(-1, *pixels.shape[:2])
            ones = np.ones(len(masks))
            return Proposals.of(masks, ["mask"] * len(masks), ones, ones, ones)

    pixels = paint(SIZE, ("red", (60, 60, 100, 100)), ("red", (440, 300, 480, 340)))
    areas = sorted(mask.area for mask in run(pixels, Parts(), nested=True).masks)
    assert areas[-2:] == [1600, 1600]
    assert len(areas) == 4
    assert len(run(pixels, Parts()).masks) < 4


def test_the_whole_picture_has_to_be_as_sure_as_a_tile() -> None:
    with pytest.raises(InputError, match="stricter_by_look"):
        TilingConfig(stricter_by_look=-1.0)
    assert TilingConfig(stricter_by_look=0.5).stricter(1) == 0.0
    assert TilingConfig(stricter_by_look=0.5).stricter(64) == 3.0
