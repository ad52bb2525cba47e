"""Closer looks: what is cut out, what is decoded there, and where its masks end up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from promptseg.models.embedding import ImageEmbedding
from promptseg.models.errors import InputError
from promptseg.pipeline.decoding.closer import (
    CloserConfig,
    CloserLooks,
    moved,
    placed,
    window_around,
)
from promptseg.pipeline.decoding.prompts import PromptSet
from promptseg.pipeline.proposals import Proposals

SIZE = (100, 200)


def boxes(*corners: tuple[float, ...]) -> PromptSet:
    return PromptSet(
        prompt_scores=np.ones(len(corners), np.float32),
        labels=tuple(f"box {i}" for i in range(len(corners))),
        boxes=np.array(corners, np.float32).reshape(-1, 4),
    )


class FakeSegmenter:
    """Encodes to the pixels themselves."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def encode_pixels(self, pixels: np.ndarray) -> ImageEmbedding:
        self.seen.append(pixels)
        return embed(pixels)


def embed(pixels: np.ndarray, *, keep: bool = True) -> ImageEmbedding:
    size = pixels.shape[:2]
    return ImageEmbedding(torch.zeros(1), size, size, image=pixels if keep else None)


def fill_boxes(embedding: ImageEmbedding, prompts: PromptSet) -> Proposals:
    masks = np.zeros((len(prompts), *embedding.original_size), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, prompts.boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    ones = np.ones(len(prompts))
    return Proposals.of(masks, prompts.labels, ones, ones, ones)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def test_small_boxes_are_decoded_from_their_surroundings(image) -> None:
    segmenter = FakeSegmenter()
    # 20 x 10 is 1% of the image; 50 x 40 is 10%.
    prompts = boxes((10, 20, 60, 60), (100, 40, 120, 50))
    config = CloserConfig(largest_box=0.015, reach=3, least_side=16)
    found = CloserLooks(segmenter, fill_boxes)(embed(image), prompts, config)
    (seen,) = segmenter.seen
    np.testing.assert_array_equal(seen, image[15:75, 80:140])  # 60 x 60 around (110, 45)
    masks = {label: mask.full() for label, mask in zip(found.labels, found.masks, strict=True)}
    for label, (x0, y0, x1, y1) in zip(prompts.labels, prompts.boxes.astype(int), strict=True):
        expected = np.zeros(SIZE, bool)
        expected[y0:y1, x0:x1] = True
        np.testing.assert_array_equal(masks[label], expected)


def test_closer_looks_are_bounded_and_go_to_the_smallest(image) -> None:
    segmenter = FakeSegmenter()
    prompts = boxes(*((10 * i, 5, 10 * i + 2 + i, 7 + i) for i in range(5)))
    config = CloserConfig(largest_box=1.0, least_side=1, reach=1, looks=2)
    found = CloserLooks(segmenter, fill_boxes)(embed(image), prompts, config)
    assert [seen.shape[:2] for seen in segmenter.seen] == [(2, 2), (3, 3)]
    assert sorted(found.labels) == sorted(prompts.labels)


def test_without_pixels_all_is_decoded_from_the_whole(image) -> None:
    look = CloserLooks(FakeSegmenter(), fill_boxes)
    found = look(embed(image, keep=False), boxes((0, 0, 3, 3)), CloserConfig())
    assert found.masks[0].box == (0, 0, 3, 3)


def test_windows_stay_in_the_image_and_are_not_too_small() -> None:
    config = CloserConfig(reach=2, least_side=20)
    assert window_around(np.array([0, 0, 4, 4]), SIZE, config) == (0, 0, 12, 12)
    assert window_around(np.array([150, 50, 190, 60]), SIZE, config) == (130, 15, 200, 95)


def test_points_beyond_a_window_are_dropped() -> None:
    prompts = PromptSet(
        prompt_scores=np.ones(1, np.float32),
        labels=("cup",),
        boxes=np.array([[30, 30, 40, 40]], np.float32),
        point_coords=np.array([[[35, 35], [90, 90], [49, 20]]], np.float32),
        point_labels=np.array([[1, 0, 0]]),
    )
    there = moved(prompts, (20, 20, 50, 50))
    assert there.boxes.tolist() == [[10, 10, 20, 20]]
    assert there.point_labels.tolist() == [[1, -1, 0]]
    assert there.point_coords[0, 0].tolist() == [15, 15]
    assert there.point_coords[0, 2].tolist() == [29, 0]


def test_an_empty_mask_is_placed_as_an_empty_mask() -> None:
    found = Proposals.of(np.zeros((1, 5, 5), bool), ["cup"], [0.1], [0.1], [1.0])
    (mask,) = placed(found, (10, 20, 15, 25), SIZE).masks
    assert mask.box == (0, 0, 0, 0)
    assert not mask.full().any()


class ClickDecoder:
    """Answers a click with a block around it, more surely where the image is smaller.

    Further clicks make it larger by one pixel each.
    """

    def __init__(self, sureness: dict[int, float], reach: int = 5) -> None:
        self.sureness, self.reach = sureness, reach
        self.asked: list[tuple[tuple[int, int], int]] = []

    def __call__(self, embedding: ImageEmbedding, prompts: PromptSet) -> Proposals:
        height, width = embedding.original_size
        count = int((prompts.point_labels[0] != -1).sum())
        self.asked.append(((height, width), count))
        x, y = prompts.point_coords[0, 0].astype(int)
        mask = np.zeros((1, height, width), bool)
        reach = self.reach + count - 1
        mask[0, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = True
        return Proposals.of(mask, ["point"], [self.sureness[width]], [1.0], [1.0])


def clicks(*places: tuple[int, int, int]) -> PromptSet:
    return PromptSet(
        prompt_scores=np.ones(1, np.float32),
        labels=("point",),
        point_coords=np.array([[place[:2] for place in places]], np.float32),
        point_labels=np.array([[place[2] for place in places]]),
    )


def expected_block(x: int, y: int, reach: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y - reach : y + reach + 1, x - reach : x + reach + 1] = True
    return mask


CLICK = CloserConfig(click_share=0.3, least_side=20, largest_mask=1.0)  # windows of 60 pixels


def test_a_click_is_answered_from_where_it_is_seen_better(image) -> None:
    segmenter = FakeSegmenter()
    embedding = embed(image)
    decode = ClickDecoder({200: 0.5, 60: 0.7})
    look = CloserLooks(segmenter, decode)
    found = look(embedding, clicks((100, 50, 1)), CLICK)
    np.testing.assert_array_equal(segmenter.seen[0], image[20:80, 70:130])
    np.testing.assert_array_equal(found.masks[0].full(), expected_block(100, 50, 5))
    assert found.iou_predictions.tolist() == pytest.approx([0.7])
    # Further clicks see the same window: it is not encoded again, nor the first click decoded.
    before = len(decode.asked)
    found = look(embedding, clicks((100, 50, 1), (110, 60, 1), (10, 10, 0)), CLICK)
    assert len(segmenter.seen) == 1
    assert len(decode.asked) == before + 1
    np.testing.assert_array_equal(found.masks[0].full(), expected_block(100, 50, 6))
    assert decode.asked[-1] == ((60, 60), 2)


def test_the_whole_image_stays_where_it_is_surer(image) -> None:
    decode = ClickDecoder({200: 0.8, 60: 0.7})
    look = CloserLooks(FakeSegmenter(), decode)
    found = look(embed(image), clicks((100, 50, 1)), CLICK)
    assert found.iou_predictions.tolist() == pytest.approx([0.8])
    look(embed(image), clicks((100, 50, 1), (120, 60, 1)), CLICK)
    assert decode.asked[-1] == ((100, 200), 2)


def test_another_click_or_setting_is_another_look(image) -> None:
    segmenter, embedding = FakeSegmenter(), embed(image)
    look = CloserLooks(segmenter, ClickDecoder({200: 0.5, 60: 0.7, 50: 0.7}))
    for x in (100, 101, 100):
        found = look(embedding, clicks((x, 50, 1)), CLICK)
        np.testing.assert_array_equal(found.masks[0].full(), expected_block(x, 50, 5))
    assert len(segmenter.seen) == 3
    look(embedding, clicks((100, 50, 1)), replace(CLICK, click_share=0.25))
    assert segmenter.seen[-1].shape == (50, 50, 3)


def test_what_is_large_needs_no_closer_look(image) -> None:
    decode = ClickDecoder({200: 0.5, 60: 0.9})  # 11 x 11 pixels of 100 x 200
    for largest, sureness in ((0.007, 0.9), (0.006, 0.5)):
        config = CloserConfig(click_share=0.3, least_side=20, largest_mask=largest)
        found = CloserLooks(FakeSegmenter(), decode)(embed(image), clicks((100, 50, 1)), config)
        assert found.iou_predictions.tolist() == pytest.approx([sureness])


def test_a_mask_that_the_window_cuts_off_is_no_answer(image) -> None:
    decode = ClickDecoder({200: 0.5, 60: 0.9}, reach=40)
    found = CloserLooks(FakeSegmenter(), decode)(embed(image), clicks((100, 50, 1)), CLICK)
    assert found.iou_predictions.tolist() == pytest.approx([0.5])
    # At the image's own border nothing is cut off.
    decode = ClickDecoder({200: 0.5, 31: 0.9}, reach=3)
    found = CloserLooks(FakeSegmenter(), decode)(embed(image), clicks((1, 1, 1)), CLICK)
    assert found.iou_predictions.tolist() == pytest.approx([0.9])


def test_foreground_clicks_beyond_the_window_need_the_whole_image(image) -> None:
    segmenter = FakeSegmenter()
    decode = ClickDecoder({200: 0.5, 60: 0.9})
    CloserLooks(segmenter, decode)(embed(image), clicks((100, 50, 1), (180, 50, 1)), CLICK)
    assert segmenter.seen == []
    assert decode.asked[-1] == ((100, 200), 2)


def test_a_window_as_large_as_the_image_is_no_closer_look(image) -> None:
    segmenter = FakeSegmenter()
    decode = ClickDecoder({200: 0.5})
    CloserLooks(segmenter, decode)(embed(image), clicks((100, 50, 1)), CloserConfig())
    assert segmenter.seen == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"largest_box": 2}, "largest_box must be between 0 and 1"),
        ({"reach": 0.5}, "reach must be 1 or more"),
        ({"looks": 0}, "looks must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message) -> None:
    with pytest.raises(InputError, match=message):
        CloserConfig(**changes)
