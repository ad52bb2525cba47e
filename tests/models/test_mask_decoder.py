"""What all prompts of an image share is projected once, and changes nothing."""

from __future__ import annotations

import pytest
import torch

from promptseg.models.sam.mask_decoder import MaskDecoder, _to_map
from promptseg.models.sam.transformer import TwoWayTransformer

WIDTH, GRID, PROMPTS = 16, 6, 5


@pytest.fixture
def decoder() -> MaskDecoder:
    torch.manual_seed(0)
    transformer = TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=2, mlp_dim=32)
    return MaskDecoder(transformer_dim=WIDTH, transformer=transformer).eval()


@torch.no_grad()
def test_one_dense_embedding_for_all_prompts(decoder: MaskDecoder) -> None:
    grid = (WIDTH, GRID, GRID)
    given = {
        "image_embeddings": torch.randn(1, *grid),
        "image_pe": torch.randn(1, *grid),
        "sparse_prompt_embeddings": torch.randn(PROMPTS, 3, WIDTH),
        "multimask_output": True,
    }
    dense = torch.randn(1, *grid)
    projected = []
    attention = decoder.transformer.layers[0].cross_attn_token_to_image
    attention.k_proj.register_forward_hook(lambda *call: projected.append(len(call[2])))
    masks, ious = decoder(**given, dense_prompt_embeddings=dense)
    each, each_iou = decoder(**given, dense_prompt_embeddings=dense.repeat(PROMPTS, 1, 1, 1))
    assert projected == [1, PROMPTS]
    assert masks.shape == (PROMPTS, 3, 4 * GRID, 4 * GRID)
    torch.testing.assert_close(masks, each)
    torch.testing.assert_close(ious, each_iou)


@torch.no_grad()
def test_upscaled_with_the_channels_last(decoder: MaskDecoder) -> None:
    """Masks are those of the layers of output_upscaling, one after the other."""
    height, width = GRID, GRID + 1
    cells = torch.randn(PROMPTS, height * width, WIDTH)
    weights = torch.randn(PROMPTS, 4, WIDTH // 8)
    image = cells.transpose(1, 2).unflatten(2, (height, width))
    expected = torch.einsum("bmc,bchw->bmhw", weights, decoder.output_upscaling(image))
    masks = _to_map(weights @ decoder.upscale(cells).transpose(1, 2), (height, width))
    torch.testing.assert_close(masks, expected)
