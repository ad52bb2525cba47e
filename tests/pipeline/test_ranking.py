from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from promptseg.models.errors import InputError
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.result import RejectedMask, Result
from promptseg.pipeline.scoring.ranking import RankingConfig, combined_score, rank

SIZE = (20, 30)


def box_mask(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def rank_equal(
    masks: list[np.ndarray], scores: list[float], labels: list[str] | None = None, **options
) -> Result:
    """Rank masks whose combined score is the given one."""
    ones = np.ones(len(masks))
    negative_masks = options.pop("negative_masks", None)
    negative_labels = options.pop("negative_labels", ())
    negative_scores = options.pop("negative_scores", [1.0] * len(negative_labels))
    negatives = None
    if negative_masks is not None:
        witnesses = np.ones((2, len(negative_masks)))
        negatives = Proposals.of(negative_masks, negative_labels, *witnesses, negative_scores)
    proposals = Proposals.of(
        np.array(masks).reshape(-1, *SIZE).astype(bool),
        labels or ["cat"] * len(masks),
        scores,
        ones,
        ones,
        negatives=negatives,
    )
    return rank(proposals, RankingConfig(**options))


def test_combined_score_is_the_documented_formula() -> None:
    # 0.8 * sqrt(0.81) * sqrt(0.25) = 0.8 * 0.9 * 0.5; an overshooting IoU token counts as 1.
    scores = combined_score([0.8, 1.3, -0.2, 0.9], [0.81, 1.0, 1.0, 0.0], [0.25, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(scores, [0.36, 1.0, 0.0, 0.0], rtol=1e-6)
    assert scores.dtype == np.float32
    only_iou = combined_score([0.5], [0.1], [0.1], stability_weight=0.0, prompt_weight=0.0)
    np.testing.assert_allclose(only_iou, [0.5])


@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(0, 1)), st.integers(0, 2))
def test_combined_score_stays_in_range_and_never_falls_with_a_witness(
    witnesses: np.ndarray, which: int
) -> None:
    before = combined_score(*witnesses)
    assert ((before >= 0) & (before <= 1)).all()
    raised = witnesses.copy()
    raised[which] = np.minimum(raised[which] + 0.1, 1.0)
    assert (combined_score(*raised) >= before).all()


def test_masks_come_best_first_with_all_their_fields() -> None:
    masks = np.array([box_mask(0, 0, 4, 4), box_mask(10, 0, 14, 4), box_mask(20, 0, 24, 4)])
    found = Proposals.of(
        masks, ["a", "b", "c"], [0.2, 0.9, 0.6], [1.0, 0.25, 1.0], [1.0, 1.0, 0.49]
    )
    result = rank(found, RankingConfig())
    assert result.labels == ["b", "c", "a"]
    np.testing.assert_allclose(result.scores, [0.45, 0.42, 0.2], rtol=1e-6)
    np.testing.assert_allclose(result.iou_predictions, [0.9, 0.6, 0.2])
    np.testing.assert_allclose(result.stability_scores, [0.25, 1.0, 1.0])
    np.testing.assert_allclose(result.prompt_scores, [1.0, 0.49, 1.0])
    np.testing.assert_array_equal(result.masks, masks[[1, 2, 0]])
    np.testing.assert_array_equal(result.boxes_xyxy[0], [10, 0, 14, 4])
    assert result.rejected == ()


def test_equal_scores_keep_their_order() -> None:
    masks = [box_mask(4 * i, 0, 4 * i + 3, 3) for i in range(6)]
    result = rank_equal(masks, [0.5] * 6)
    assert result.boxes_xyxy[:, 0].tolist() == [0, 4, 8, 12, 16, 20]


def test_nms_drops_the_worse_of_two_that_overlap() -> None:
    # 10 x 10 and the same moved by one column: IoU 90 / 110 = 0.82.
    masks = [box_mask(0, 0, 10, 10), box_mask(1, 0, 11, 10), box_mask(20, 0, 30, 10)]
    result = rank_equal(masks, [0.5, 0.9, 0.7])
    assert result.scores.tolist() == pytest.approx([0.9, 0.7])
    (dropped,) = result.rejected
    assert dropped.reason == "overlaps a better mask of 'cat' (IoU 0.82)"
    assert dropped.score == pytest.approx(0.5)
    assert dropped.box_xyxy == (0, 0, 10, 10)
    np.testing.assert_array_equal(dropped.mask, masks[0])


def test_nms_is_greedy_a_dropped_mask_suppresses_nothing() -> None:
    # Each overlaps its neighbour by IoU 0.82, the outer two by 80 / 120 = 0.67 only.
    masks = [box_mask(0, 0, 10, 10), box_mask(1, 0, 11, 10), box_mask(2, 0, 12, 10)]
    result = rank_equal(masks, [0.9, 0.8, 0.7])
    assert result.boxes_xyxy[:, 0].tolist() == [0, 2]


def test_nms_stays_within_a_label() -> None:
    masks = [box_mask(0, 0, 10, 10)] * 2
    assert rank_equal(masks, [0.9, 0.8], ["cat", "pet"]).labels == ["cat", "pet"]


def test_nms_across_labels_if_asked() -> None:
    masks = [box_mask(0, 0, 10, 10), box_mask(0, 0, 10, 10), box_mask(20, 0, 29, 9)]
    result = rank_equal(masks, [0.8, 0.9, 0.7], ["cat", "pet", "cat"], nms_across_labels=True)
    assert result.labels == ["pet", "cat"]
    assert [(item.label, item.reason) for item in result.rejected] == [
        ("cat", "overlaps a better mask of 'pet' (IoU 1.00)")
    ]


def test_without_overlap_each_pixel_goes_to_the_best_mask() -> None:
    masks = [box_mask(0, 0, 10, 10), box_mask(5, 0, 15, 10), box_mask(2, 2, 8, 8)]
    result = rank_equal(masks, [0.8, 0.9, 0.7], ["a", "b", "c"], no_overlap=True, min_area=5)
    np.testing.assert_array_equal(result.masks, [box_mask(5, 0, 15, 10), box_mask(0, 0, 5, 10)])
    np.testing.assert_array_equal(result.boxes_xyxy, [[5, 0, 15, 10], [0, 0, 5, 10]])
    assert result.labels == ["b", "a"]
    (covered,) = result.rejected
    assert (covered.label, covered.reason) == ("c", "better masks cover all but 0 px of it")
    np.testing.assert_array_equal(covered.mask, masks[2])
    assert len(rank_equal(masks, [0.8, 0.9, 0.7], ["a", "b", "c"])) == 3


@given(st.integers(0, 10**6), hnp.arrays(np.float64, 5, elements=st.floats(0.1, 1)))
def test_without_overlap_nothing_is_lost_and_nothing_is_shared(
    seed: int, scores: np.ndarray
) -> None:
    masks = np.random.default_rng(seed).random((5, *SIZE)) < 0.5
    labels = [str(i) for i in range(5)]
    result = rank_equal(list(masks), list(scores), labels, no_overlap=True)
    assert (result.masks.sum(0) == masks.any(0)).all()


def test_proposals_are_ranked_as_often_as_wanted() -> None:
    masks = np.array([box_mask(0, 0, 10, 10), box_mask(20, 0, 29, 9)])
    gated = RejectedMask("zebra", "presence 0.03 below 0.20", 0.03)
    found = Proposals.of(masks, ["cat"] * 2, [0.9, 0.5], [1, 1], [1, 1], rejected=[gated])
    strict = rank(found, RankingConfig(min_score=0.7))
    loose = rank(found, RankingConfig())
    assert [len(strict), len(loose)] == [1, 2]
    assert [item.reason for item in strict.rejected] == [
        gated.reason, "score 0.50 below min_score 0.70",
    ]  # fmt: skip
    assert loose.rejected == (gated,)


def test_parts_of_a_click_are_no_duplicates() -> None:
    masks = np.array([box_mask(0, 0, 10, 10), box_mask(0, 0, 4, 4)])
    found = Proposals.of(masks, ["point"] * 2, [0.9, 0.5], [1, 1], [1, 1])
    config = RankingConfig(nms_ios=0.8)
    assert len(rank(found, config)) == 1
    assert len(rank(replace(found, nested=True), config)) == 2
    joined = Proposals.join(SIZE, [replace(found, nested=True), Proposals.none(SIZE)])
    assert joined.nested


def test_nms_at_exactly_the_threshold_keeps() -> None:
    masks = [box_mask(0, 0, 10, 10), box_mask(0, 0, 7, 10)]  # IoU 0.7 and within
    assert len(rank_equal(masks, [0.9, 0.8], nms_iou=0.75)) == 2
    assert len(rank_equal(masks, [0.9, 0.8], nms_iou=0.65)) == 1


def test_parts_are_dropped_by_intersection_over_smaller_if_asked() -> None:
    masks = [box_mask(0, 0, 10, 10), box_mask(2, 2, 5, 5)]
    assert len(rank_equal(masks, [0.9, 0.8])) == 2
    result = rank_equal(masks, [0.9, 0.8], nms_ios=0.9)
    assert result.rejected[0].reason == (
        "shares 100% of the smaller area with a better mask of 'cat'"
    )
    # The part scoring better than the whole suppresses the whole.
    assert len(rank_equal(masks, [0.8, 0.9], nms_ios=0.9)) == 1


def test_negatives_drop_what_they_cover() -> None:
    masks = [box_mask(0, 0, 10, 10), box_mask(12, 0, 16, 4), box_mask(20, 0, 28, 8)]
    negatives = np.array([box_mask(0, 0, 10, 9), box_mask(11, 0, 19, 19)])
    result = rank_equal(
        masks,
        [0.9, 0.8, 0.7],
        ["dog"] * 3,
        negative_masks=negatives,
        negative_labels=["toy", "grass"],
    )
    assert result.boxes_xyxy[:, 0].tolist() == [20]
    assert [item.reason for item in result.rejected] == [
        "overlaps the negative 'toy' (IoU 0.90)",
        "lies 100% inside the negative 'grass'",
    ]


def test_a_doubtful_negative_does_not_drop_a_certain_mask() -> None:
    mask = box_mask(0, 0, 10, 10)
    options = {"negative_masks": np.array([mask]), "negative_labels": ["toy"]}
    assert len(rank_equal([mask], [0.9], negative_scores=[0.49], **options)) == 1
    assert len(rank_equal([mask], [0.9], negative_scores=[0.50], **options)) == 0
    options["negative_share"] = 0.2
    assert len(rank_equal([mask], [0.9], negative_scores=[0.49], **options)) == 0


def test_a_negative_within_a_mask_does_not_drop_it() -> None:
    result = rank_equal(
        [box_mask(0, 0, 20, 20)],
        [0.9],
        negative_masks=np.array([box_mask(2, 2, 6, 6)]),
        negative_labels=["collar"],
    )
    assert len(result) == 1


def test_weak_masks_are_dropped_with_the_first_reason_that_holds() -> None:
    masks = [
        box_mask(0, 0, 0, 0),
        box_mask(0, 0, 2, 2),
        box_mask(4, 0, 8, 4),
        box_mask(10, 0, 14, 4),
        box_mask(20, 0, 24, 4),
    ]
    found = Proposals.of(
        np.array(masks),
        ["cat"] * 5,
        [0.9, 0.8, 0.7, 0.2, 0.6],
        [1.0, 1.0, 0.3, 1.0, 1.0],
        np.ones(5),
    )
    result = rank(found, RankingConfig(min_score=0.3, min_stability=0.5, min_area=5))
    assert result.boxes_xyxy[:, 0].tolist() == [20]
    assert [item.reason for item in result.rejected] == [
        "the mask is empty",
        "area 4 px below min_area 5 px",
        "stability 0.30 below min_stability 0.50",
        "score 0.20 below min_score 0.30",
    ]
    assert result.rejected[0].box_xyxy is None
    assert result.rejected[0].mask is None


def test_top_k_is_per_label_and_counts_after_nms() -> None:
    masks = [
        box_mask(0, 0, 10, 10),
        box_mask(0, 0, 10, 10),
        box_mask(12, 0, 16, 4),
        box_mask(20, 0, 24, 4),
        box_mask(0, 12, 4, 16),
    ]
    result = rank_equal(
        masks, [0.9, 0.8, 0.7, 0.6, 0.1], ["cat", "cat", "cat", "cat", "dog"], top_k=2
    )
    assert result.labels == ["cat", "cat", "dog"]
    assert [item.reason for item in result.rejected] == [
        "overlaps a better mask of 'cat' (IoU 1.00)",
        "beyond top_k=2",
    ]
    assert RankingConfig(top_k=np.int64(2)) == RankingConfig(top_k=2)


def test_nothing_in_nothing_out_keeps_earlier_reasons() -> None:
    gated = RejectedMask("zebra", "presence 0.03 below 0.20", 0.03)
    negatives = Proposals.of(np.array([box_mask(0, 0, 3, 3)]), ["toy"], [1.0], [1.0], [1.0])
    nothing = replace(Proposals.none(SIZE), negatives=negatives, rejected=(gated,))
    result = rank(nothing, RankingConfig(top_k=1))
    assert len(result) == 0
    assert result.image_size == SIZE
    assert result.rejected == (gated,)


@given(
    hnp.arrays(bool, (6, 5, 4)),
    hnp.arrays(np.float32, (3, 6), elements=st.floats(0, 1, width=32)),
    st.lists(st.sampled_from(["a", "b"]), min_size=6, max_size=6),
    st.one_of(st.none(), st.integers(1, 3)),
)
def test_every_mask_is_kept_or_explained(
    masks: np.ndarray, witnesses: np.ndarray, labels: list[str], top_k: int | None
) -> None:
    config = RankingConfig(min_score=0.2, nms_iou=0.5, top_k=top_k)
    result = rank(Proposals.of(masks, labels, *witnesses), config)
    assert len(result) + len(result.rejected) == 6
    assert (np.diff(result.scores) <= 0).all()
    assert all(item.reason for item in result.rejected)
    for label in ("a", "b"):
        chosen = result.masks[[name == label for name in result.labels]]
        for i, mask in enumerate(chosen):
            for other in chosen[:i]:
                assert (mask & other).sum() <= 0.5 * (mask | other).sum()
        assert top_k is None or len(chosen) <= top_k
    # Ranking what was ranked changes nothing.
    kept = Proposals.of(
        result.masks,
        result.labels,
        result.iou_predictions,
        result.stability_scores,
        result.prompt_scores,
    )
    again = rank(kept, config)
    np.testing.assert_array_equal(again.masks, result.masks)
    assert again.rejected == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"min_score": 1.5}, "min_score must be between 0 and 1, not 1.5"),
        ({"nms_iou": float("nan")}, "nms_iou"),
        ({"negative_ios": -0.1}, "negative_ios"),
        ({"stability_weight": -1}, "stability_weight"),
        ({"prompt_weight": float("inf")}, "prompt_weight"),
        ({"min_area": -1}, "min_area"),
        ({"top_k": 1.0}, "top_k must be a whole number, 1 or more, not 1.0"),
        ({"top_k": 0}, "top_k must be a whole number, 1 or more, not 0"),
    ],
)
def test_config_values_are_checked(options: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        RankingConfig(**options)


def test_disagreeing_inputs_are_refused() -> None:
    mask = box_mask(0, 0, 3, 3)
    with pytest.raises(InputError, match="1 masks, 1 labels"):
        Proposals.of(np.array([mask]), ["a"], [0.1, 0.2], [0.1], [0.1])
    with pytest.raises(InputError, match="1 masks, 2 labels"):
        rank_equal([mask], [0.5], ["a", "b"])
    with pytest.raises(InputError, match="1 masks, 0 labels"):
        rank_equal([mask], [0.5], negative_masks=np.array([mask]))
    with pytest.raises(InputError, match=r"image's size \(20, 30\), got \(3, 3\)"):
        rank_equal([mask], [0.5], negative_masks=np.zeros((1, 3, 3), bool), negative_labels=["toy"])
    with pytest.raises(InputError, match="masks must be bool"):
        Proposals.of(np.zeros((1, *SIZE)), ["a"], [0.1], [0.1], [0.1])
