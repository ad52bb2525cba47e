"""Heat maps made by hand, and the prompts that they become."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from promptseg.models.grounding.answers import HeatMap
from promptseg.pipeline.decoding.segmenter import Segmenter
from promptseg.pipeline.prompters.heat_prompts import (
    HeatPromptConfig,
    HeatPrompts,
    hot_regions,
    region_prior,
)
from promptseg.pipeline.prompters.text.gate import PresenceGate
from promptseg.pipeline.prompters.text.prompter import Grounder, TextPrompter

CONFIG = HeatPromptConfig(level=0.5, peak_share=0.75, min_peak=0.6, min_region=0.02, max_prompts=3)
GRID = (10, 20)


def prompter_of(
    grounder: Grounder[HeatMap], segmenter: Segmenter, config: HeatPromptConfig = CONFIG
) -> TextPrompter[HeatMap]:
    return TextPrompter(grounder, HeatPrompts(segmenter, config), PresenceGate(0.2))


def heat_of(*boxes: tuple[int, int, int, int, float], ground: float = 0.0) -> np.ndarray:
    """Heat (10, 20) of boxes XYXY in cells, each with its heat."""
    heat = np.full(GRID, ground, np.float32)
    for x0, y0, x1, y1, value in boxes:
        heat[y0:y1, x0:x1] = value
    return heat


def extent(region) -> tuple[int, int, int, int]:
    rows, columns = ndimage.find_objects(region.mask.astype(int))[0]
    assert region.mask[rows, columns].all()
    return columns.start, rows.start, columns.stop, rows.stop


def test_one_object_is_what_reaches_the_level() -> None:
    heat = heat_of((4, 2, 9, 6, 0.5), (3, 1, 10, 2, 0.49), ground=0.1)
    heat[3, 6] = 0.9
    (region,) = hot_regions(heat, CONFIG)
    assert extent(region) == (4, 2, 9, 6)
    assert (region.row, region.column) == (3, 6)
    assert region.peak == pytest.approx(0.9)
    # The level does not rise with the peak.
    (region,) = hot_regions(heat, replace(CONFIG, level=0.3))
    assert region.mask.sum() == 5 * 4 + 7


def test_of_a_faint_map_the_object_is_what_reaches_a_share_of_the_peak() -> None:
    heat = heat_of((4, 2, 9, 6, 0.31), (3, 1, 10, 2, 0.29), ground=0.1)
    heat[3, 6] = 0.4  # of which 0.3 is the share
    (region,) = hot_regions(heat, CONFIG)
    assert extent(region) == (4, 2, 9, 6)
    assert region.peak == pytest.approx(0.4)


def test_two_objects_come_highest_first() -> None:
    heat = heat_of((1, 1, 4, 5, 0.7), (12, 3, 17, 8, 0.9))
    first, second = hot_regions(heat, CONFIG)
    assert extent(first) == (12, 3, 17, 8)
    assert extent(second) == (1, 1, 4, 5)
    assert (first.peak, second.peak) == (pytest.approx(0.9), pytest.approx(0.7))


def test_cells_that_touch_at_a_corner_are_apart() -> None:
    assert len(hot_regions(heat_of((1, 1, 4, 4, 0.9), (4, 4, 7, 7, 0.9)), CONFIG)) == 2


def test_a_further_region_must_be_hot_and_large_enough() -> None:
    main = (12, 3, 17, 8, 0.9)
    cold = (1, 1, 5, 5, 0.52)  # above the level, below 0.6 x 0.9
    tiny = (1, 1, 4, 2, 0.8)  # 3 of 200 cells
    enough = (1, 1, 5, 2, 0.8)  # 4 of 200 cells
    assert len(hot_regions(heat_of(main, cold), CONFIG)) == 1
    assert len(hot_regions(heat_of(main, tiny), CONFIG)) == 1
    assert len(hot_regions(heat_of(main, enough), CONFIG)) == 2


def test_the_peaks_own_region_may_be_tiny() -> None:
    heat = heat_of((1, 1, 2, 2, 0.9), (10, 2, 16, 8, 0.6))
    first, second = hot_regions(heat, CONFIG)
    assert extent(first) == (1, 1, 2, 2)
    assert extent(second) == (10, 2, 16, 8)


def test_no_more_regions_than_asked_for() -> None:
    heat = heat_of(*((x, 2, x + 2, 6, 0.9 - x / 100) for x in (1, 5, 9, 13, 17)))
    regions = hot_regions(heat, CONFIG)
    assert [extent(region)[0] for region in regions] == [1, 5, 9]


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_flat_map_is_one_region(value: float) -> None:
    (region,) = hot_regions(heat_of(ground=value), CONFIG)
    assert region.mask.all()
    assert region.peak == pytest.approx(value)


def test_prior_is_the_heat_in_logits_and_cold_on_the_other_regions() -> None:
    heat = heat_of((1, 1, 4, 5, 0.7), (12, 3, 17, 8, 0.9), ground=0.1)
    heat[2, 2] = 0.6
    heat[9, 19] = 0.02
    first, second = hot_regions(heat, CONFIG)
    hot = first.mask | second.mask
    prior = region_prior(heat, second, hot)
    assert prior.shape == GRID
    assert prior.dtype == np.float32
    expected = np.log(heat / (1 - heat))
    expected[3:8, 12:17] = np.log(0.02 / 0.98)  # as the coldest cell of all
    np.testing.assert_allclose(prior, expected, atol=1e-5)
    other = region_prior(heat, first, hot)
    np.testing.assert_allclose(other[3:8, 12:17], np.log(9), atol=1e-5)
    np.testing.assert_allclose(other[1:5, 1:4], np.log(0.02 / 0.98), atol=1e-5)
    np.testing.assert_allclose(other[~hot], prior[~hot])


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_prior_of_certain_heat_is_finite(value: float) -> None:
    heat = heat_of(ground=value)
    (region,) = hot_regions(heat, CONFIG)
    prior = region_prior(heat, region, region.mask)
    assert ((prior > 5) == (value > 0.5)).all()
    assert (np.abs(prior) < 12).all()
    assert np.ptp(prior) == 0


@pytest.fixture
def embedding(tiny_segmenter):
    """Of a picture of 100 x 50 pixels: a cell of the heat map spans 5 x 5."""
    return tiny_segmenter.encode_image(np.zeros((50, 100, 3), np.uint8))


def test_prompts_are_in_pixels_of_the_image(tiny_segmenter, embedding, make_grounder) -> None:
    heat = heat_of((4, 2, 9, 6, 0.6))
    heat[3, 6] = 0.8
    prompter = prompter_of(make_grounder({"cat": heat}), tiny_segmenter)
    (prompts,), rejected = prompter(embedding, ["cat"])
    assert rejected == ()
    assert prompts.labels == ("cat",)
    np.testing.assert_allclose(prompts.boxes, [[20, 10, 45, 30]])
    np.testing.assert_allclose(prompts.point_coords, [[[32, 17]]])
    np.testing.assert_array_equal(prompts.point_labels, [[1]])
    np.testing.assert_allclose(prompts.prompt_scores, [0.8])
    assert prompts.mask_input is not None
    assert prompts.mask_input.shape == (1, 1, 24, 24)
    # 100 x 50 pixels fill 24 x 12 cells of the mask input; its border is repeated below them.
    assert np.unravel_index(prompts.mask_input[0, 0].argmax(), (24, 24)) == (4, 7)
    np.testing.assert_array_equal(
        prompts.mask_input[0, 0, 12:], np.broadcast_to(prompts.mask_input[0, 0, 11], (12, 24))
    )


def test_each_prompt_gives_its_own_region_as_mask(tiny_segmenter, embedding, make_grounder) -> None:
    # A third region, too tiny for a prompt of its own, stays in both priors.
    heat = heat_of((1, 1, 4, 5, 0.7), (12, 3, 17, 8, 0.9), (8, 8, 10, 9, 0.8), ground=0.1)
    prompter = prompter_of(make_grounder({"two": heat}), tiny_segmenter)
    (prompts,), _ = prompter(embedding, ["two"])
    regions = hot_regions(heat, CONFIG)
    hot = regions[0].mask | regions[1].mask
    assert prompts.mask_input.shape == (2, 1, 24, 24)
    priors = np.stack([region_prior(heat, region, hot) for region in regions])
    expected = tiny_segmenter.to_mask_input(priors, embedding)
    np.testing.assert_array_equal(prompts.mask_input, expected)
    # Cells are of 5 x 5 pixels, those of the mask input of about 4 x 4.
    high, low, tiny = (6, 17), (3, 2), (10, 10)
    by_prompt = [
        [prior[0][place] > 0 for place in (high, low, tiny)] for prior in prompts.mask_input
    ]
    assert by_prompt == [[True, False, True], [False, True, True]]


def test_presence_is_the_groundings_own(tiny_segmenter, embedding, make_grounder) -> None:
    grounder = make_grounder({"cat": heat_of((4, 2, 9, 6, 0.6)), "dog": heat_of(ground=0.3)})
    prompter = prompter_of(grounder, tiny_segmenter)
    found = prompter.presence(embedding, ["dog", "zebra", "cat"])
    np.testing.assert_allclose(found, [0.3, 0.01, 0.6])
    assert grounder.asked == [("dog", "zebra", "cat")]


def test_scores_are_presence_times_the_regions_share_of_the_peak(tiny_segmenter, embedding) -> None:
    heat = heat_of((1, 1, 4, 5, 0.6), (12, 3, 17, 8, 0.8))

    def grounder(_: object, phrases: list[str]) -> list[HeatMap]:
        return [HeatMap(phrase, heat, 0.4) for phrase in phrases]

    (prompts,), _ = prompter_of(grounder, tiny_segmenter)(embedding, ["cat"])
    np.testing.assert_allclose(prompts.prompt_scores, [0.4, 0.3], rtol=1e-6)


def test_an_absent_phrase_is_rejected_with_the_reason(
    tiny_segmenter, embedding, make_grounder
) -> None:
    heats = {
        "two": heat_of((1, 1, 4, 5, 0.7), (12, 3, 17, 8, 0.9)),
        "just": heat_of((1, 1, 4, 5, 0.2)),
        "hardly": heat_of((1, 1, 4, 5, 0.19)),
    }
    prompter = prompter_of(make_grounder(heats), tiny_segmenter)
    (prompts,), rejected = prompter(embedding, ["hardly", "two", "zebra", "just"])
    assert prompts.labels == ("two", "two", "just")
    np.testing.assert_allclose(prompts.prompt_scores, [0.9, 0.7, 0.2])
    assert [item.label for item in rejected] == ["hardly", "zebra"]
    assert "presence 0.19 below 0.20" in rejected[0].reason
    assert rejected[0].prompt_score == pytest.approx(0.19)
    assert "presence 0.01 below 0.20" in rejected[1].reason
    assert rejected[0].mask is rejected[0].box_xyxy is rejected[0].score is None


def test_scores_never_exceed_one(tiny_segmenter, embedding, make_grounder) -> None:
    prompter = prompter_of(make_grounder({"cat": heat_of((4, 2, 9, 6, 1.00001))}), tiny_segmenter)
    (prompts,), _ = prompter(embedding, ["cat"])
    assert prompts.prompt_scores.tolist() == [1.0]


def test_a_point_lies_in_the_middle_of_an_even_region_once_smoothed() -> None:
    heat = np.zeros((20, 30), np.float32)
    heat[4:13, 6:21] = 0.9
    heat[4, 6] = 0.95  # a corner a little hotter than the rest
    (sharp,) = hot_regions(heat, HeatPromptConfig())
    (smooth,) = hot_regions(heat, HeatPromptConfig(smooth=3.0))
    assert (sharp.row, sharp.column) == (4, 6)
    assert (smooth.row, smooth.column) == (8, 13)
    assert sharp.peak == smooth.peak == np.float32(0.95)
    np.testing.assert_array_equal(sharp.mask, smooth.mask)
