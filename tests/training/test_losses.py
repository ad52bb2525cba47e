"""The losses against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from losses import (
    HOT_SHARE,
    box_iou,
    click_loss,
    edges,
    mask_losses,
    object_loss,
    prompt_loss,
    text_loss,
    true_iou,
)
from targets import CELL, ObjectTargets, TextTargets

B, M, H, W = 3, 4, 6, 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(B, M, H, W)) * 3
TARGETS = np.clip(RNG.normal(0.5, 0.5, size=(B, H, W)), 0, 1)
WEIGHT = (RNG.random((H, W)) < 0.7).astype(np.float64)
PREDICTED = RNG.random((B, M))


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).float()


def numpy_losses() -> np.ndarray:
    losses = np.zeros((B, M))
    for b in range(B):
        for m in range(M):
            share = 1 / (1 + np.exp(-LOGITS[b, m]))
            wanted = TARGETS[b]
            entropy = -(wanted * np.log(share) + (1 - wanted) * np.log(1 - share))
            entropy = entropy[WEIGHT == 1].mean()
            share, wanted = share[WEIGHT == 1], wanted[WEIGHT == 1]
            dice = 1 - (2 * (share * wanted).sum() + 1) / (share.sum() + wanted.sum() + 1)
            losses[b, m] = 2 * entropy + dice
    return losses


def numpy_iou() -> np.ndarray:
    ious = np.zeros((B, M))
    for b in range(B):
        wanted = (TARGETS[b] > 0.5)[WEIGHT == 1]
        for m in range(M):
            mask = (LOGITS[b, m] > 0)[WEIGHT == 1]
            ious[b, m] = (mask & wanted).sum() / (mask | wanted).sum()
    return ious


def test_mask_losses() -> None:
    found = mask_losses(tensor(LOGITS), tensor(TARGETS), tensor(WEIGHT))
    np.testing.assert_allclose(found.numpy(), numpy_losses(), rtol=1e-5)


def test_true_iou() -> None:
    found = true_iou(tensor(LOGITS), tensor(TARGETS), tensor(WEIGHT))
    np.testing.assert_allclose(found.numpy(), numpy_iou(), rtol=1e-6)


def test_true_iou_by_hand() -> None:
    target = torch.zeros(1, 4, 4)
    target[0, :2] = 1  # 8 cells
    logits = torch.full((1, 3, 4, 4), -1.0)
    logits[0, 0, 1:3] = 1  # 8 cells, 4 of them right
    logits[0, 1, :2] = 1
    weight = torch.ones(4, 4)
    np.testing.assert_allclose(true_iou(logits, target, weight), [[4 / 12, 1, 0]])
    weight[2:] = 0  # the wrong half does not count
    np.testing.assert_allclose(true_iou(logits, target, weight), [[0.5, 1, 0]])
    assert true_iou(logits[:, 2:], 0 * target, weight).tolist() == [[0]]


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_prompt_loss(spread: float) -> None:
    losses = numpy_losses()
    error = np.abs(PREDICTED - numpy_iou())
    assert error.min() < 0.05 < error.max()
    smooth = np.where(error < 0.05, error**2 / 0.1, error - 0.025)
    expected = (
        losses[:, 0].mean()
        + losses[:, 1:].min(1).mean()
        + spread * losses[:, 1:].mean()
        + smooth.mean()
    )
    found = prompt_loss(tensor(LOGITS), tensor(PREDICTED), tensor(TARGETS), tensor(WEIGHT), spread)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_what_does_not_count_has_no_gradient() -> None:
    logits = tensor(LOGITS).requires_grad_()
    prompt_loss(logits, tensor(PREDICTED), tensor(TARGETS), tensor(WEIGHT), 0.05).backward()
    counted = torch.from_numpy(WEIGHT == 1)
    assert not logits.grad[..., ~counted].any()
    assert (logits.grad[..., counted] != 0).all()


def test_a_picture_of_void_is_finite() -> None:
    nothing = torch.zeros(H, W)
    assert mask_losses(tensor(LOGITS), tensor(TARGETS), nothing).isfinite().all()
    assert not true_iou(tensor(LOGITS), tensor(TARGETS), nothing).any()


def test_perfect_masks_cost_next_to_nothing() -> None:
    targets = (tensor(TARGETS) > 0.5).float()
    logits = (40 * targets - 20)[:, None].expand(-1, 4, -1, -1)
    loss = prompt_loss(logits, torch.ones(B, 4), targets, torch.ones(H, W), 0.05)
    assert 0 <= loss.item() < 1e-4


def test_each_object_may_have_its_own_weight() -> None:
    weights = (RNG.random((B, H, W)) < 0.6).astype(np.float64)
    found = mask_losses(tensor(LOGITS), tensor(TARGETS), tensor(weights))
    ious = true_iou(tensor(LOGITS), tensor(TARGETS), tensor(weights))
    for b in range(B):
        one = slice(b, b + 1)
        args = tensor(LOGITS[one]), tensor(TARGETS[one]), tensor(weights[b])
        np.testing.assert_allclose(found[one], mask_losses(*args), rtol=1e-5)
        np.testing.assert_allclose(ious[one], true_iou(*args), rtol=1e-6)


def test_edges_are_the_cells_on_both_sides_of_the_border() -> None:
    target = torch.zeros(1, 7, 7)
    target[0, 2:5, 2:5] = 1
    expected = torch.zeros(7, 7)
    expected[1:6, 1:6] = 1
    expected[3, 3] = 0
    assert torch.equal(edges(target)[0], expected)
    target[0, 6, 6] = 0.3  # a cell that is partly covered
    assert edges(target)[0, 6, 6] == 1


def test_a_mistake_at_the_border_weighs_more() -> None:
    target = torch.zeros(1, 9, 9)
    target[0, 3:6, 3:6] = 1
    weight = torch.ones(9, 9)
    right = (40 * target - 20)[:, None]
    losses = []
    for row, column in ((2, 4), (0, 0)):  # beside the object, far from it
        wrong = right.clone()
        wrong[0, 0, row, column] = 20
        losses.append([float(mask_losses(wrong, target, weight, e)) for e in (0.0, 2.0)])
    assert losses[0][0] == pytest.approx(losses[1][0])
    assert losses[0][1] > losses[0][0]
    assert losses[1][1] < losses[1][0]


def test_clicks_are_obeyed_or_cost() -> None:
    logits = torch.full((1, 4, 5, 6), -9.0)
    logits[0, :, 1, 2] = 9.0
    at = lambda column, row: [(column + 0.5) * CELL - 0.5, (row + 0.5) * CELL - 0.5]  # noqa: E731
    coords = torch.tensor([[at(2, 1), at(4, 4), [0.0, 0.0]]])
    obeyed = click_loss(logits, (coords, torch.tensor([[1.0, 0, -1]])))
    assert 0 <= float(obeyed) < 1e-3
    turned = click_loss(logits, (coords, torch.tensor([[0.0, 1, -1]])))
    assert float(turned) == pytest.approx(10, abs=0.01)
    # Of the ambiguous masks one must have the foreground, but none the background.
    logits[0, 2:, 1, 2] = -9.0
    assert float(click_loss(logits, (coords, torch.tensor([[1.0, 0, -1]])))) < 1e-3
    assert float(click_loss(logits, (coords, torch.tensor([[0.0, 0, -1]])))) > 2


P, N = 5, 2  # words, of which so many are there
LOCAL = RNG.normal(size=(P, H, W)) * 3
PRESENCE = RNG.normal(size=P) * 2
NAMED = np.clip(RNG.normal(0.5, 0.5, size=(N, H, W)), 0, 1)
KNOWN = RNG.random((P, H, W)) * (RNG.random((P, H, W)) < 0.7)
SURE = np.array([1.0, 0.0, 1.0, 0.4, 1.0])


def targets_of(here: int, gone: int, weak: tuple = ()) -> tuple[list[int], TextTargets]:
    """The targets of so many words that are there and that are not, and their numbers."""
    picked = [*range(here), *range(N, N + gone)]
    present = np.array([float(i < N) for i in picked])
    return picked, TextTargets(
        tuple("abcde"[i] for i in picked),
        tensor(NAMED[:here]),
        tensor(KNOWN[picked]),
        tensor(present),
        tensor(SURE[picked]),
        weak,
    )


def numpy_text_loss(here: int, gone: int) -> float:
    def softplus(x: np.ndarray) -> np.ndarray:
        return np.log1p(np.exp(x))

    loss = 0.0
    entropies, dices, seen = [], [], []
    for n in range(here):
        share, wanted, known = 1 / (1 + np.exp(-LOCAL[n])), NAMED[n], KNOWN[n]
        entropy = wanted * softplus(-LOCAL[n]) + (1 - wanted) * softplus(LOCAL[n])
        entropies.append((entropy * known).sum() / max(1, known.sum()))
        overlap = 2 * (share * wanted * known).sum() + 1
        dices.append(1 - overlap / ((share * known).sum() + (wanted * known).sum() + 1))
        seen.append(SURE[n] * softplus(-PRESENCE[n]))
    if here:
        loss += 2 * np.mean(entropies) + np.mean(dices) + sum(seen) / max(1, SURE[:here].sum())
    for n in range(N, N + gone):
        loss += (softplus(LOCAL[n]) * KNOWN[n]).sum() / (H * W) / 6
        loss += SURE[n] * softplus(PRESENCE[n]) / 6
    return float(loss)


@pytest.mark.parametrize(("here", "gone"), [(2, 3), (1, 2), (0, 3), (2, 0)])
def test_text_loss(here: int, gone: int) -> None:
    picked, targets = targets_of(here, gone)
    found = text_loss(tensor(LOCAL[picked]), tensor(PRESENCE[picked]), targets)
    assert found.shape == ()
    assert found.item() == pytest.approx(numpy_text_loss(here, gone), rel=1e-5, abs=1e-7)


def test_many_absent_words_do_not_drown_the_others() -> None:
    count = 300
    targets = TextTargets(
        tuple(map(str, range(count))),
        torch.zeros(0, 2, 2),
        torch.ones(count, 2, 2),
        torch.zeros(count),
        torch.ones(count),
        (),
    )
    loss = text_loss(torch.zeros(count, 2, 2), torch.zeros(count), targets)
    assert loss.item() == pytest.approx(100 * np.log(2) * (1 / 6 + 1 / 6), rel=1e-5)


def test_text_loss_has_a_gradient_where_something_is_known() -> None:
    _picked, targets = targets_of(2, 3)
    local, presence = tensor(LOCAL).requires_grad_(), tensor(PRESENCE).requires_grad_()
    text_loss(local, presence, targets).backward()
    known = torch.from_numpy(KNOWN > 0)
    assert not local.grad[~known].any()
    assert (local.grad[known] != 0).all()
    assert presence.grad.sign().tolist() == [-1, 0, 1, 1, 1]


def test_a_weak_word_must_be_somewhere_where_it_may_be() -> None:
    inside = torch.zeros(H, W, dtype=torch.bool)
    inside[1:5, 1:6] = True
    _, targets = targets_of(0, 3, ((1, inside),))
    local = tensor(LOCAL[2:]).requires_grad_()
    plain = text_loss(local, tensor(PRESENCE[2:]), targets_of(0, 3)[1])
    loss = text_loss(local, tensor(PRESENCE[2:]), targets, weak_weight=0.5)
    hot = np.sort(LOCAL[3][1:5, 1:6].ravel())[-round(20 * HOT_SHARE) :]
    assert (loss - plain).item() == pytest.approx(0.5 * np.log1p(np.exp(-hot.mean())), rel=1e-4)
    (gradient,) = torch.autograd.grad(loss - plain, [local])
    assert (gradient < 0).sum() == len(hot)
    assert not gradient[1][~inside].any()


def test_a_perfect_text_head_costs_next_to_nothing() -> None:
    _picked, targets = targets_of(2, 3)
    solid = (targets.masks > 0.5).float()
    targets = TextTargets(
        targets.concepts,
        solid,
        targets.weights,
        targets.present,
        targets.present_weight,
        (),
    )
    local = torch.full((P, H, W), -20.0)
    local[:N] = 40 * solid - 20
    presence = torch.tensor([20.0, 20, -20, -20, -20])
    assert 0 <= text_loss(local, presence, targets).item() < 1e-4


def test_box_iou_of_worked_examples() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 2, 2], [0, 0, 2, 2]])
    others = torch.tensor([[0.0, 0, 4, 4], [1, 1, 3, 3], [2, 2, 4, 4]])
    iou, generalised = box_iou(boxes, others)
    torch.testing.assert_close(iou, torch.tensor([1.0, 1 / 7, 0.0]))
    # Hulls of 9 and 16 pixels, unions of 7 and 8.
    torch.testing.assert_close(generalised, torch.tensor([1.0, 1 / 7 - 2 / 9, -8 / 16]))


def test_object_loss() -> None:
    owner = torch.tensor([[0, 0, -1], [0, 1, -1]])
    targets = ObjectTargets(owner, torch.tensor([[0.0, 0, 16, 16], [8, 8, 24, 24]]))
    right = targets.boxes[owner.clamp(min=0)]
    sure = torch.full((2, 3), 20.0)
    assert object_loss(right, sure, targets).item() == pytest.approx(0, abs=1e-4)
    # What cells of no object say costs nothing.
    elsewhere = torch.where(owner[..., None] < 0, 1e4 * torch.ones(()), right)
    assert object_loss(elsewhere, -sure, targets) == object_loss(right, -sure, targets)
    # The three cells of the first object weigh 3 ** 0.4 in all, the one of the second 1.
    wrong = right.clone()
    wrong[1, 1] = torch.tensor([0.0, 0, 16, 16])  # IoU 64 / 448 in a hull of 576
    doubtful = torch.tensor([[20.0, 20, 20], [20, -20, 20]])
    missed = 1 - (1 / 7 - 128 / 576) + 0.5 * (20 / 7)
    found = object_loss(wrong, doubtful, targets).item()
    assert found == pytest.approx(missed / (1 + 3**0.4), rel=1e-4)


def test_a_scene_without_objects_costs_nothing() -> None:
    boxes = torch.zeros(2, 3, 4, requires_grad=True)
    nobody = ObjectTargets(torch.full((2, 3), -1), torch.zeros(0, 4))
    assert object_loss(boxes, torch.zeros(2, 3), nobody).item() == 0
