"""Calibrated scores, and masks taken apart, on worked examples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from promptseg.models.errors import InputError
from promptseg.pipeline.decoding.decode import DecodingConfig
from promptseg.pipeline.decoding.parts import components_apart, split_apart
from promptseg.pipeline.decoding.prompts import LowResMasks
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.scoring.calibration import ScoreCalibration
from promptseg.pipeline.scoring.fusion import FusionConfig, fuse
from promptseg.pipeline.scoring.ranking import RankingConfig, rank

HALVES = ScoreCalibration(iou_prediction=0.5, stability=0.0, prompt=1.0, bias=-1.0)


def proposals(**changes: object) -> Proposals:
    masks = np.zeros((2, 4, 6), bool)
    masks[0, :, :3] = masks[1, :, 3:] = True
    found = Proposals.of(masks, ["cup", "cup"], [0.9, 0.5], [1.0, 1.0], [0.2, 0.9])
    return replace(found, **changes)


def test_the_log_odds_of_the_scores_are_added() -> None:
    (score,) = HALVES([0.9], [0.1], [0.75])
    odds = 0.5 * math.log(0.9 / 0.1) + math.log(0.75 / 0.25) - 1
    assert score == pytest.approx(1 / (1 + math.exp(-odds)))


def test_scores_that_overshoot_stay_finite() -> None:
    scores = HALVES([1.2, -0.1], [1.0, 0.0], [1.0, 0.0])
    assert ((scores > 0) & (scores < 1)).all()


def test_calibrated_scores_order_the_masks() -> None:
    plain = rank(proposals(), RankingConfig())
    np.testing.assert_array_equal(plain.masks[0], proposals().masks[1].full())
    found = proposals(calibrated=np.array([0.7, 0.2], np.float32))
    ranked = rank(found, RankingConfig(min_score=0.3))
    assert ranked.scores.tolist() == pytest.approx([0.7])
    assert ranked.rejected[0].reason == "score 0.20 below min_score 0.30"
    by_formula = rank(found, RankingConfig(calibrated=False))
    np.testing.assert_array_equal(by_formula.scores, plain.scores)


def test_masks_without_a_calibrated_score_keep_the_formula() -> None:
    found = proposals(calibrated=np.array([0.7, 0.2], np.float32))
    joined = Proposals.join((4, 6), [found, proposals()])
    assert joined.calibrated is not None
    scores = rank(joined, RankingConfig(nms_iou=1.0)).scores
    formula = rank(proposals(), RankingConfig()).scores
    assert sorted(scores) == pytest.approx(sorted([0.7, 0.2, *formula]))
    assert Proposals.join((4, 6), [proposals()]).calibrated is None


def test_agreement_raises_a_calibrated_score() -> None:
    found = HALVES.applied(proposals())
    assert found.calibrated is not None
    both = fuse("cup", found, proposals(), (2.0, 1.0), FusionConfig())
    # Each of the example's masks is the phrase's, at prompt scores 0.2 and 0.9.
    expected = 1 - (1 - found.calibrated) * (1 - np.array([0.2, 0.9]))
    np.testing.assert_allclose(both.calibrated, expected, rtol=1e-6)


def test_calibrated_scores_must_fit_the_masks() -> None:
    with pytest.raises(InputError, match="2 masks need 2 calibrated scores"):
        proposals(calibrated=np.zeros(3, np.float32))


def columns(*taken: int) -> np.ndarray:
    mask = np.zeros((6, 24), bool)
    mask[1:5, list(taken)] = True
    return mask


def test_components_that_lie_apart_are_taken_apart() -> None:
    left, right = columns(*range(0, 8)), columns(*range(12, 18))
    parts = components_apart(left | right, 0.2)
    assert [part.tolist() for part in parts] == [left.tolist(), right.tolist()]
    # A crumb stays with what it lies next to.
    crumb = columns(20)
    parts = components_apart(left | right | crumb, 0.2)
    assert [part.tolist() for part in parts] == [left.tolist(), (right | crumb).tolist()]


@pytest.mark.parametrize("gap", [1, 2])
def test_components_a_step_apart_belong_together(gap) -> None:
    mask = columns(*range(0, 8), *range(8 + gap, 18))
    (whole,) = components_apart(mask, 0.2)
    np.testing.assert_array_equal(whole, mask)


def test_a_part_has_the_logits_of_the_whole_and_no_other_part() -> None:
    left, right = columns(*range(0, 8)), columns(*range(12, 18))
    logits = np.where(left, 3.0, np.where(right, 2.0, -1.0)).astype(np.float32)
    single = np.where(left, 4.0, -4.0).astype(np.float32)
    masks = LowResMasks(np.stack([logits, single])[:, None], np.array([[0.8], [0.6]], np.float32))
    found, origins = split_apart(masks, 0.0, 0.2)
    assert origins == [0, 0, 1]
    assert found.iou_predictions[:, 0].tolist() == pytest.approx([0.8, 0.8, 0.6])
    np.testing.assert_array_equal(found.logits[0, 0], np.where(right, -2.0, logits))
    np.testing.assert_array_equal(found.logits[1, 0], np.where(left, -3.0, logits))
    np.testing.assert_array_equal(found.logits[2, 0], single)


def test_an_empty_mask_stays_one_empty_mask() -> None:
    masks = LowResMasks(np.full((1, 1, 6, 24), -1, np.float32), np.zeros((1, 1), np.float32))
    found, origins = split_apart(masks, 0.0, 0.2)
    assert origins == [0]
    np.testing.assert_array_equal(found.logits, masks.logits)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_is_a_share(share) -> None:
    with pytest.raises(InputError, match="part_share must be above 0 and at most 1"):
        DecodingConfig(part_share=share)
