"""Our SAM against transformers' SamModel: the same weights, read from its saved folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from promptseg.models.checkpoint import load_strictly, read_state_dict
from promptseg.models.errors import CheckpointError
from promptseg.models.sam.checkpoints import to_official_layout
from promptseg.models.sam.config import SamViTConfig, build_sam_vit
from promptseg.models.sam.sam import Sam

TOLERANCE = 1e-4

CONFIG = SamViTConfig(
    image_size=112,
    embed_dim=48,
    depth=3,
    num_heads=3,
    window_size=3,
    global_attn_indexes=(1,),
    prompt_embed_dim=32,
    decoder_num_heads=4,
    decoder_mlp_dim=64,
    iou_head_depth=4,
    iou_head_hidden_dim=24,
)


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


@torch.no_grad()
def test_outputs(reference, folder):
    ours = load(folder)
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 3, 112, 112, generator=generator)
    points = torch.rand(1, 5, 3, 2, generator=generator) * 112
    labels = torch.tensor([[1, 0, 1]]).repeat(1, 5, 1)
    corners = torch.rand(1, 5, 2, 2, generator=generator) * 112
    boxes = torch.cat([corners.amin(2), corners.amax(2)], dim=2)
    features = ours.encode_image(pixels)
    for multimask_output in (True, False):
        expected = reference(
            pixel_values=pixels,
            input_points=points,
            input_labels=labels,
            input_boxes=boxes,
            multimask_output=multimask_output,
        )
        logits, ious = ours.decode(
            features,
            point_coords=points[0],
            point_labels=labels[0],
            boxes=boxes[0],
            multimask_output=multimask_output,
        )
        torch.testing.assert_close(logits, expected.pred_masks[0], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(ious, expected.iou_scores[0], atol=TOLERANCE, rtol=0)
    embeddings = reference.get_image_embeddings(pixels)
    torch.testing.assert_close(features.image_embeddings, embeddings, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_mask_prompt(reference, folder):
    ours = load(folder)
    generator = torch.Generator().manual_seed(2)
    embeddings = torch.randn(1, 32, 7, 7, generator=generator)
    mask = 3 * torch.randn(1, 1, 28, 28, generator=generator)
    _, dense = ours.prompt_encoder(None, None, mask)
    _, expected = reference.prompt_encoder(None, None, None, mask)
    torch.testing.assert_close(dense, expected, atol=TOLERANCE, rtol=0)
    assert embeddings.shape == dense.shape


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
