"""The losses against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from losses import mask_losses, prompt_loss, text_loss, true_iou

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


P, N = 5, 2  # phrases, of which so many are there
LOCAL = RNG.normal(size=(P, H, W)) * 3
PRESENCE = RNG.normal(size=P) * 2
NAMED = np.clip(RNG.normal(0.5, 0.5, size=(N, H, W)), 0, 1)
DOUBT = np.array([1.0, 0.4, 1.0])


def numpy_text_loss(here: int, gone: int) -> float:
    """Of so many of the phrases that are there and of those that are not."""
    counted = WEIGHT == 1

    def negative_log(share: np.ndarray) -> np.ndarray:
        return -np.log(share)

    entropies, dices, seen = [], [], []
    for n in range(here):
        share, wanted = 1 / (1 + np.exp(-LOCAL[n][counted])), NAMED[n][counted]
        entropy = wanted * negative_log(share) + (1 - wanted) * negative_log(1 - share)
        entropies.append(entropy.mean())
        dices.append(1 - (2 * (share * wanted).sum() + 1) / (share.sum() + wanted.sum() + 1))
        seen.append(negative_log(1 / (1 + np.exp(-PRESENCE[n]))))
    loss = 2 * np.mean(entropies) + np.mean(dices) + np.mean(seen) if here else 0.0
    for n, weight in zip(range(N, N + gone), DOUBT, strict=False):
        nowhere = negative_log(1 - 1 / (1 + np.exp(-LOCAL[n][counted])))
        absent = negative_log(1 - 1 / (1 + np.exp(-PRESENCE[n])))
        loss += weight * (nowhere.mean() / 8 + absent / 10)
    return float(loss)


@pytest.mark.parametrize(("here", "gone"), [(2, 3), (1, 2), (0, 3), (2, 0), (0, 0)])
def test_text_loss(here: int, gone: int) -> None:
    picked = [*range(here), *range(N, N + gone)]
    found = text_loss(
        tensor(LOCAL[picked]),
        tensor(PRESENCE[picked]),
        tensor(NAMED[:here]),
        tensor(WEIGHT),
        tensor(DOUBT[:gone]),
    )
    assert found.shape == ()
    assert found.item() == pytest.approx(numpy_text_loss(here, gone), rel=1e-5, abs=1e-7)


def test_text_loss_has_a_gradient_wherever_cells_count() -> None:
    local = tensor(LOCAL).requires_grad_()
    presence = tensor(PRESENCE).requires_grad_()
    text_loss(local, presence, tensor(NAMED), tensor(WEIGHT), tensor(DOUBT)).backward()
    counted = torch.from_numpy(WEIGHT == 1)
    assert not local.grad[:, ~counted].any()
    assert (local.grad[:, counted] != 0).all()
    assert (presence.grad[:N] < 0).all()
    assert (presence.grad[N:] > 0).all()


def test_a_perfect_text_head_costs_next_to_nothing() -> None:
    targets = (tensor(NAMED) > 0.5).float()
    local = torch.full((P, H, W), -20.0)
    local[:N] = 40 * targets - 20
    presence = torch.tensor([20.0, 20, -20, -20, -20])
    loss = text_loss(local, presence, targets, tensor(WEIGHT), tensor(DOUBT))
    assert 0 <= loss.item() < 1e-4
