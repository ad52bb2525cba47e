"""The trained half of the pocket grounding, shrunken, against a plain NumPy restatement."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from promptseg.models.pocket.text_head import HOTTEST_CELLS, TEXT_DIM, TextHead, TextHeadConfig

CONFIG = TextHeadConfig(in_channels=10, dim=12, depth=1)


@pytest.fixture(scope="module")
def head() -> TextHead:
    """With all parameters drawn, also those that start at zero."""
    torch.manual_seed(0)
    model = TextHead(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def features_of(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(1, CONFIG.in_channels, height, width, generator=generator)


def phrases(count: int) -> Tensor:
    text = torch.randn(count, TEXT_DIM, generator=torch.Generator().manual_seed(count))
    return torch.nn.functional.normalize(text, dim=1)


def numpy_score(head: TextHead, cells: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, ...]:
    """Logits (P, h, w) and (P,) of cells (dim, h, w), a phrase and a cell at a time."""
    state = {name: value.numpy().astype(np.float64) for name, value in head.state_dict().items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return state[f"{name}.weight"] @ x + state[f"{name}.bias"]

    dim, height, width = cells.shape
    local, presence = np.zeros((len(text), height, width)), np.zeros(len(text))
    for p, phrase in enumerate(text):
        wanted = linear("local_text", phrase * np.sqrt(TEXT_DIM))
        for i in range(height):
            for j in range(width):
                found = linear("local", cells[:, i, j])
                local[p, i, j] = wanted @ found / np.sqrt(dim) + linear("local_bias", phrase)[0]
        hottest = np.sort(local[p].ravel())[-HOTTEST_CELLS:].mean()
        pooled = np.mean([linear("pooled", c) for c in cells.reshape(dim, -1).T], axis=0)
        agreement = linear("pooled_text", phrase * np.sqrt(TEXT_DIM)) @ pooled / np.sqrt(dim)
        bias = linear("pooled_bias", phrase)[0]
        presence[p] = state["peak_weight"] * hottest + agreement + bias
    return local, presence


@pytest.mark.parametrize(("height", "width"), [(5, 7), (2, 3)])  # more and fewer than 8 cells
@torch.no_grad()
def test_scores_equal_the_formula(head, height: int, width: int) -> None:
    cells, text = head.embed(features_of(height, width)), phrases(3)
    assert cells.shape == (CONFIG.dim, height, width)
    local, presence = head.score(cells, text)
    expected = numpy_score(head, cells.numpy().astype(np.float64), text.numpy().astype(np.float64))
    assert expected[0].std() > 0.1
    np.testing.assert_allclose(local.numpy(), expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(presence.numpy(), expected[1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_each_phrase_is_scored_on_its_own(head) -> None:
    cells, text = head.embed(features_of(4, 6)), phrases(3)
    local, presence = head.score(cells, text)
    for i in range(3):
        alone, alone_presence = head.score(cells, text[i : i + 1])
        torch.testing.assert_close(alone[0], local[i], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone_presence[0], presence[i], rtol=1e-5, atol=1e-5)
    nothing, none = head.score(cells, text[:0])
    assert nothing.shape == (0, 4, 6)
    assert none.shape == (0,)


@torch.no_grad()
def test_an_untrained_head_finds_nothing_anywhere() -> None:
    torch.manual_seed(0)
    local, _ = TextHead()(torch.randn(1, 472, 6, 8), phrases(20))
    assert local.mean() < -3
    assert local.mean() > -5


def test_gradient_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    head = TextHead(CONFIG)
    local, presence = head(features_of(4, 6), phrases(3))
    (local.square().sum() + presence.square().sum()).backward()
    without = [n for n, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
