"""SAM 2 behind the segmenter against transformers' own forward, on models saved as the hub's."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from promptseg.models.errors import CheckpointError
from promptseg.models.sam.sam2 import Sam2, create_sam2
from promptseg.pipeline.decoding.decode import DecodingConfig, decode_cascade
from promptseg.pipeline.decoding.everything import EverythingConfig, segment_everything
from promptseg.pipeline.decoding.prompts import PromptSet
from promptseg.pipeline.decoding.segmenter import Segmenter
from promptseg.pipeline.masks import masks_to_boxes
from promptseg.pipeline.scoring.ranking import RankingConfig, rank

from ..shrunken import (
    SAM2_DECODER,
    SAM2_POSITIONS,
    SAM2_PROMPTS,
    SAM2_SIDE,
    SAM2_VISION,
    build_sam2,
)

TOLERANCE = 1e-4
SIZES = [(128, 128), (90, 200), (333, 77), (1, 50)]


@pytest.fixture(scope="module")
def network() -> transformers.Sam2Model:
    return build_sam2()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "sam2.1-hiera-shrunken"
    network.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def sam2(folder) -> Sam2:
    return create_sam2(folder)


@pytest.fixture(scope="module")
def processor() -> transformers.Sam2Processor:
    """The published folders' own, at the shrunken size."""
    size = {"height": SAM2_SIDE, "width": SAM2_SIDE}
    return transformers.Sam2Processor(transformers.Sam2ImageProcessor(size=size))


def picture(size: tuple[int, int]) -> np.ndarray:
    """Smooth and rough: (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    smooth = np.array(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))
    rough = rng.integers(-20, 20, smooth.shape)
    return np.clip(smooth.astype(int) + rough, 0, 255).astype(np.uint8)


def prompts_of(kinds: str, size: tuple[int, int], count: int) -> dict[str, np.ndarray]:
    """Prompts of the named kinds in pixels of an image of some size."""
    rng = np.random.default_rng(count)
    wh = np.array(size[::-1])
    prompts = {}
    if "points" in kinds:
        prompts["point_coords"] = rng.random((count, 3, 2)) * wh
        prompts["point_labels"] = np.tile([1, 0, -1 if "padding" in kinds else 1], (count, 1))
    if "boxes" in kinds:
        corners = np.sort(rng.random((count, 2, 2)), axis=1) * wh
        prompts["boxes"] = corners.reshape(count, 4)
    if "masks" in kinds:
        prompts["mask_input"] = 4 * rng.standard_normal((count, 1, 32, 32))
    return prompts


@torch.no_grad()
def forward(network, processor, pixel_values, size, prompts, index, multimask_output):
    """What transformers itself makes of one prompt: logits (C, h, w) and IoU (C,)."""
    given = {}
    if "point_coords" in prompts:
        given["input_points"] = [[prompts["point_coords"][index].tolist()]]
        given["input_labels"] = [[prompts["point_labels"][index].tolist()]]
    if "boxes" in prompts:
        given["input_boxes"] = [[prompts["boxes"][index].tolist()]]
    inputs = dict(processor(original_sizes=[list(size)], return_tensors="pt", **given))
    del inputs["original_sizes"]
    if "mask_input" in prompts:
        inputs["input_masks"] = torch.tensor(prompts["mask_input"][index, None]).float()
    output = network(pixel_values=pixel_values, multimask_output=multimask_output, **inputs)
    return output.pred_masks[0, 0].numpy(), output.iou_scores[0, 0].numpy()


@pytest.mark.parametrize("size", SIZES)
def test_model_input_is_that_of_the_image_processor(sam2, processor, size):
    image = picture(size)
    pixel_values, input_size = sam2.preprocess(image)
    expected = processor.image_processor(
        image, return_tensors="pt", input_data_format="channels_last"
    ).pixel_values
    assert input_size == (SAM2_SIDE, SAM2_SIDE)
    assert pixel_values.shape == expected.shape
    # In levels of 0..255: Pillow's resize and torchvision's may round to neighbouring ones.
    off = (pixel_values - expected).abs() * sam2.pixel_std
    assert off.max() < 1.01
    assert (off > 0.01).float().mean() < 0.005


@pytest.mark.parametrize("multimask_output", [True, False])
@pytest.mark.parametrize("size", [(90, 200), (333, 77)])
@pytest.mark.parametrize(
    "kinds", ["points", "points with padding", "boxes", "masks", "points, boxes", "boxes, masks"]
)
def test_logits_and_iou_are_those_of_transformers(
    network, sam2, processor, kinds, size, multimask_output
):
    image, prompts = picture(size), prompts_of(kinds, size, count=3)
    ours = Segmenter(sam2)
    candidates = ours.decode(ours.encode_image(image), **prompts, multimask_output=multimask_output)
    assert candidates.masks.shape == (3, 3 if multimask_output else 1, *size)
    pixel_values, _ = sam2.preprocess(image)
    for i in range(3):
        logits, ious = forward(network, processor, pixel_values, size, prompts, i, multimask_output)
        np.testing.assert_allclose(candidates.low_res_logits[i], logits, atol=TOLERANCE)
        np.testing.assert_allclose(candidates.iou_predictions[i], ious, atol=TOLERANCE)
    assert not np.allclose(candidates.low_res_logits[0], candidates.low_res_logits[1], atol=1e-2)


@pytest.mark.parametrize("size", [(90, 200), (333, 77)])
def test_masks_are_those_of_the_processor(sam2, processor, size):
    ours = Segmenter(sam2)
    candidates = ours.decode(ours.encode_image(picture(size)), **prompts_of("points", size, 2))
    logits = torch.from_numpy(candidates.low_res_logits)
    expected = torch.stack(
        processor.post_process_masks([*logits.unsqueeze(1)], [size] * 2, binarize=False)
    )[:, 0].numpy()
    clear = np.abs(expected) > TOLERANCE
    assert np.array_equal(candidates.masks[clear], (expected > 0)[clear])
    assert clear.mean() > 0.99
    assert 0.02 < candidates.masks.mean() < 0.98


def test_an_unstable_single_mask_gives_way_to_the_best_of_three(processor, tmp_path):
    """As transformers does, where the configuration says so."""
    size = (90, 200)
    prompts = prompts_of("points", size, count=4)
    found = {}
    for dynamic in (True, False):
        network = build_sam2(
            dynamic_multimask_via_stability=dynamic, dynamic_multimask_stability_delta=0.5
        )
        network.save_pretrained(tmp_path / str(dynamic))
        ours = Segmenter(create_sam2(tmp_path / str(dynamic)))
        embedding = ours.encode_image(picture(size))
        found[dynamic] = ours.decode_low_res(embedding, **prompts, multimask_output=False)
        pixel_values, _ = ours.model.preprocess(picture(size))
        for i in range(4):
            logits, ious = forward(network, processor, pixel_values, size, prompts, i, False)
            np.testing.assert_allclose(found[dynamic].logits[i], logits, atol=TOLERANCE)
            np.testing.assert_allclose(found[dynamic].iou_predictions[i], ious, atol=TOLERANCE)
    several = ours.decode_low_res(embedding, **prompts)
    best = several.select(several.iou_predictions.argmax(1))
    changed = np.abs(found[True].logits - found[False].logits).max((1, 2, 3)) > 1e-2
    assert changed.any()
    np.testing.assert_allclose(found[True].logits[changed], best.logits[changed], atol=TOLERANCE)


def test_a_decoded_mask_refines_itself(network, sam2, processor):
    size = (90, 200)
    ours = Segmenter(sam2)
    embedding = ours.encode_image(picture(size))
    prompts = prompts_of("boxes", size, count=2)
    first = ours.decode(embedding, **prompts, multimask_output=False)
    prompts["mask_input"] = first.low_res_logits
    refined = ours.decode(embedding, **prompts, multimask_output=False)
    pixel_values, _ = sam2.preprocess(picture(size))
    for i in range(2):
        logits, _ = forward(network, processor, pixel_values, size, prompts, i, False)
        np.testing.assert_allclose(refined.low_res_logits[i], logits, atol=TOLERANCE)
    assert not np.allclose(refined.low_res_logits, first.low_res_logits, atol=1e-2)


def test_an_image_is_encoded_once(sam2):
    calls = []
    hook = sam2.model.vision_encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        ours = Segmenter(sam2, batch_size=2)
        embedding = ours.encode_image(picture((90, 200)))
        for kinds in ("points", "boxes", "masks"):
            ours.decode(embedding, **prompts_of(kinds, (90, 200), 5))
    finally:
        hook.remove()
    assert len(calls) == 1
    assert [x.shape[-1] for x in embedding.features.high_res_features] == [16, 32]
    assert embedding.features.image_embeddings.shape == (1, 32, 8, 8)
    assert embedding.model_id == "sam2.1-hiera-shrunken"


def test_the_mask_input_spans_the_stretched_picture(sam2):
    ours = Segmenter(sam2)
    embedding = ours.encode_image(picture((40, 200)))
    logits = np.random.default_rng(0).standard_normal((2, 10, 50)).astype(np.float32)
    expected = F.interpolate(
        torch.from_numpy(logits)[:, None], (32, 32), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(ours.to_mask_input(logits, embedding), expected, atol=1e-6)


def test_boxes_of_low_resolution_masks_are_those_of_the_masks(sam2):
    size = (96, 320)
    ours = Segmenter(sam2)
    embedding = ours.encode_image(picture(size))
    low_res = ours.decode_low_res(
        embedding, **prompts_of("points", size, 4), multimask_output=False
    )
    masks = ours.upscale(embedding, low_res).masks[:, 0]
    cell = np.array([320 / 32, 96 / 32] * 2)
    off = np.abs(ours.low_res_boxes(embedding, low_res) - masks_to_boxes(masks))
    assert masks.any((1, 2)).all()
    assert (off <= cell).all()


def test_the_cascade_and_everything_mode_run_on_it(sam2):
    size = (60, 100)
    ours = Segmenter(sam2)
    embedding = ours.encode_image(picture(size))
    prompts = PromptSet(
        labels=("thing", "thing"),
        prompt_scores=np.ones(2, np.float32),
        point_coords=np.array([[[20, 30]], [[70, 10]]], np.float32),
        point_labels=np.ones((2, 1), np.int64),
    )
    masks = decode_cascade(ours, embedding, prompts, DecodingConfig(refine_passes=2))
    assert masks.logits.shape == (2, 1, 32, 32)
    config = EverythingConfig(
        points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0, crop_n_layers=1
    )
    result = rank(segment_everything(ours, picture(size), config), RankingConfig())
    assert len(result) > 0
    assert result.masks.shape[1:] == size


def test_half_precision_gives_nearly_the_same_masks_in_float32(sam2):
    size = (90, 200)
    prompts = prompts_of("points, boxes", size, 4)
    full, half = (
        ours.decode(ours.encode_image(picture(size)), **prompts)
        for ours in (Segmenter(sam2), Segmenter(sam2, dtype="bf16"))
    )
    assert half.iou_predictions.dtype == half.low_res_logits.dtype == np.float32
    assert not np.array_equal(half.low_res_logits, full.low_res_logits)
    union = (half.masks | full.masks).sum()
    assert (half.masks & full.masks).sum() > 0.95 * union
    np.testing.assert_allclose(half.iou_predictions, full.iou_predictions, atol=0.05)


def test_the_published_folders_are_of_the_video_model(network, sam2, tmp_path):
    sizes = {
        "memory_attention_hidden_size": 32,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [8, 8],
        "memory_encoder_hidden_size": 32,
        "memory_encoder_output_channels": 16,
        "memory_fuser_embed_dim": 32,
        "memory_fuser_intermediate_dim": 32,
        "mask_downsampler_embed_dim": 32,
    }
    video = transformers.Sam2VideoModel(
        transformers.Sam2VideoConfig(
            vision_config=SAM2_VISION,
            prompt_encoder_config=SAM2_PROMPTS,
            mask_decoder_config=SAM2_DECODER,
            image_size=SAM2_SIDE,
            **sizes,
        )
    )
    video.load_state_dict(network.state_dict(), strict=False)
    video.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"
    loaded = create_sam2(tmp_path)
    expected = sam2.state_dict()
    assert set(loaded.state_dict()) == set(expected)
    assert all(torch.equal(x, expected[name]) for name, x in loaded.state_dict().items())


@pytest.mark.parametrize("dropped", SAM2_POSITIONS)
def test_the_matrix_of_positions_may_have_either_name(folder, sam2, tmp_path, dropped):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    state = load_file(tmp_path / "model.safetensors")
    del state[dropped]
    save_file(state, tmp_path / "model.safetensors")
    loaded = create_sam2(str(tmp_path)).state_dict()
    assert torch.equal(loaded[f"model.{dropped}"], sam2.state_dict()[f"model.{dropped}"])


def test_loading_leaves_random_numbers_and_the_console_alone(folder, capfd):
    state = torch.get_rng_state()
    model = create_sam2(folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert capfd.readouterr() == ("", "")


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["no_memory_embedding"]
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"there is no folder .*hf download facebook/sam2\.1-hiera"),
        (lambda path: (path / "config.json").unlink(), "holds no config.json of a model; run"),
        (lambda path: (path / "config.json").write_text("{"), "holds no config.json of a model"),
        (lambda path: (path / "config.json").write_text("[]"), "holds no config.json of a model"),
        (lambda path: edit_config(path, model_type="sam"), "holds a model of type 'sam'; run"),
        (lambda path: edit_config(path, vision_config=3), "config.json does not describe a SAM 2"),
        (lambda path: edit_config(path, vision_config={}), r"does not fit SAM 2: expected \d+"),
        (lambda path: (path / "model.safetensors").unlink(), "holds no weights: expected one of"),
        (drop_a_tensor, r"does not fit SAM 2.*1 missing \(no_memory_embedding\)"),
    ],
)
def test_folders_that_cannot_be_used(folder, tmp_path, spoil, message):
    path = tmp_path / "spoilt"
    shutil.copytree(folder, path)
    spoil(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        create_sam2(path)
    assert "\n" not in str(caught.value)


def test_a_name_on_the_hub_is_no_folder():
    with pytest.raises(CheckpointError, match=r"run `hf download facebook/sam2\.1-hiera-tiny`"):
        create_sam2("facebook/sam2.1-hiera-tiny")


def test_another_model_s_folder(tmp_path):
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": 32,
            "output_channels": 8,
            "mlp_dim": 8,
        },
        prompt_encoder_config={"hidden_size": 8, "image_size": 32},
        mask_decoder_config={"hidden_size": 8, "mlp_dim": 8, "num_attention_heads": 2},
    )
    transformers.SamModel(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds a model of type 'sam'"):
        create_sam2(tmp_path)


def test_without_transformers(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(CheckpointError, match=r"transformers 4\.56 or newer: `pip install"):
        create_sam2(folder)
