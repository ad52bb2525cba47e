"""MobileSAM's encoder against timm's TinyViT and against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.models.tiny_vit import TinyVit as TimmTinyVit

from promptseg.models.sam.tiny_vit import Attention, TinyViT, attention_bias_index


def to_timm_name(name: str) -> str | None:
    """timm's name of our parameter; None for the neck, which timm does not have."""
    if name.startswith("neck."):
        return None
    name = name.replace("patch_embed.seq.0.", "patch_embed.conv1.")
    name = name.replace("patch_embed.seq.2.", "patch_embed.conv2.")
    head, _, rest = name.partition(".")
    if head == "layers":
        number, _, rest = rest.partition(".")
        # timm merges at the start of a stage, the published model at the end of the one before.
        stage = int(number) + 1 if rest.startswith("downsample.") else int(number)
        name = f"stages.{stage}.{rest}"
    return name.replace(".c.weight", ".conv.weight")


@torch.no_grad()
def test_trunk_equals_timm(tiny_vit_sam):
    ours = tiny_vit_sam.image_encoder
    reference = TimmTinyVit(
        embed_dims=(8, 16, 24, 32),
        depths=(1, 2, 1, 2),
        num_heads=(1, 2, 3, 4),
        window_sizes=(7, 3, 5, 4),
        num_classes=0,
        drop_path_rate=0.0,
    ).eval()
    reference.stages[3].downsample.conv2.conv.stride = (1, 1)  # MobileSAM keeps the resolution
    state = {to_timm_name(name): t for name, t in ours.state_dict().items()}
    state.pop(None)
    loaded = reference.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys
    assert all(key.startswith("head.") for key in loaded.missing_keys)

    pixels = torch.randn(2, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    expected = reference.stages(reference.patch_embed(pixels))
    trunk = ours.patch_embed(pixels)
    for stage in ours.layers:
        trunk = stage(trunk)
    assert trunk.shape == (2, 32, 5, 5)
    assert expected.std() > 0.1
    torch.testing.assert_close(trunk, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours(pixels), ours.neck(expected), atol=1e-4, rtol=0)


def test_attention_bias_index_of_a_window_of_two():
    # Tokens (0,0) (0,1) (1,0) (1,1); distances (0,0)=0, (0,1)=1, (1,0)=2, (1,1)=3.
    expected = [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    assert attention_bias_index(2).tolist() == expected


@torch.no_grad()
def test_attention_in_numpy():
    """A window of 3 x 3 with two heads, written out."""
    torch.manual_seed(0)
    attention = Attention(6, num_heads=2, window_size=3).eval()
    torch.nn.init.normal_(attention.attention_biases)
    x = torch.randn(1, 9, 6)
    qkv = attention.qkv(attention.norm(x))[0].double().numpy()
    biases = attention.attention_biases.double().numpy()
    heads = []
    for head in range(2):
        q, k, v = np.split(qkv[:, 9 * head : 9 * head + 9], 3, axis=1)
        scores = q @ k.T / np.sqrt(3)
        for i in range(9):
            for j in range(9):
                dy, dx = abs(i // 3 - j // 3), abs(i % 3 - j % 3)
                scores[i, j] += biases[head, 3 * dy + dx]
        weights = np.exp(scores - scores.max(1, keepdims=True))
        heads.append(weights / weights.sum(1, keepdims=True) @ v)
    expected = attention.proj(torch.from_numpy(np.concatenate(heads, axis=1)).float())
    torch.testing.assert_close(attention(x)[0], expected, atol=1e-5, rtol=0)


def test_stages_are_counted():
    with pytest.raises(ValueError, match="four stages"):
        TinyViT(embed_dims=(8, 16, 32))
