"""Pocket in tiles: a mosaic of the example pictures, beside each of them alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import promptseg
from promptseg.models.errors import InputError
from promptseg.pipeline import Pipeline, Result
from promptseg.pipeline.raster import Raster

EXAMPLES = Path(__file__).resolve().parents[2] / "apps" / "web" / "examples"
HEIGHT, WIDTH = 300, 400
CATS = ((0, 0), (1, 1))


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return promptseg.load("pocket")


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    names = ("cat", "astronaut", "rocket")
    loaded = (Image.open(EXAMPLES / f"{name}.jpg").convert("RGB") for name in names)
    return {
        name: np.asarray(item.resize((WIDTH, HEIGHT)))
        for name, item in zip(names, loaded, strict=True)
    }


@pytest.fixture(scope="module")
def mosaic(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Two rows of three pictures; seams of tiles of 512 pixels go through both cats."""
    rows = [("cat", "rocket", "astronaut"), ("astronaut", "cat", "rocket")]
    return np.concatenate([np.concatenate([pictures[n] for n in row], 1) for row in rows])


@pytest.fixture(scope="module")
def cats(pipe: Pipeline, mosaic: np.ndarray) -> Result:
    return pipe(mosaic, ["cat", "airplane"], tiles="auto")


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def in_place(mask: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    whole = np.zeros((2 * HEIGHT, 3 * WIDTH), bool)
    row, column = place
    whole[row * HEIGHT :, column * WIDTH :][:HEIGHT, :WIDTH] = mask
    return whole


def test_a_cat_across_seams_is_one_mask_as_alone(pipe, cats, pictures, mosaic) -> None:
    (alone,) = pipe(pictures["cat"], "cat", top_k=1).masks
    assert cats.labels[:2] == ["cat", "cat"]
    for place in CATS:
        expected = in_place(alone, place)
        assert max(iou(mask, expected) for mask in cats.masks[:2]) > 0.8
    assert cats.image_size == mosaic.shape[:2]
    np.testing.assert_array_equal(cats.image, mosaic)


def test_an_absent_phrase_is_empty_and_says_of_how_many_looks(cats) -> None:
    assert "airplane" not in cats.labels
    (reason,) = [item.reason for item in cats.rejected if item.label == "airplane"]
    assert reason.startswith("presence ")
    assert "(the closest of " in reason


def test_marks_choose_among_the_masks_of_the_whole(pipe, mosaic) -> None:
    x, y = 1.5 * WIDTH, 1.5 * HEIGHT
    result = pipe(mosaic, "cat", points=(x, y), tiles="auto")
    assert len(result) == 1
    assert result.masks[0][int(y), int(x)]
    with pytest.raises(InputError, match="outside"):
        pipe(mosaic, "cat", points=(9999, 5), tiles="auto")
    with pytest.raises(InputError, match="leave tiles out"):
        pipe(mosaic, points=(5, 5), tiles="auto")


def test_references_and_negatives_work_in_tiles(pipe, pictures, mosaic) -> None:
    mask = pipe(pictures["cat"], "cat", top_k=1).masks[0]
    reference = promptseg.Reference(pictures["cat"], mask, label="cat")
    wanted = [in_place(mask, place) for place in CATS]
    shown = pipe(mosaic, reference=reference, tiles="auto")
    assert shown.labels[0] == "cat"
    assert max(iou(shown.masks[0], one) for one in wanted) > 0.8
    against = pipe(mosaic, "cat", negative_text="cat", tiles="auto")
    assert len(against) == 0
    assert any("negative" in item.reason for item in against.rejected)


def test_everything_in_tiles_has_no_copies(pipe, mosaic) -> None:
    part = mosaic[:HEIGHT, : 2 * WIDTH]
    told: list[tuple[int, int]] = []
    result = pipe.everything(
        part,
        points_per_side=6,
        tiles=(HEIGHT, 500),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (3, 3)
    assert len(result) > 2
    masks = result.masks
    for i in range(len(masks)):
        for j in range(i):
            assert iou(masks[i], masks[j]) < 0.7


def test_a_small_picture_is_one_look(pipe, pictures) -> None:
    tiled = pipe(pictures["cat"], "cat", tiles="auto")
    alone = pipe(pictures["cat"], "cat")
    np.testing.assert_array_equal(tiled.masks, alone.masks)
    np.testing.assert_array_equal(tiled.scores, alone.scores)


def test_an_embedding_is_looked_at_through_its_image(pipe, pictures) -> None:
    embedding = pipe.encode_image(pictures["cat"])
    result = pipe(embedding, "cat", tiles=(512, 512))
    np.testing.assert_array_equal(result.masks, pipe(embedding, "cat").masks)


def test_a_raster_is_read_as_its_pixels_are(pipe, pictures, tmp_path) -> None:
    path = tmp_path / "scene.tif"
    Image.fromarray(pictures["cat"]).save(path)
    result = pipe(path, "cat", tiles="auto")
    assert result.image is None
    np.testing.assert_array_equal(result.masks, pipe(pictures["cat"], "cat").masks)
    same = pipe(Raster(path), "cat", tiles="auto")
    np.testing.assert_array_equal(same.masks, result.masks)
    with pytest.raises(InputError, match="tiles='auto'"):
        pipe(Raster(path), "cat")
    with pytest.raises(InputError, match="tiles='auto'"):
        pipe.everything(Raster(path))


def test_a_given_presence_is_used_as_it_is(pipe, pictures) -> None:
    side = np.concatenate([pictures["rocket"], pictures["rocket"]], 1)
    found = pipe(side, "cat", min_presence=0.0, tiles=(HEIGHT, WIDTH))
    own = pipe(side, "cat", tiles=(HEIGHT, WIDTH))
    assert [item.label for item in own.rejected] == ["cat"]
    assert not any("presence" in item.reason for item in found.rejected)
