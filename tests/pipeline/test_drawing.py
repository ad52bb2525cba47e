from __future__ import annotations

import numpy as np
import pytest

from promptseg.pipeline.compact_mask import CompactMask
from promptseg.pipeline.drawing import (
    MASK_OPACITY,
    PALETTE,
    _tint,
    draw_overlay,
    import_supervision,
    overlay_factor,
)
from promptseg.pipeline.masks import masks_to_boxes
from promptseg.pipeline.result import Result


def result_of(masks: np.ndarray, labels: list[str]) -> Result:
    scores = np.linspace(0.9, 0.1, len(masks))
    return Result.of(
        masks=masks,
        labels=labels,
        scores=scores,
        iou_predictions=scores,
        stability_scores=scores,
        prompt_scores=scores,
    )


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def test_tint_outline_and_untouched_background() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    mask = np.zeros((1, 200, 300), bool)
    mask[0, 100:160, 100:200] = True
    drawn = draw_overlay(image, result_of(mask, ["cat"]))
    assert (image == 100).all()  # the input is not drawn on
    expected = (1 - MASK_OPACITY) * 100 + MASK_OPACITY * rgb(PALETTE[0])
    np.testing.assert_allclose(drawn[130, 150], expected, atol=1.01)
    np.testing.assert_array_equal(drawn[130, 100], rgb(PALETTE[0]))  # the outline
    np.testing.assert_array_equal(drawn[159, 150], rgb(PALETTE[0]))
    assert (drawn[160:] == 100).all()
    assert (drawn[:, 200:] == 100).all()
    label = drawn[70:100, 100:200]
    assert (label == rgb(PALETTE[0])).all(axis=-1).any()
    assert label.max(axis=-1).min() < 60  # black letters on a light colour


def test_each_mask_has_its_own_colour() -> None:
    image = np.zeros((120, 240, 3), np.uint8)
    masks = np.zeros((3, 120, 240), bool)
    for i in range(3):
        masks[i, 60:110, 80 * i + 5 : 80 * i + 70] = True
    drawn = draw_overlay(image, result_of(masks, ["cat", "cat", "dog"]))
    for i in range(3):
        np.testing.assert_allclose(
            drawn[85, 80 * i + 35], MASK_OPACITY * rgb(PALETTE[i]), atol=1.01
        )


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (16, 16), (40, 60), (700, 900)])
@pytest.mark.parametrize(
    "label",
    ["cat", "猫", "\0\n", "", "x" * 10_000],
    ids=["latin", "chinese", "control", "empty", "long"],
)
def test_any_size_and_label_can_be_drawn(size: tuple[int, int], label: str) -> None:
    image = np.full((*size, 3), 100, np.uint8)
    masks = np.ones((2, *size), bool)
    masks[1, size[0] // 2 :] = False
    drawn = draw_overlay(image, result_of(masks, [label, label]))
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (drawn != image).any()


def test_labels_grow_with_the_picture() -> None:
    heights = []
    for height in (240, 2400):
        image = np.full((height, height, 3), 100, np.uint8)
        mask = np.zeros((1, height, height), bool)
        mask[0, height // 2 :] = True
        drawn = draw_overlay(image, result_of(mask, ["cat"]))
        rows = (drawn[: height // 2] != 100).any(axis=(1, 2))
        heights.append(rows.sum() / height)
    assert 0.04 < heights[1] < 0.12
    assert heights[0] == pytest.approx(heights[1], abs=0.03)


def luminance(colors: np.ndarray) -> np.ndarray:
    """WCAG 2.1's relative luminance of (..., 3) sRGB colours."""
    channels = colors / 255
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize(
    "background", ["#FFFFFF", "#808080", "#484848", "#404040", "#303030", "#000000", *PALETTE]
)
def test_an_outline_is_seen_on_any_background(background: str) -> None:
    """Along the edge of each mask some pixel contrasts by 1.8:1, also on the mask's own colour."""
    image = np.tile(rgb(background).astype(np.uint8), (60, 60 * len(PALETTE), 1))
    masks = np.zeros((len(PALETTE), *image.shape[:2]), bool)
    for i in range(len(PALETTE)):
        masks[i, 25:55, 60 * i + 10 : 60 * i + 50] = True
    drawn = luminance(draw_overlay(image, result_of(masks, [""] * len(PALETTE)))) + 0.05
    ground = float(luminance(rgb(background))) + 0.05
    for i in range(len(PALETTE)):
        edge = drawn[40, 60 * i + 10 : 60 * i + 14]
        assert np.maximum(edge / ground, ground / edge).max() >= 1.8


def test_outlines_keep_to_their_masks_and_leave_thin_ones_their_colour() -> None:
    image = np.full((300, 300, 3), 100, np.uint8)
    masks = np.zeros((2, 300, 300), bool)
    masks[0, 150:152, 20:220] = True
    masks[1, 200:260, 20:220] = True
    drawn = draw_overlay(image, result_of(masks, ["", ""]))
    changed = (drawn != 100).any(-1)
    for rows in (slice(150, 180), slice(200, 300)):  # below each label
        np.testing.assert_array_equal(changed[rows], masks.any(0)[rows])
    assert (drawn[150:152, 20:220] == rgb(PALETTE[0])).all()


@pytest.mark.parametrize("size", [(32, 32), (300, 400), (3000, 4000)])
def test_labels_lie_whole_within_the_picture(size: tuple[int, int]) -> None:
    """Masks in the corners: each label is a rectangle with a rim of its colour."""
    height, width = size
    image = np.full((height, width, 3), 100, np.uint8)
    for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        masks = np.zeros((1, height, width), bool)
        masks[0, y, x] = True
        drawn = draw_overlay(image, result_of(masks, ["dog"]))
        rows, columns = ((drawn != 100).any(-1).any(axis) for axis in (1, 0))
        top, bottom = np.flatnonzero(rows)[[0, -1]]
        left, right = np.flatnonzero(columns)[[0, -1]]
        label = drawn[top : bottom + 1, left : right + 1]
        color = (label == rgb(PALETTE[0])).all(-1)
        # The mask of one pixel may lie below its label, in a row or column of its own.
        assert color[0].all()
        assert color[:-2, 0].all()
        assert color[:-2, -1].all()
        assert 0.05 < (label.max(-1) < 100).mean() < 0.5  # black letters


def test_in_a_crowd_labels_are_no_wider_than_their_masks() -> None:
    image = np.full((300, 400, 3), 100, np.uint8)
    masks = np.zeros((25, 300, 400), bool)
    for i in range(25):
        masks[i, 58 * (i // 5) + 18 : 58 * (i // 5) + 56, 80 * (i % 5) + 5 : 80 * (i % 5) + 65] = 1
    for many, narrow in ((2, False), (25, True)):
        drawn = draw_overlay(image, result_of(masks[:many], ["a busy thing"] * many))
        beside = (drawn[:18, 65:85] != 100).any()
        assert bool(beside) is not narrow


def test_nothing_to_draw_gives_a_copy() -> None:
    image = np.full((4, 5, 3), 100, np.uint8)
    drawn = draw_overlay(image, Result.empty((4, 5)))
    np.testing.assert_array_equal(drawn, image)
    assert drawn is not image


def test_labels_do_not_cover_each_other() -> None:
    """Masks of one corner: their labels are put below each other, each whole."""
    image = np.full((240, 320, 3), 100, np.uint8)
    masks = np.zeros((4, 240, 320), bool)
    for i in range(4):
        masks[i, 60 : 200 - 10 * i, 40 : 200 - 10 * i] = True
    drawn = draw_overlay(image, result_of(masks, ["cat"] * 4))
    for i in range(4):
        rows = (drawn[:, 42:84] == rgb(PALETTE[i])).all(-1).any(1)
        assert 12 < rows.sum() < 18  # a label, and at most two lines of outlines


def test_a_small_mask_is_seen_on_a_large_one() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    masks = np.zeros((2, 100, 100), bool)
    masks[1] = True
    masks[0, 40:80, 40:80] = True
    for order, color in (([0, 1], PALETTE[0]), ([1, 0], PALETTE[1])):
        drawn = draw_overlay(image, result_of(masks[order], ["cat", "cat"]))
        np.testing.assert_allclose(drawn[60, 60], MASK_OPACITY * rgb(color), atol=1.01)


def test_a_large_picture_is_reduced_with_its_masks() -> None:
    image = np.full((301, 400, 3), 100, np.uint8)
    image[:, 200:] = 50
    masks = np.zeros((2, 301, 400), bool)
    masks[0, 100:200, 40:160] = True
    masks[1, 150:151, 300:301] = True  # between the pixels that are kept
    result = result_of(masks, ["cat", "dust"])
    drawn = draw_overlay(image, result, factor=3)
    assert drawn.shape == (101, 134, 3)
    expected = (1 - MASK_OPACITY) * 100 + MASK_OPACITY * rgb(PALETTE[0])
    np.testing.assert_allclose(drawn[50, 30], expected, atol=1.01)
    assert (drawn[70:, :60] == 100).all()
    assert (drawn[70:, 70:] == 50).all()


@pytest.mark.parametrize(
    ("size", "factor"),
    [((9000, 12000), 3), ((6000, 8000), 2), ((4000, 6000), 1), ((1, 1), 1), ((10**5, 1000), 3)],
)
def test_only_overlays_that_no_screen_can_show_are_reduced(
    size: tuple[int, int], factor: int
) -> None:
    assert overlay_factor(size) == factor


def test_where_masks_overlap_the_smallest_has_its_colour() -> None:
    """As supervision's MaskAnnotator tints them, which rounds otherwise where there is OpenCV."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    masks = np.zeros((4, 60, 80), bool)
    for mask in masks:
        y, x = rng.integers(0, 30, 2)
        mask[y : y + rng.integers(5, 30), x : x + rng.integers(5, 50)] = True
    sv = import_supervision()
    colors = sv.ColorPalette.from_hex(list(PALETTE))
    annotator = sv.MaskAnnotator(colors, MASK_OPACITY, sv.ColorLookup.INDEX)
    detections = sv.Detections(xyxy=masks_to_boxes(masks), mask=masks)
    expected = annotator.annotate(image[:, :, ::-1].copy(), detections)[:, :, ::-1]
    canvas = image.copy()
    rgb_colors = [np.array(colors.by_idx(i).as_rgb(), np.uint8) for i in range(len(masks))]
    _tint(canvas, [CompactMask.of(mask) for mask in masks], rgb_colors)
    np.testing.assert_allclose(canvas.astype(int), expected.astype(int), rtol=0, atol=1)
