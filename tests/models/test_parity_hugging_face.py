"""Our SAM against transformers' SamModel: the same weights, read from its saved folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from promptseg.models.checkpoint import load_strictly, read_state_dict
from promptseg.models.embedding import ImageFeatures
from promptseg.models.errors import CheckpointError
from promptseg.models.sam.build import build_sam_vit
from promptseg.models.sam.checkpoints import to_official_layout
from promptseg.models.sam.sam import Sam

from ..shrunken import SHRUNKEN_VITS

TOLERANCE = 1e-4

CONFIG = replace(SHRUNKEN_VITS["padded-windows"], iou_head_depth=4)


@pytest.fixture(scope="module")
def reference() -> transformers.SamModel:
    """A shrunken SamModel whose every parameter is random."""
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": 112,
            "patch_size": 16,
            "window_size": 3,
            "global_attn_indexes": [1],
            "output_channels": 32,
            "num_pos_feats": 16,
            "mlp_dim": 192,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 112, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_attention_heads": 4,
            "iou_head_depth": 4,
            "iou_head_hidden_dim": 24,
        },
    )
    model = transformers.SamModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise if parameter.ndim > 1 else 1 + 0.2 * noise)
    return model


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory) -> Path:
    """The model saved as one safetensors file."""
    path = tmp_path_factory.mktemp("single")
    reference.save_pretrained(path)
    return path


def load(path: Path) -> Sam:
    model = build_sam_vit(CONFIG).eval()
    state = to_official_layout(read_state_dict(path))
    load_strictly(model, state, source=path, name="a shrunken SAM")
    return model


@pytest.fixture(scope="module")
def ours(folder) -> Sam:
    return load(folder)


def prompts_of(kinds: str, count: int) -> dict[str, Tensor]:
    """Random prompts of the named kinds for our decoder, in pixels of the model input."""
    generator = torch.Generator().manual_seed(count)
    prompts = {}
    if "points" in kinds or "padded" in kinds:
        prompts["point_coords"] = 112 * torch.rand(count, 4, 2, generator=generator)
        labels = torch.randint(0, 2, (count, 4), generator=generator)
        if "padded" in kinds:
            labels[:, 2:] = -1
        prompts["point_labels"] = labels
    if "boxes" in kinds:
        corners = 112 * torch.rand(count, 2, 2, generator=generator)
        prompts["boxes"] = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    if "masks" in kinds:
        prompts["mask_input"] = 4 * torch.randn(count, 1, 28, 28, generator=generator)
    return prompts


def decode_reference(
    reference, embedding: Tensor, prompts: dict[str, Tensor], multimask_output: bool
) -> tuple[Tensor, Tensor]:
    """What SamModel gives for B prompts on one image: logits (B, C, h, w) and IoU (B, C).

    SamModel takes several points or boxes an image, but one mask. So B prompts with masks go in
    as a batch of B images of the same embedding, one prompt each.
    """
    count = len(next(iter(prompts.values())))
    images = count if "mask_input" in prompts else 1

    def by_image(name: str) -> Tensor | None:
        tensor = prompts.get(name)
        return None if tensor is None else tensor.unflatten(0, (images, -1))

    found = reference(
        image_embeddings=embedding.expand(images, -1, -1, -1),
        input_points=by_image("point_coords"),
        input_labels=by_image("point_labels"),
        input_boxes=by_image("boxes"),
        input_masks=prompts.get("mask_input"),
        multimask_output=multimask_output,
    )
    return found.pred_masks.flatten(0, 1), found.iou_scores.flatten(0, 1)


def assert_same(ours: Sam, reference, features: ImageFeatures, prompts, multimask_output) -> None:
    logits, ious = ours.decode(features, **prompts, multimask_output=multimask_output)
    expected = decode_reference(reference, features.image_embeddings, prompts, multimask_output)
    count = len(next(iter(prompts.values())))
    assert logits.shape == (count, 3 if multimask_output else 1, 28, 28)
    torch.testing.assert_close(logits, expected[0], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(ious, expected[1], atol=TOLERANCE, rtol=0)
    assert expected[0].std() > 1e-2  # weights that give nothing would agree by chance


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
def test_masks_and_iou_predictions(ours, reference, kinds, count, multimask_output):
    """A padding point has the label -1 in both.

    The -10 with which transformers' processor fills up prompts of unequal length has no
    counterpart: it makes a token of zeros, which the official model never sees.
    """
    embedding = torch.randn(1, 32, 7, 7, generator=torch.Generator().manual_seed(1))
    prompts = prompts_of(kinds, count)
    assert_same(ours, reference, ImageFeatures(embedding), prompts, multimask_output)


@pytest.mark.parametrize("size", [(70, 150), (150, 70), (112, 112)])
@torch.no_grad()
def test_from_an_image_of_any_shape(ours, reference, size):
    """Resizing, normalising and padding included, from pixels to masks."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    # The processor that resizes with Pillow, as the official code; its name before version 5
    # was the other's.
    fallback = transformers.SamImageProcessor
    processor = getattr(transformers, "SamImageProcessorPil", fallback)(
        size={"longest_edge": 112}, pad_size={"height": 112, "width": 112}
    )
    expected = processor(image, return_tensors="pt")
    pixel_values, input_size = ours.preprocess(image)
    assert input_size == tuple(expected["reshaped_input_sizes"][0].tolist())
    torch.testing.assert_close(pixel_values, expected["pixel_values"], atol=1e-5, rtol=0)
    features = ours.encode_image(pixel_values)
    embeddings = reference.get_image_embeddings(expected["pixel_values"])
    torch.testing.assert_close(features.image_embeddings, embeddings, atol=TOLERANCE, rtol=0)
    assert embeddings.std() > 0.1
    for multimask_output in (True, False):
        assert_same(ours, reference, features, prompts_of("points+boxes", 3), multimask_output)


def test_every_way_of_saving_gives_the_same_weights(reference, folder, tmp_path):
    expected = load(folder).state_dict()
    reference.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    (tmp_path / "bin").mkdir()
    torch.save(reference.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    sources = [
        folder / "model.safetensors",
        tmp_path / "sharded",
        tmp_path / "sharded" / "model.safetensors.index.json",
        tmp_path / "bin",
    ]
    for source in sources:
        for name, tensor in load(source).state_dict().items():
            assert torch.equal(tensor, expected[name]), (source, name)


def test_positions_under_both_names(folder, tmp_path):
    """Files on the hub hold the shared matrix twice."""
    state = load_file(folder / "model.safetensors")
    shared = state["shared_image_embedding.positional_embedding"]
    twin = "prompt_encoder.shared_embedding.positional_embedding"
    save_file({**state, twin: shared.clone()}, tmp_path / "both.safetensors")
    matrix = load(tmp_path / "both.safetensors").prompt_encoder.pe_layer
    assert torch.equal(matrix.positional_encoding_gaussian_matrix, shared)
    save_file({**state, twin: shared + 1}, tmp_path / "differ.safetensors")
    with pytest.raises(CheckpointError, match="differ, expected one matrix"):
        load(tmp_path / "differ.safetensors")


def test_a_missing_shard_is_named(reference, tmp_path):
    reference.save_pretrained(tmp_path, max_shard_size="60KB")
    lost = sorted(tmp_path.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=rf"{lost.name} is missing"):
        load(tmp_path)


def test_an_index_cannot_name_files_elsewhere(folder, tmp_path):
    index = {"weight_map": {"a": f"../{folder.name}/model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="not a file beside it"):
        load(tmp_path)
