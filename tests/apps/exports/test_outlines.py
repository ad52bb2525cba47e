"""Polygons of masks, drawn again by the readers of COCO, YOLO and labelme files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from scipy import ndimage

from promptseg.apps.exports.outlines import edge_polygons, joined_polygon, pixel_polygons
from promptseg.pipeline.compact_mask import CompactMask
from promptseg.pipeline.drawing import import_supervision

polygon_to_mask = import_supervision().polygon_to_mask

small_masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def by_pycocotools(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    if not polygons:
        return np.zeros(size, bool)
    shapes = coco_mask.frPyObjects([polygon.ravel().tolist() for polygon in polygons], *size)
    return coco_mask.decode(coco_mask.merge(shapes)).astype(bool)


def by_fill_poly(polygons: list[np.ndarray], size: tuple[int, int], rounded: bool) -> np.ndarray:
    """Draw as cv2.fillPoly does, from vertices rounded (supervision) or cut (ultralytics)."""
    mask = np.zeros(size, bool)
    for polygon in polygons:
        whole = (np.round(polygon) if rounded else np.trunc(polygon)).astype(np.int32)
        mask |= polygon_to_mask(whole, (size[1], size[0])).astype(bool)
    return mask


def by_pillow(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Draw as labelme does."""
    mask = np.zeros(size, bool)
    for polygon in polygons:
        canvas = Image.new("L", (size[1], size[0]))
        points = [tuple(point) for point in polygon.tolist()]
        ImageDraw.Draw(canvas).polygon(xy=points, outline=1, fill=1)
        mask |= np.asarray(canvas).astype(bool)
    return mask


def check(mask: np.ndarray) -> None:
    parts = ndimage.label(mask)[1]
    packed = CompactMask.of(mask)
    edges, pixels = edge_polygons(packed), pixel_polygons(packed)
    assert len(edges) == len(pixels) == parts
    np.testing.assert_array_equal(by_pycocotools(edges, mask.shape), mask)
    np.testing.assert_array_equal(by_fill_poly(pixels, mask.shape, rounded=True), mask)
    np.testing.assert_array_equal(by_fill_poly(pixels, mask.shape, rounded=False), mask)
    np.testing.assert_array_equal(by_pillow(pixels, mask.shape), mask)

    joined = joined_polygon(CompactMask.of(mask))
    assert joined.parts == parts
    if joined.polygon is None:
        assert parts == 0
        return
    drawn = by_fill_poly([joined.polygon], mask.shape, rounded=True)
    np.testing.assert_array_equal(by_fill_poly([joined.polygon], mask.shape, rounded=False), drawn)
    assert (mask & ~drawn).sum() <= joined.lost
    assert (drawn & ~mask).sum() <= joined.added
    if parts == 1:
        assert joined.added == joined.lost == 0


@settings(max_examples=150, deadline=None)
@given(small_masks)
def test_polygons_of_any_mask_fill_to_its_pixels(mask: np.ndarray) -> None:
    check(mask)


def picture(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


@pytest.mark.parametrize(
    "mask",
    [
        picture("."),
        picture("#"),
        picture("...", ".#.", "..."),
        picture("#####"),
        picture("#", "#", "#"),
        picture("#.#.##"),
        picture("#..", ".#.", "..#"),
        picture("####", "#..#", "####"),
        picture("#####", "#.#.#", "##.##", "#.#.#", "#####"),
        picture("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"),
        picture("########", "#.##.#.#", "#.#.##.#", "########"),
        picture("..#..", "..#..", "#####", "..#..", "..#.."),
        picture("#####", "#####"),
    ],
)
def test_polygons_of_odd_masks(mask: np.ndarray) -> None:
    check(mask)


def test_polygons_of_a_blob_with_holes_and_islands() -> None:
    noise = np.random.default_rng(3).standard_normal((90, 120))
    check(ndimage.gaussian_filter(noise, 2) > 0.02)


def test_vertices_are_where_readers_expect_them() -> None:
    mask = picture("....", ".##.", "....")
    (edges,) = edge_polygons(CompactMask.of(mask))
    assert sorted(map(tuple, edges.tolist())) == [(1, 1), (1, 2), (3, 1), (3, 2)]
    (pixels,) = pixel_polygons(CompactMask.of(mask))
    assert sorted(map(tuple, np.trunc(pixels).tolist())) == [(1, 1), (1, 1), (2, 1), (2, 1)]
    # Not all in one point or line: readers drop what has no area.
    assert (np.ptp(pixels, axis=0) > 0).all()


@pytest.mark.parametrize(
    ("mask", "added", "lost"),
    [
        (picture("##......##", "##......##", "##......##", "..........", "##........"), 6 + 1, 0),
        (picture("##..", "##..", "..##", "..##"), 0, 0),
        (picture("#.#"), 1, 0),
        (picture("####...#", "####....", "####...."), 0, 1),
        # The speck is worth its line with what is behind it.
        (picture("####..#..###", "####.....###", "####.....###"), 4, 0),
        (picture("#.......#......#"), 0, 2),
    ],
)
def test_parts_are_joined_where_it_costs_least(mask: np.ndarray, added: int, lost: int) -> None:
    joined = joined_polygon(CompactMask.of(mask))
    assert (joined.added, joined.lost) == (added, lost)
    assert joined.polygon is not None
    drawn = by_fill_poly([joined.polygon], mask.shape, rounded=True)
    assert (drawn & ~mask).sum() == added
    assert (mask & ~drawn).sum() == lost


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_leaving_a_part_out_is_never_better_than_the_choice(mask: np.ndarray) -> None:
    joined = joined_polygon(CompactMask.of(mask))
    if joined.polygon is None:
        return
    parts, _ = ndimage.label(mask)
    largest = np.bincount(parts.ravel())[1:].max()
    assert joined.added + joined.lost <= mask.sum() - largest
