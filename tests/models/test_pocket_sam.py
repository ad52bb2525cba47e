"""The pocket SAM, shrunken; its drawn prompts against NumPy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from promptseg.models.embedding import ImageFeatures
from promptseg.models.errors import CheckpointError
from promptseg.models.pocket.backbone import CHANNELS, DEEP_STAGES, imagenet_state_dict
from promptseg.models.pocket.sam import (
    BACKBONE_PREFIX,
    MASK_EVIDENCE,
    POINT_SIGMAS,
    PROMPT_CHANNELS,
    PocketSam,
    build_pocket_sam,
    mask_evidence,
    with_backbone,
)
from promptseg.models.registry import create_model

from ..shrunken import POCKET

SQUARE = 24  # of the logits: 4 x a grid of 96 / 16


@pytest.fixture(scope="module")
def model() -> PocketSam:
    torch.manual_seed(0)
    return build_pocket_sam(POCKET).eval()


def encode(model: PocketSam, height: int, width: int) -> ImageFeatures:
    pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.encode_image(pixels)


@pytest.fixture(scope="module")
def features(model) -> ImageFeatures:
    """Of a picture in landscape."""
    return encode(model, 64, 96)


def all_prompts() -> dict[str, Tensor]:
    """Three prompts of every kind, with background and padding clicks."""
    generator = torch.Generator().manual_seed(2)
    return {
        "point_coords": torch.tensor(
            [[[5.0, 9], [40, 30]], [[80, 3], [1, 1]], [[47, 32], [9, 60]]]
        ),
        "point_labels": torch.tensor([[1, 0], [1, -1], [0, 1]]),
        "boxes": torch.tensor([[0.0, 0, 50, 40], [60, 0, 95, 20], [10, 10, 60, 63]]),
        "mask_input": 5 * torch.randn(3, 1, SQUARE, SQUARE, generator=generator),
    }


@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 96), (96, 32), (32, 96)])
@torch.no_grad()
def test_shapes(model, height: int, width: int) -> None:
    features = encode(model, height, width)
    assert features.image_embeddings.shape == (1, 16, height // 16, width // 16)
    assert [tuple(f.shape) for f in features.high_res_features] == [
        (1, 8, height // 8, width // 8),
        (1, 4, height // 4, width // 4),
    ]
    assert [f.shape[1] for f in features.backbone_features] == list(CHANNELS)
    for multimask, count in ((True, 3), (False, 1)):
        logits, iou = model.decode(features, **all_prompts(), multimask_output=multimask)
        assert logits.shape == (3, count, SQUARE, SQUARE)
        assert iou.shape == (3, count)
        assert ((iou >= 0) & (iou <= 1)).all()


@torch.no_grad()
def test_beyond_the_picture_the_logits_repeat_its_border(model, features) -> None:
    prompts = all_prompts()
    del prompts["boxes"]  # they would cut the masks off
    inside, iou = model.decode_all(
        features,
        points=(prompts["point_coords"], prompts["point_labels"]),
        boxes=None,
        masks=prompts["mask_input"],
    )
    assert inside.shape == (3, 4, 16, 24)
    logits, ambiguous = model.decode(features, **prompts, multimask_output=True)
    single, first = model.decode(features, **prompts, multimask_output=False)
    assert torch.equal(torch.cat([single, logits], 1)[:, :, :16], inside)
    assert torch.equal(torch.cat([first, ambiguous], 1), iou)
    assert torch.equal(logits[:, :, 16:], logits[:, :, 15:16].expand(-1, -1, 8, -1))


@pytest.mark.parametrize("kinds", ["pb", "p", "b", "m", "pbm"])
@torch.no_grad()
def test_a_batch_equals_one_by_one(model, features, kinds: str) -> None:
    given = {
        name: value
        for name, value in all_prompts().items()
        if name[0] in kinds  # the initial letters of points, boxes and mask
    }
    logits, iou = model.decode(features, **given)
    assert logits.flatten(1).std(0).max() > 1e-3  # the prompts matter
    for i in range(3):
        alone, alone_iou = model.decode(features, **{k: v[i : i + 1] for k, v in given.items()})
        torch.testing.assert_close(logits[i : i + 1], alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(iou[i : i + 1], alone_iou, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_place_of_a_padding_click_does_not_matter(model, features) -> None:
    prompts = all_prompts()
    moved = prompts["point_coords"].clone()
    moved[1, 1] = torch.tensor([77.0, 55.0])  # its label is -1
    before = model.decode(features, **prompts)
    after = model.decode(features, **{**prompts, "point_coords": moved})
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    moved[1, 0] = torch.tensor([70.0, 50.0])  # its label is 1
    after = model.decode(features, **{**prompts, "point_coords": moved})
    assert not torch.allclose(before[0], after[0], atol=1e-5)


@torch.no_grad()
def test_draw_points_is_the_gaussian_of_the_nearest_click(model) -> None:
    coords = np.array([[[10.0, 20.0], [90.0, 70.0], [33.0, 5.0]], [[1.0, 2.0], [3.0, 4.0], [5, 6]]])
    labels = np.array([[1, 1, 0], [0, -1, -1]])
    expected = np.zeros((2, 2 * len(POINT_SIGMAS), SQUARE, SQUARE))
    for b in range(2):
        for group, label in enumerate((1, 0)):
            for s, sigma in enumerate(POINT_SIGMAS):
                for row in range(SQUARE):
                    for column in range(SQUARE):
                        x, y = 4 * column + 2, 4 * row + 2  # a cell spans 4 pixels
                        distances = [
                            math.hypot(x - (u + 0.5), y - (v + 0.5))
                            for (u, v), kind in zip(coords[b], labels[b], strict=True)
                            if kind == label
                        ]
                        if distances:
                            value = math.exp(-(min(distances) ** 2) / (2 * sigma**2))
                            expected[b, len(POINT_SIGMAS) * group + s, row, column] = value
    found = model.prompt_encoder.draw_points(
        torch.tensor(coords, dtype=torch.float32), torch.tensor(labels)
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@torch.no_grad()
def test_draw_boxes_is_one_inside_and_minus_one_outside(model) -> None:
    # Centres of cells are at 2, 6, 10, ...; a box is drawn half a pixel to the right and below.
    boxes = torch.tensor([[5.5, 1.5, 13.5, 5.5], [0.0, 0.0, 95.0, 95.0], [3.0, 3.0, 4.0, 4.0]])
    expected = -np.ones((3, 1, SQUARE, SQUARE))
    expected[0, 0, 0:2, 1:4] = 1  # x 6, 10, 14; y 2, 6
    expected[1] = 1
    np.testing.assert_array_equal(model.prompt_encoder.draw_boxes(boxes).numpy(), expected)


@torch.no_grad()
def test_absent_prompts_are_drawn_as_zeros(model) -> None:
    encoder, prompts = model.prompt_encoder, all_prompts()
    points = (prompts["point_coords"], prompts["point_labels"])
    masks = prompts["mask_input"]
    drawn = encoder.draw(points, prompts["boxes"], masks)
    assert drawn.shape == (3, PROMPT_CHANNELS, SQUARE, SQUARE)
    torch.testing.assert_close(drawn[:, 0], torch.tanh(masks[:, 0] / 4))
    assert (drawn[:, 1] == 1).all()
    none = torch.zeros_like(drawn)
    for part, given in (
        (slice(0, 2), (None, None, masks)),
        (slice(2, 3), (None, prompts["boxes"], None)),
        (slice(3, None), (points, None, None)),
    ):
        expected = none.clone()
        expected[:, part] = drawn[:, part]
        assert torch.equal(encoder.draw(*given), expected)


def test_gradient_reaches_every_trained_parameter(model) -> None:
    model.zero_grad()
    model.image_encoder.backbone.requires_grad_(False)
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    features = model.encode_image(pixels)
    prompts = all_prompts()
    points = (prompts["point_coords"], prompts["point_labels"])
    total = torch.zeros(())
    for boxes, masks in ((None, None), (prompts["boxes"], prompts["mask_input"])):
        logits, iou = model.decode_all(features, points=points, boxes=boxes, masks=masks)
        total = total + logits.square().mean() + iou.square().mean()
    total.backward()
    without = {
        name
        for name, parameter in model.named_parameters()
        if not name.startswith(BACKBONE_PREFIX)
        and (parameter.grad is None or not parameter.grad.any())
    }
    model.zero_grad()
    model.image_encoder.backbone.requires_grad_(True)
    # Kept for the official layout; here an absent mask is drawn as zeros.
    assert without == {"prompt_encoder.no_mask_embed.weight"}


def log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def test_mask_evidence_by_hand() -> None:
    # Of 8 cells 3 are in the mask; one of them is in doubt, and one of the others.
    logits = np.array([[4.0, 3.0, 0.5, -0.5], [-3.0, -4.0, -2.0, -5.0]])
    probabilities = 1 / (1 + np.exp(-logits))
    inside = probabilities[0, :3].sum()
    expected = [
        log_odds((inside + 1) / (3 + probabilities.sum() - inside + 2)),
        log_odds((2 + 1) / (4 + 2)),
        (3 / 8) ** 0.25,
    ]
    found = mask_evidence(torch.tensor(logits)[None, None])
    assert found.shape == (1, 1, MASK_EVIDENCE)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-6)


def test_mask_evidence_tells_a_sharp_mask_from_a_blurred_one() -> None:
    sharp = torch.full((16, 16), -9.0)
    sharp[4:12, 4:12] = 9
    masks = torch.stack([sharp, sharp / 18, torch.full_like(sharp, -9), -sharp]).expand(
        2, 4, 16, 16
    )
    found = mask_evidence(masks)
    assert found.shape == (2, 4, MASK_EVIDENCE)
    assert found.isfinite().all()
    assert torch.equal(found[0], found[1])
    (expected, stability, share) = found[0].unbind(-1)
    assert expected[0] > expected[1] + 2
    assert stability[0] > stability[1] + 2
    torch.testing.assert_close(share**4, torch.tensor([0.25, 0.25, 0, 0.75]))


def test_predicted_iou_does_not_pull_at_the_masks(model, features) -> None:
    points = torch.tensor([[[20.0, 20]]]), torch.tensor([[1]])
    decoder = model.mask_decoder
    model.zero_grad()
    _, iou = model.decode_all(features, points=points, boxes=None, masks=None)
    iou.sum().backward()
    pulled = {name for name, p in decoder.named_parameters() if p.grad is not None and p.grad.any()}
    model.zero_grad()
    assert {"iou_evidence_head.layers.0.weight", "mask_tokens.weight"} <= pulled
    makes_masks = ("output_upscaling.", "output_hypernetworks_mlps.", "fuse_after.")
    assert not any(name.startswith(makes_masks) for name in pulled)


@pytest.fixture(scope="module")
def created() -> PocketSam:
    """The pocket SAM at its real size, with random weights."""
    return create_model("sam_pocket", seed=5)


def test_checkpoint_round_trip(created, tmp_path: Path) -> None:
    save_file(created.state_dict(), tmp_path / "whole.safetensors")
    loaded = create_model("sam_pocket", checkpoint=tmp_path / "whole.safetensors")
    state = loaded.state_dict()
    assert all(torch.equal(state[k], v) for k, v in created.state_dict().items())


def test_a_checkpoint_without_backbone_gets_the_imagenet_one(created, tmp_path: Path) -> None:
    state = created.state_dict()
    trained = {k: v for k, v in state.items() if not k.startswith(BACKBONE_PREFIX)}
    save_file({k: v.half() for k, v in trained.items()}, tmp_path / "trained.safetensors")
    found = create_model("sam_pocket", checkpoint=tmp_path / "trained.safetensors").state_dict()
    assert all(torch.equal(found[k], v.half().float()) for k, v in trained.items())
    for name, value in imagenet_state_dict().items():
        assert torch.equal(found[BACKBONE_PREFIX + name], value)


def test_with_backbone_completes_only_what_is_missing(created) -> None:
    deep = tuple(f"{BACKBONE_PREFIX}blocks.{stage}." for stage in DEEP_STAGES)
    given = {
        name: value
        for name, value in created.state_dict().items()
        if name.startswith(deep) or not name.startswith(BACKBONE_PREFIX)
    }
    completed = with_backbone(given)
    assert completed.keys() == created.state_dict().keys()
    assert all(completed[name] is value for name, value in given.items())
    imagenet = imagenet_state_dict()
    added = completed.keys() - given.keys()
    assert {name.removeprefix(BACKBONE_PREFIX).split(".")[0] for name in added} == {
        "conv_stem", "bn1", "blocks", "conv_head", "bn2", "classifier",
    }  # fmt: skip
    for name in added:
        assert torch.equal(completed[name], imagenet[name.removeprefix(BACKBONE_PREFIX)])


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    save_file({"image_encoder.pos_embed": torch.zeros(1, 2, 2, 768)}, tmp_path / "b.safetensors")
    # The file's one tensor is counted, none of the backbone's beside it.
    says = r"does not fit sam_pocket: expected \d+ tensors, found 1, .*looks like sam_vit_b"
    with pytest.raises(CheckpointError, match=says):
        create_model("sam_pocket", checkpoint=tmp_path / "b.safetensors")


def test_a_pocket_checkpoint_is_recognised_by_other_models(created, tmp_path: Path) -> None:
    save_file(created.state_dict(), tmp_path / "pocket.safetensors")
    with pytest.raises(CheckpointError, match="looks like sam_pocket"):
        create_model("sam_vit_t", checkpoint=tmp_path / "pocket.safetensors")


@pytest.mark.parametrize("multimask", [False, True])
@torch.no_grad()
def test_lone_boxes_are_decoded_again_with_their_single_mask(model, features, multimask) -> None:
    boxes = torch.tensor([[4.0, 8.0, 40.0, 50.0], [0.0, 0.0, 63.0, 30.0]])
    found, iou = model.decode(features, boxes=boxes, multimask_output=multimask)
    first, first_iou = model.decode_all(features, points=None, boxes=boxes, masks=None)
    height, width = model.mask_input_size
    padding = (0, width - first.shape[-1], 0, height - first.shape[-2])
    given = torch.nn.functional.pad(first[:, :1], padding, mode="replicate")
    again, again_iou = model.decode(
        features, boxes=boxes, mask_input=given, multimask_output=multimask
    )
    torch.testing.assert_close(found, again)
    chosen = slice(1, None) if multimask else slice(0, 1)
    torch.testing.assert_close(iou, (first_iou[:, chosen] + again_iou) / 2)
    assert (iou - again_iou).abs().max() > 1e-5


@torch.no_grad()
def test_a_mask_does_not_reach_out_of_its_box(model, features) -> None:
    boxes = torch.tensor([[16.0, 8.0, 48.0, 40.0]])
    points = {"point_coords": torch.tensor([[[30.0, 20.0]]]), "point_labels": torch.ones(1, 1)}
    logits, _ = model.decode(features, boxes=boxes, **points)
    free, _ = model.decode_all(
        features, points=(points["point_coords"], points["point_labels"]), boxes=boxes, masks=None
    )
    # A cell is 4 pixels: those with their centres in the box are columns 4..11, rows 2..9.
    inside = torch.zeros(logits.shape[-2:], dtype=torch.bool)
    inside[2:10, 4:12] = True
    assert (logits[..., ~inside] <= -4).all()
    torch.testing.assert_close(logits[0, :, 2:10, 4:12], free[0, 1:, 2:10, 4:12])
