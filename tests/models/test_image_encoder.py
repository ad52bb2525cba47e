"""Attention in blocks, windows, and gradients of every encoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.models import InputError, linear
from promptseg.models.sam import image_encoder
from promptseg.models.sam.image_encoder import (
    Attention,
    ImageEncoderViT,
    attention_with_relative_positions,
    window_partition,
    window_unpartition,
)


def dense_attention(q, k, v, rel_pos_h, rel_pos_w, size):
    """The formula in float64, with all scores and an explicit loop over pairs."""
    height, width = size
    out = np.zeros(q.shape)
    for batch, head in np.ndindex(*q.shape[:2]):
        scores = q[batch, head] @ k[batch, head].T / np.sqrt(q.shape[-1])
        for i, j in np.ndindex(*scores.shape):
            dy, dx = i // width - j // width, i % width - j % width
            bias = rel_pos_h[dy + height - 1] + rel_pos_w[dx + width - 1]
            scores[i, j] += q[batch, head, i] @ bias
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out[batch, head] = weights / weights.sum(1, keepdims=True) @ v[batch, head]
    return out.transpose(0, 2, 1, 3)


def compare_with_the_formula(*, batch_size: int, size: tuple[int, int]) -> None:
    """Attention with 2 heads on random tensors, in whatever blocks are set."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, batch_size, 2, height * width, 4, generator=generator)
    rel_pos_h, rel_pos_w = (torch.randn(2 * n - 1, 4, generator=generator) for n in size)
    out = attention_with_relative_positions(q, k, v, rel_pos_h, rel_pos_w, size)
    arrays = (tensor.double().numpy() for tensor in (q, k, v, rel_pos_h, rel_pos_w))
    expected = torch.from_numpy(dense_attention(*arrays, size)).float()
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


# From blocks of a single query to all images at once; 15 tokens, 2 heads, 3 images.
@pytest.mark.parametrize("max_bias_elements", [1, 60, 225, 450, 900, 10**6])
def test_attention_equals_the_formula_in_blocks_of_any_size(monkeypatch, max_bias_elements):
    monkeypatch.setattr(image_encoder, "MAX_BIAS_ELEMENTS", max_bias_elements)
    compare_with_the_formula(batch_size=3, size=(5, 3))


@pytest.mark.parametrize("slow_mkl", [True, False])
@torch.no_grad()
def test_attention_of_one_head_at_a_time_equals_the_formula(monkeypatch, slow_mkl):
    """Blocks of 256 queries of one head, whose products oneDNN computes where MKL is slow."""
    blocks = []
    original = torch.nn.functional.scaled_dot_product_attention

    def spy(q, *others, **options):
        blocks.append(q.shape[2])
        return original(q, *others, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(linear, "has_slow_mkl", lambda: slow_mkl)
    monkeypatch.setattr(image_encoder, "MAX_BIAS_ELEMENTS", 256 * 288)
    compare_with_the_formula(batch_size=1, size=(16, 18))
    assert blocks == ([32, 32] if slow_mkl else [256, 32, 256, 32])  # what PyTorch attended


def test_no_block_holds_more_bias_than_allowed(monkeypatch):
    """At 64 x 64 tokens the scores of all heads would be 768 MiB; a block stays within 4."""
    sizes = []
    original = image_encoder._attend

    def spy(q, k, *others):
        sizes.append(q.shape[:3].numel() * k.shape[2])
        return original(q, k, *others)

    monkeypatch.setattr(image_encoder, "_attend", spy)
    attention = Attention(24, num_heads=12, size=(64, 64))
    with torch.no_grad():
        attention(torch.randn(1, 64, 64, 24))
    assert max(sizes) <= image_encoder.MAX_BIAS_ELEMENTS == 2**20
    assert sum(sizes) == 12 * 4096 * 4096


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window_size=st.integers(1, 5),
    batch_size=st.integers(1, 3),
)
@settings(max_examples=50, deadline=None)
def test_windows_round_trip(size, window_size, batch_size):
    x = torch.arange(batch_size * size[0] * size[1] * 2.0).reshape(batch_size, *size, 2)
    windows, padded_size = window_partition(x, window_size)
    count = batch_size * padded_size[0] * padded_size[1] // window_size**2
    assert windows.shape == (count, window_size, window_size, 2)
    assert windows.sum() == x.sum()  # the padding is zero
    assert torch.equal(window_unpartition(windows, padded_size, size), x)


def test_windows_of_a_worked_example():
    x = torch.arange(6.0).reshape(1, 2, 3, 1)
    windows, padded_size = window_partition(x, 2)
    assert padded_size == (2, 4)
    assert windows[..., 0].tolist() == [[[0, 1], [3, 4]], [[2, 0], [5, 0]]]


def test_batch_of_one_equals_batch_of_many(pair):
    size = pair.config.image_size
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = pair.ours.image_encoder(pixels)
        alone = torch.cat([pair.ours.image_encoder(image[None]) for image in pixels])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["padded-windows", "one-window", "tiled-windows", "tiny-vit"])
def test_every_parameter_gets_a_gradient(shrunken_models, name):
    model = shrunken_models[name]().train()
    size = model.image_size
    generator = torch.Generator().manual_seed(0)
    mask_input = torch.randn(2, 1, *model.mask_input_size, generator=generator)
    # A batch for the batch norms; then one prompt of every kind and one without a mask.
    features = model.encode_image(torch.randn(1, 3, size, size, generator=generator))
    points = {
        "point_coords": torch.rand(2, 3, 2, generator=generator) * size,
        "point_labels": torch.tensor([[1.0, 0.0, -1.0]] * 2),
    }
    boxes = torch.tensor([[1.0, 2.0, 30.0, 40.0]] * 2)
    loss = torch.zeros(())
    for prompts in ({"mask_input": mask_input, "boxes": boxes}, {"boxes": boxes}):
        for multimask_output in (True, False):
            logits, ious = model.decode(
                features, **points, **prompts, multimask_output=multimask_output
            )
            loss = loss + logits.square().mean() + ious.square().mean()
    loss.backward()
    without = [
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert not without, f"no gradient for {without}"


@pytest.mark.parametrize("shape", [(1, 3, 64, 80), (3, 80, 80), (1, 1, 80, 80)])
@pytest.mark.parametrize("name", ["one-window", "tiny-vit"])
def test_another_input_shape_is_refused(shrunken_models, name, shape):
    encoder = shrunken_models[name]().image_encoder
    with pytest.raises(InputError, match=r"expects \(B, 3, 80, 80\), got"):
        encoder(torch.zeros(shape))


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="multiple of patch_size, got 100 and 16"):
        ImageEncoderViT(img_size=100)
    with pytest.raises(ValueError, match="num_heads must divide the width, got 5 heads for 24"):
        Attention(24, num_heads=5, size=(2, 2))


@pytest.mark.parametrize("block", [1, 10, 10**6])
@pytest.mark.parametrize("size", [(7, 5), (4, 8), (3, 2), (9, 9)])
def test_windows_equal_attention_in_each_padded_window(monkeypatch, size, block):
    monkeypatch.setattr(image_encoder, "BLOCK_TOKENS", block)
    torch.manual_seed(0)
    attention = Attention(8, num_heads=2, size=(4, 4))
    x = torch.randn(2, *size, 8)
    seen = []
    attention.qkv.register_forward_hook(lambda _, given, out: seen.append(given[0].numel() // 8))
    with torch.no_grad():
        found = attention.in_windows(x, 4)
        projected = sum(seen)
        windows, padded_size = window_partition(x, 4)
        expected = window_unpartition(attention(windows), padded_size, size)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert projected == 2 * size[0] * size[1]  # the padding is not projected


def test_blocks_do_not_change_what_the_encoder_gives(monkeypatch):
    torch.manual_seed(0)
    encoder = ImageEncoderViT(
        img_size=48, patch_size=4, embed_dim=8, depth=2, num_heads=2, window_size=5,
        global_attn_indexes=(1,), out_chans=4,
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = encoder(x)
        monkeypatch.setattr(image_encoder, "BLOCK_TOKENS", 7)
        torch.testing.assert_close(encoder(x), expected, atol=1e-5, rtol=0)
