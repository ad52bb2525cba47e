"""Our SAM against the segment-anything package with the same random weights."""

from __future__ import annotations

import pytest
import torch
from segment_anything import build_sam_vit_b
from torch import Tensor

from promptseg.models import create_model
from promptseg.models.embedding import ImageFeatures

TOLERANCE = 1e-4


def prompts_of(kinds: str, count: int, image_size: int, mask_size: tuple[int, int]) -> dict:
    """Random prompts; ``kinds`` names them: points, padded (points with padding), boxes, masks."""
    generator = torch.Generator().manual_seed(count)
    prompts: dict[str, Tensor] = {}
    if "points" in kinds or "padded" in kinds:
        prompts["point_coords"] = torch.rand(count, 4, 2, generator=generator) * image_size
        labels = torch.randint(0, 2, (count, 4), generator=generator)
        if "padded" in kinds:
            labels[:, 2:] = -1
        prompts["point_labels"] = labels.float()
    if "boxes" in kinds:
        corners = torch.rand(count, 2, 2, generator=generator) * image_size
        prompts["boxes"] = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    if "masks" in kinds:
        prompts["mask_input"] = 4 * torch.randn(count, 1, *mask_size, generator=generator)
    return prompts


def decode_official(model, embeddings: Tensor, prompts: dict, multimask_output: bool):
    points = None
    if "point_coords" in prompts:
        points = (prompts["point_coords"], prompts["point_labels"])
    sparse, dense = model.prompt_encoder(
        points=points, boxes=prompts.get("boxes"), masks=prompts.get("mask_input")
    )
    return model.mask_decoder(
        image_embeddings=embeddings,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask_output,
    )


@torch.no_grad()
def test_image_embeddings(pair):
    size = pair.config.image_size
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = pair.official.image_encoder(pixels)
    torch.testing.assert_close(pair.ours.image_encoder(pixels), expected, atol=TOLERANCE, rtol=0)
    assert expected.std() > 0.1  # random weights that give nothing would agree by chance


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("count", [1, 32])
@pytest.mark.parametrize(
    "kinds",
    [
        "points",
        "padded",
        "boxes",
        "masks",
        "points+boxes",
        "padded+boxes",
        "points+masks",
        "boxes+masks",
        "points+boxes+masks",
    ],
)
@torch.no_grad()
def test_masks_and_iou_predictions(pair, kinds, count, multimask_output):
    mask_size = pair.ours.mask_input_size
    prompts = prompts_of(kinds, count, pair.config.image_size, mask_size)
    grid = pair.config.image_size // pair.config.patch_size
    embeddings = torch.randn(
        1, pair.config.prompt_embed_dim, grid, grid, generator=torch.Generator().manual_seed(1)
    )
    logits, ious = pair.ours.decode(
        ImageFeatures(embeddings), **prompts, multimask_output=multimask_output
    )
    expected = decode_official(pair.official, embeddings, prompts, multimask_output)
    assert logits.shape == (count, 3 if multimask_output else 1, *mask_size)
    torch.testing.assert_close(logits, expected[0], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(ious, expected[1], atol=TOLERANCE, rtol=0)
    assert expected[0].std() > 1e-2


@torch.no_grad()
def test_vit_b_at_full_size():
    """The sizes and the 1024 pixels of the published ViT-B, from image to masks."""
    ours = create_model("sam_vit_b", seed=3)
    reference = build_sam_vit_b()
    reference.load_state_dict(ours.state_dict())
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(1, 3, 1024, 1024, generator=generator)
    features = ours.encode_image(pixels)
    expected = reference.image_encoder(pixels)
    torch.testing.assert_close(features.image_embeddings, expected, atol=TOLERANCE, rtol=0)
    prompts = prompts_of("points+boxes", 2, 1024, (256, 256))
    logits, ious = ours.decode(features, **prompts, multimask_output=True)
    expected = decode_official(reference, expected, prompts, True)
    torch.testing.assert_close(logits, expected[0], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(ious, expected[1], atol=TOLERANCE, rtol=0)
