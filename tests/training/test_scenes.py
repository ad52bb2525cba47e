"""Scenes: what is put or pasted stays aligned with its ids and known by its layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import Entry, Picture, Thing
from scenes import IDS_A_LAYER, VOID_ID, Scene, coloured, empty_scene, paste, put

from promptseg.apps.evaluation.index_folder import VOID, Region, Sample

# Colour of each id, so that pixels and ids can be held against each other.
COLOURS = np.array([[90, 90, 90], [220, 30, 30], [30, 30, 220]], np.uint8)


def entry_of(*words: tuple[str, tuple]) -> Entry:
    regions = (Region("box", (1,), True, None), Region("bar", (2,), True, None))
    sample = Sample(Path("a.png"), Path("b.png"), "mine", "train", () if words else regions)
    return Entry(sample, ((), ()), tuple(words))


def picture_of(size: tuple[int, int] = (40, 60)) -> Picture:
    """A red box at the left, a blue bar at the bottom right."""
    ids = np.zeros(size, np.uint8)
    ids[8:24, 6:26] = 1
    ids[30:38, 34:58] = 2
    things = (Thing("box", (1,), (), True), Thing("bar", (2,), (), True))
    return Picture(COLOURS[ids], ids, (("box", (1,)), ("bar", (2,))), things)


def assert_aligned(scene: Scene, tolerance: int = 60) -> None:
    """Pixels well inside an id have its colour."""
    for layer in range(len(scene.layers)):
        for i in (1, 2):
            inside = scene.ids == layer * IDS_A_LAYER + i
            if inside.sum() < 40:
                continue
            colour = np.median(scene.pixels[inside].astype(int), axis=0)
            assert np.abs(colour - COLOURS[i].astype(int)).max() < tolerance


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("scale", "corner"), [(1.0, (0.0, 0.0)), (2.0, (13.0, 9.0)), (0.5, (0.0, 0.0))]
)
def test_a_picture_is_put_with_its_ids(flip: bool, scale: float, corner: tuple) -> None:
    scene = empty_scene((64, 96))
    put(
        scene,
        entry_of(),
        picture_of(),
        cell=(0, 0, 96, 64),
        scale=scale,
        corner=corner,
        flip=flip,
        rng=None,
    )
    assert_aligned(scene)
    assert (scene.ids == 1).any()
    shown = scene.owner == 0
    height = min(64, round(40 * scale - corner[1]))
    width = min(96, round(60 * scale - corner[0]))
    assert shown[:height, :width].all()
    assert shown.sum() == height * width
    assert (scene.ids[~shown] == VOID_ID).all()
    assert (scene.pixels[~shown] == 127).all()
    layer = scene.layers[0]
    assert layer.areas == pytest.approx({1: 320 * scale**2, 2: 192 * scale**2})


def test_pictures_side_by_side_have_ids_of_their_own() -> None:
    scene = empty_scene((64, 64))
    for x in (0, 32):
        put(
            scene,
            entry_of(),
            picture_of(),
            cell=(x, 0, 32, 64),
            scale=1.0,
            corner=(0.0, 0.0),
            flip=False,
            rng=None,
        )
    assert set(np.unique(scene.ids)) == {VOID_ID, 0, 1, IDS_A_LAYER, IDS_A_LAYER + 1}
    assert scene.layers[1].regions[0] == ("box", (IDS_A_LAYER + 1,))
    assert scene.layers[1].things[1].ids == (IDS_A_LAYER + 2,)
    assert (scene.owner[:40, :32] == 0).all()
    assert (scene.owner[:40, 32:] == 1).all()


def test_void_stays_void() -> None:
    picture = picture_of()
    picture.ids[0:6] = VOID
    scene = empty_scene((64, 64))
    put(
        scene,
        entry_of(),
        picture,
        cell=(0, 0, 64, 64),
        scale=1.0,
        corner=(0.0, 0.0),
        flip=False,
        rng=None,
    )
    assert (scene.ids[:6, :60] == VOID_ID).all()
    assert (scene.owner[:6, :60] == 0).all()


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_move_with_their_picture(flip: bool) -> None:
    scene = empty_scene((96, 96))
    box = (6.0, 8.0, 26.0, 24.0)  # of id 1
    put(
        scene,
        entry_of(("gnome", (box,))),
        picture_of(),
        cell=(32, 0, 64, 96),
        scale=1.5,
        corner=(7.0, 3.0),
        flip=flip,
        rng=None,
    )
    rows, columns = np.nonzero(scene.ids == 1)
    ((word, (found,)),) = scene.layers[0].boxes
    assert word == "gnome"
    seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    # Beyond the scene the box goes on.
    assert np.clip(found, 0, 96) == pytest.approx(seen, abs=2)


@pytest.mark.parametrize("flip", [False, True])
def test_a_pasted_object_covers_what_was_there(flip: bool) -> None:
    scene = empty_scene((64, 96))
    picture = picture_of()
    for x in (0, 48):
        put(
            scene,
            entry_of(),
            picture,
            cell=(x, 0, 48, 64),
            scale=1.0,
            corner=(0.0, 0.0),
            flip=False,
            rng=None,
        )
    before = int((scene.ids == 1).sum())
    rng = np.random.default_rng(0)
    assert paste(
        scene,
        entry_of(),
        picture,
        picture.things[0],
        side=40.0,
        centre=(30.0, 16.0),
        flip=flip,
        rng=rng,
    )
    layer = scene.layers[2]
    new = scene.ids == 2 * IDS_A_LAYER + 1
    assert layer.pasted
    assert layer.regions == (("box", (2 * IDS_A_LAYER + 1,)),)
    assert [t.label for t in layer.things] == ["box"]
    assert layer.areas[2 * IDS_A_LAYER + 1] == pytest.approx(320 * 4)
    # 40 x 32 pixels around (30, 16), nothing cut off; a soft corner may be missing.
    assert 1180 < new.sum() <= 1280
    assert np.array_equal(new, scene.owner == 2)
    assert (scene.ids == 1).sum() < before
    assert not (new & (scene.ids == 1)).any()


def test_what_is_pasted_beside_the_scene_is_not_there() -> None:
    scene = empty_scene((64, 64))
    picture = picture_of()
    rng = np.random.default_rng(0)
    assert not paste(
        scene,
        entry_of(),
        picture,
        picture.things[0],
        side=20.0,
        centre=(100.0, 30.0),
        flip=False,
        rng=rng,
    )
    assert scene.layers == []
    assert (scene.ids == VOID_ID).all()


def test_colours_change_by_chance_and_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = [coloured(pixels, rng) for _ in range(30)]
    assert all(f.dtype == np.uint8 and f.shape == pixels.shape for f in found)
    means = [f.mean() for f in found]
    assert max(means) - min(means) > 30
    # Bright places stay brighter than dark ones.
    grey = pixels.mean(-1)
    bright, dark = grey > 160, grey < 90
    assert all(f[bright].mean() > f[dark].mean() for f in found)
