"""Simulated prompts: what they must have in common with their targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from prompts import (
    Prompts,
    boxes,
    clicks,
    clicks_beside,
    coarse_prior,
    corrected,
    heat_prior,
    one_of_several,
    to_mask_input,
    with_padding,
)
from targets import CELL

GRID = (20, 26)
SQUARE = 32


def target_of(*corners: tuple[int, int, int, int], share: float = 1.0) -> torch.Tensor:
    """Targets (B, h, w), each a box XYXY in cells."""
    targets = torch.zeros(len(corners), *GRID)
    for target, (x0, y0, x1, y1) in zip(targets, corners, strict=True):
        target[y0:y1, x0:x1] = share
    return targets


TARGETS = target_of((2, 3, 9, 17), (12, 0, 26, 20), (20, 10, 21, 11), (5, 5, 6, 15))


def cells_of(points: torch.Tensor) -> torch.Tensor:
    """Columns and rows (..., 2) that points in pixels lie in; they are centres of cells."""
    cells = (points + 0.5) / CELL - 0.5
    assert torch.equal(cells, cells.round())
    return cells.long()


@pytest.mark.parametrize("seed", range(8))
def test_clicks_lie_in_their_targets(seed: int) -> None:
    prompts = clicks(TARGETS, np.random.default_rng(seed))
    assert prompts.boxes is prompts.masks is None
    coords, labels = prompts.points
    assert coords.shape == (4, 1, 2)
    assert labels.tolist() == [[1], [1], [1], [1]]
    for target, (column, row) in zip(TARGETS, cells_of(coords[:, 0]).tolist(), strict=True):
        assert target[row, column] == 1


def test_clicks_vary_and_some_are_the_centre() -> None:
    rng = np.random.default_rng(0)
    seen = [tuple(cells_of(clicks(TARGETS[1:2], rng).points[0])[0, 0].tolist()) for _ in range(40)]
    assert len(set(seen)) > 10
    assert 10 < seen.count((18, 6)) < 30  # the deepest of 14 x 20 cells, the first of equals


@pytest.mark.parametrize("seed", range(4))
def test_an_object_too_thin_for_a_cell_is_clicked_and_boxed_all_the_same(seed: int) -> None:
    thin = target_of((5, 4, 6, 15), share=0.2)
    rng = np.random.default_rng(seed)
    column, row = cells_of(clicks(thin, rng).points[0])[0, 0].tolist()
    assert thin[0, row, column] > 0
    box = boxes(thin, rng, jitter=0.0, limit=0.0).boxes
    assert box.tolist() == [[20, 16, 24, 60]]
    nothing = torch.full((1, *GRID), -1.0)
    again = corrected(Prompts(boxes=box), thin, nothing, torch.ones(GRID), SQUARE, rng)
    column, row = cells_of(again.points[0])[0, 0].tolist()
    assert thin[0, row, column] > 0
    assert again.points[1].tolist() == [[1]]


def test_boxes_without_jitter_are_tight() -> None:
    found = boxes(TARGETS, np.random.default_rng(0), jitter=0.0, limit=0.0)
    assert found.points is found.masks is None
    assert found.boxes.tolist() == [
        [8, 12, 36, 68],
        [48, 0, 104, 80],
        [80, 40, 84, 44],
        [20, 20, 24, 60],
    ]


def test_jitter_moves_sides_up_to_the_limit_and_keeps_corners_in_order() -> None:
    tight = boxes(TARGETS, np.random.default_rng(0), jitter=0.0, limit=0.0).boxes
    rng = np.random.default_rng(1)
    moved = torch.stack([boxes(TARGETS, rng, jitter=0.5, limit=6.0).boxes for _ in range(30)])
    assert (moved[..., 2:] >= moved[..., :2]).all()
    # The large ones' sides stay far apart, so that no corners were put in order.
    distance = (moved - tight)[:, :2].abs()
    assert distance.max() == pytest.approx(6, abs=1e-4)
    assert distance.median() > 1
    # A side of one cell, 4 pixels, is moved by a standard deviation of 2.
    assert (moved - tight)[:, 2].abs().median() < 3


@pytest.mark.parametrize("seed", range(12))
def test_coarse_priors_are_rough_masks(seed: int) -> None:
    # Objects of many cells: a prior averages over up to 16 x 16 of them.
    targets = TARGETS[:2].repeat_interleave(5, 1).repeat_interleave(5, 2)  # 100 x 130 cells
    found = coarse_prior(targets, 132, np.random.default_rng(seed))
    assert found.masks.shape == (2, 1, 132, 132)
    assert found.masks.isfinite().all()
    for target, logits in zip(targets, found.masks[:, 0, :100, :130], strict=True):
        assert logits[target > 0.5].mean() > logits[target < 0.5].mean() + 1
    if found.points is not None:
        coords, labels = found.points
        assert labels.tolist() == [[1], [1]]
        for target, (column, row) in zip(targets, cells_of(coords[:, 0]).tolist(), strict=True):
            # The hottest cell may be beside the object, but not far.
            near = target[max(row - 16, 0) : row + 17, max(column - 16, 0) : column + 17]
            assert near.any()
    if found.boxes is not None:
        tight = boxes(targets, np.random.default_rng(0), jitter=0.0, limit=0.0).boxes
        assert 0 < (found.boxes - tight).abs().max() <= 60


def test_coarse_priors_come_with_and_without_points_and_boxes() -> None:
    rng = np.random.default_rng(0)
    kinds = {
        (found.points is None, found.boxes is None)
        for found in (coarse_prior(TARGETS[:1], SQUARE, rng) for _ in range(60))
    }
    assert len(kinds) == 4


HEAT = (8 * torch.randn(4, 1, *GRID, generator=torch.Generator().manual_seed(0))).clamp(-9, 9)


@pytest.mark.parametrize("seed", range(6))
def test_heat_of_all_that_a_phrase_names_is_the_mask_as_it_is(seed: int) -> None:
    found = heat_prior(HEAT, TARGETS, SQUARE, np.random.default_rng(seed), whole=True)
    assert found.points is found.boxes is None
    assert torch.equal(found.masks, to_mask_input(HEAT, SQUARE))


def test_heat_of_one_object_is_kept_to_a_loose_box_that_half_the_prompts_give() -> None:
    tight = boxes(TARGETS, np.random.default_rng(0), jitter=0.0, limit=0.0).boxes
    fine = HEAT[:, 0]
    given = 0
    for seed in range(40):
        found = heat_prior(HEAT, TARGETS, SQUARE, np.random.default_rng(seed), whole=False)
        assert found.points is None
        masks = found.masks[:, 0, : GRID[0], : GRID[1]]
        kept = masks == fine
        assert (kept | (masks == -10)).all()
        assert kept[0, 8:12, 5:6].all()  # the middle of 7 x 14 cells
        assert kept[0].sum() < 300  # and not much beyond
        if found.boxes is None:
            continue
        given += 1
        assert 0 < (found.boxes - tight).abs().max() <= 30
        # What is kept are the cells with their centres in the box.
        for box, one in zip(found.boxes.tolist(), kept, strict=True):
            for row, column in np.ndindex(*GRID):
                x, y = (column + 0.5) * CELL, (row + 0.5) * CELL
                inside = box[0] <= x <= box[2] and box[1] <= y <= box[3]
                assert one[row, column] == inside
    assert 10 < given < 30


def test_mask_input_repeats_the_border() -> None:
    logits = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert to_mask_input(logits, 4)[0, 0].tolist() == [
        [0, 1, 2, 2],
        [3, 4, 5, 5],
        [3, 4, 5, 5],
        [3, 4, 5, 5],
    ]


def wrong_logits() -> torch.Tensor:
    """For each target one mask that lacks or has too much."""
    masks = target_of((2, 3, 9, 10), (8, 0, 26, 20), (20, 10, 21, 12), (0, 0, 2, 2))
    return 2 * masks - 1


@pytest.mark.parametrize("seed", range(10))
def test_the_corrective_click_falls_on_the_error_with_the_right_label(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, weight = wrong_logits(), torch.ones(GRID)
    before = clicks(TARGETS, rng)
    after = corrected(before, TARGETS, logits, weight, SQUARE, rng)
    coords, labels = after.points
    assert coords.shape == (4, 2, 2)
    assert torch.equal(coords[:, :1], before.points[0])
    assert torch.equal(labels[:, :1], before.points[1])
    cells = cells_of(coords[:, 1]).tolist()
    for target, logit, (column, row), label in zip(
        TARGETS, logits, cells, labels[:, 1], strict=True
    ):
        assert (logit[row, column] > 0) != (target[row, column] > 0.5)
        assert label == target[row, column]
    # The first two lack something alone and have too much alone.
    assert labels[:3, 1].tolist() == [1, 0, 0]
    if after.masks is not None:
        assert torch.equal(after.masks, to_mask_input(logits[:, None], SQUARE))


def test_what_does_not_count_is_not_corrected() -> None:
    weight = torch.ones(GRID)
    weight[:, 4:] = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        nothing = torch.full((1, *GRID), -1.0)
        after = corrected(Prompts(), TARGETS[:1], nothing, weight, SQUARE, rng)
        column, row = cells_of(after.points[0])[0, 0].tolist()
        assert 2 <= column < 4
        assert 3 <= row < 17


def test_a_perfect_mask_is_clicked_in_its_middle_and_the_box_stays() -> None:
    rng = np.random.default_rng(0)
    box = boxes(TARGETS, rng, jitter=0.0, limit=0.0)
    after = corrected(box, TARGETS, 2 * TARGETS - 1, torch.ones(GRID), SQUARE, rng)
    assert after.boxes is box.boxes
    assert after.points[1].tolist() == [[1]] * 4
    assert cells_of(after.points[0])[2, 0].tolist() == [20, 10]


def test_most_corrections_come_with_the_mask_so_far() -> None:
    rng = np.random.default_rng(0)
    found = [
        corrected(Prompts(), TARGETS[:1], wrong_logits()[:1], torch.ones(GRID), SQUARE, rng).masks
        for _ in range(60)
    ]
    assert 45 < sum(mask is not None for mask in found) < 60


def test_clicks_of_different_numbers_are_padded() -> None:
    coords, labels = with_padding([[(1.0, 2.0, 1)], [(3.0, 4.0, 1), (5.0, 6.0, 0)]])
    assert coords.tolist() == [[[1, 2], [0, 0]], [[3, 4], [5, 6]]]
    assert labels.tolist() == [[1, -1], [1, 0]]


def values_at(mask: torch.Tensor, points: torch.Tensor) -> list[float]:
    return [float(mask[row, column]) for column, row in cells_of(points).tolist()]


@pytest.mark.parametrize("seed", range(8))
def test_background_clicks_fall_on_the_nearest_other_objects(seed: int) -> None:
    near = target_of((9, 3, 12, 17))[0]
    far = target_of((24, 0, 26, 20))[0]
    found = clicks_beside(
        TARGETS[:1], [TARGETS[0], near, far], torch.ones(GRID), np.random.default_rng(seed)
    )
    coords, labels = found.points
    assert labels.tolist() == [[1, 0]]  # the far one is left alone
    assert values_at(TARGETS[0], coords[0]) == [1, 0]
    assert values_at(near, coords[0]) == [0, 1]


@pytest.mark.parametrize("seed", range(8))
def test_without_neighbours_the_background_click_is_close_by(seed: int) -> None:
    valid = torch.ones(GRID)
    valid[:, 12:] = 0
    whole = torch.ones(GRID)  # what holds the target is no neighbour
    found = clicks_beside(TARGETS[:1], [whole], valid, np.random.default_rng(seed))
    coords, labels = found.points
    assert labels.tolist() == [[1, 0]]
    column, row = cells_of(coords[0, 1]).tolist()
    assert TARGETS[0, row, column] == 0
    assert valid[row, column] == 1


@pytest.mark.parametrize("seed", range(10))
def test_one_of_several_marks_the_others_as_background(seed: int) -> None:
    targets = target_of((2, 3, 9, 17), (14, 3, 21, 17))
    others = [[targets[1]], [targets[0], target_of((22, 0, 26, 4))[0]]]
    heat = torch.full((2, 1, *GRID), 5.0)
    found = one_of_several(heat, targets, others, SQUARE, np.random.default_rng(seed))
    coords, labels = found.points
    assert labels.tolist() == [[1, 0, -1], [1, 0, 0]]
    assert values_at(targets[0], coords[0, :2]) == [1, 0]
    assert values_at(targets[1], coords[1]) == [1, 0, 0]
    assert values_at(targets[0], coords[1]) == [0, 1, 0]
    masks = found.masks[:, 0, : GRID[0], : GRID[1]]
    if (masks == 5).all():  # the word's whole heat
        return
    # Cold where another object's centre is nearer, hot around its own.
    assert set(masks.unique().tolist()) == {-10, 5}
    assert values_at(masks[0], coords[0, :2]) == [5, -10]
    assert values_at(masks[1], coords[1]) == [5, -10, -10]


def test_one_of_several_comes_with_cut_and_whole_heat_with_boxes_and_without() -> None:
    targets = target_of((2, 3, 9, 17))
    others = [[target_of((14, 3, 21, 17))[0]]]
    heat = torch.full((1, 1, *GRID), 5.0)
    kinds = set()
    for seed in range(40):
        found = one_of_several(heat, targets, others, SQUARE, np.random.default_rng(seed))
        kinds.add(((found.masks == 5).all().item(), found.boxes is None))
    assert len(kinds) == 4
