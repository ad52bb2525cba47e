"""A phrase and an example of the same thing: evidence, scores and reasons on masks made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.result import RejectedMask
from promptseg.pipeline.scoring.fusion import FusionConfig, fuse

SIZE = (10, 20)
CONFIG = FusionConfig(text_lead=1.0)


def proposals(*found: tuple[tuple[int, int, int, int], float]) -> Proposals:
    """Masks that fill boxes, each with its prompt score."""
    masks = np.zeros((len(found), *SIZE), bool)
    for mask, ((x0, y0, x1, y1), _) in zip(masks, found, strict=True):
        mask[y0:y1, x0:x1] = True
    scores = [score for _, score in found]
    ones = np.full(len(found), 0.9)
    return Proposals.of(masks, ["cat"] * len(found), ones, ones, scores)


def left_edges(found: Proposals) -> list[int]:
    return [mask.box[0] for mask in found.masks]


# Both find the left thing, of 40 pixels; the example's mask of it is 8 pixels larger. Each finds
# another thing besides.
BY_TEXT = proposals(((0, 0, 8, 5), 0.6), ((10, 0, 14, 4), 0.5))
BY_EXAMPLE = proposals(((0, 0, 8, 6), 0.8), ((16, 0, 20, 4), 0.4))


def test_the_surer_sides_masks_are_raised_where_the_other_agrees() -> None:
    found = fuse("cat", BY_TEXT, BY_EXAMPLE, (2.0, 1.0), CONFIG)
    assert left_edges(found) == [0, 10]
    np.testing.assert_allclose(found.prompt_scores, [1 - 0.4 * (1 - 40 / 48 * 0.8), 0.5], rtol=1e-6)
    found = fuse("cat", BY_TEXT, BY_EXAMPLE, (1.0, 2.5), CONFIG)
    assert left_edges(found) == [0, 16]
    np.testing.assert_allclose(found.prompt_scores, [1 - 0.2 * (1 - 40 / 48 * 0.6), 0.4], rtol=1e-6)


def test_what_only_the_other_side_found_is_rejected_with_the_reason() -> None:
    found = fuse("cat", BY_TEXT, BY_EXAMPLE, (2.0, 1.0), CONFIG)
    assert [item.reason for item in found.rejected] == [
        "the masks of the phrase are used instead"
    ] * 2
    assert [item.box_xyxy for item in found.rejected] == [(0, 0, 8, 6), (16, 0, 20, 4)]
    assert [item.prompt_score for item in found.rejected] == pytest.approx([0.8, 0.4])
    np.testing.assert_array_equal(found.rejected[0].mask, BY_EXAMPLE.masks[0].full())


@pytest.mark.parametrize(
    ("text", "example", "leader"),
    [
        (2.0, 2.9, "text"),  # the example leads by less than the phrase's lead
        (2.0, 3.1, "example"),
        (-0.1, 0.2, "example"),  # who denies the thing has no masks
        (0.2, -0.1, "text"),
        (0.1, -0.1, "text"),
    ],
)
def test_who_leads(text: float, example: float, leader: str) -> None:
    none = Proposals.none(SIZE)
    by_text = BY_TEXT if text >= 0 else none
    by_example = BY_EXAMPLE if example >= 0 else none
    found = fuse("cat", by_text, by_example, (text, example), CONFIG)
    assert left_edges(found) == ([0, 10] if leader == "text" else [0, 16])


def test_together_they_may_deny_what_one_of_them_found() -> None:
    gated = RejectedMask("cat", "presence 0.01 below 0.15", 0.01)
    denied = replace(Proposals.none(SIZE), rejected=(gated,))
    found = fuse("cat", denied, BY_EXAMPLE, (-2.0, 1.5), CONFIG)
    assert len(found) == 0
    assert [item.reason for item in found.rejected] == [
        "presence 0.01 below 0.15",
        "the phrase (-2.0) and the example (+1.5) together say it is absent",
    ]


def test_one_that_is_very_sure_outvotes_one_that_denies() -> None:
    gated = RejectedMask("cat", "presence 0.10 below 0.15", 0.1)
    denied = replace(Proposals.none(SIZE), rejected=(gated,))
    found = fuse("cat", denied, BY_EXAMPLE, (-0.5, 1.5), CONFIG)
    np.testing.assert_allclose(found.prompt_scores, BY_EXAMPLE.prompt_scores)
    assert found.rejected == (gated,)


def test_scores_stay_in_range_and_never_fall() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        sides = []
        for _ in range(2):
            corners = rng.integers(0, 8, (3, 2))
            boxes = [
                ((int(x), int(y), int(x) + 6, int(y) + 2), float(rng.random())) for x, y in corners
            ]
            sides.append(proposals(*boxes))
        found = fuse("cat", *sides, (1.0, 1.0), CONFIG)
        assert (found.prompt_scores >= sides[0].prompt_scores - 1e-6).all()
        assert (found.prompt_scores <= 1).all()
