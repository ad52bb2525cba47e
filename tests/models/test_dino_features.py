"""Our DINO features against transformers' Dinov2 models with the same weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from promptseg.models.checkpoint import load_strictly, read_state_dict
from promptseg.models.errors import CheckpointError, InputError, ModelNotFoundError
from promptseg.models.features.dino import DinoFeatures, create_dino, to_timm_layout
from promptseg.models.preprocess import to_pixel_values

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 84, 3), dtype=np.uint8)
SIZE = 56


def tiny_timm(registers: int) -> VisionTransformer:
    return VisionTransformer(
        img_size=SIZE,
        patch_size=14,
        embed_dim=24,
        depth=3,
        num_heads=2,
        mlp_ratio=2,
        num_classes=0,
        init_values=1e-5,
        reg_tokens=registers,
        no_embed_class=registers > 0,
        dynamic_img_size=True,
    )


def tiny_reference(registers: int) -> transformers.PreTrainedModel:
    sizes = {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "image_size": SIZE,
        "patch_size": 14,
    }
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**sizes, num_register_tokens=registers)
        model = transformers.Dinov2WithRegistersModel(config)
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise if parameter.ndim > 1 else 1 + 0.2 * noise)
    return model.eval()


def pixel_values(size: tuple[int, int]) -> torch.Tensor:
    """The input by ImageNet's figures, as DINO's own pre-processing has it."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255
    return to_pixel_values(IMAGE, size, mean=mean, std=std, pad_to=size)


@pytest.mark.parametrize("registers", [0, 4])
def test_features_equal_transformers(registers: int, tmp_path: Path) -> None:
    reference = tiny_reference(registers)
    reference.save_pretrained(tmp_path)
    model = tiny_timm(registers)
    load_strictly(model, to_timm_layout(read_state_dict(tmp_path)), source=tmp_path, name="tiny")
    square = np.ascontiguousarray(IMAGE[:, :60])
    extractor = DinoFeatures(model, input_size=SIZE, model_id="tiny")
    features = extractor.extract(square)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255
    size = (SIZE, SIZE)
    with torch.no_grad():
        outputs = reference(to_pixel_values(square, size, mean=mean, std=std, pad_to=size))
    expected = outputs.last_hidden_state[0]
    torch.testing.assert_close(
        features.tokens, expected[1 + registers :].view(4, 4, 24), rtol=1e-4, atol=1e-4
    )


def test_any_size_by_interpolated_positions() -> None:
    """At sizes of its own grid alone do both interpolate alike; here the shapes are checked."""
    torch.manual_seed(0)
    extractor = DinoFeatures(tiny_timm(0), input_size=100, model_id="tiny")
    features = extractor.extract(IMAGE)
    # 100 x 71 pixels come nearest to 7 x 5 patches.
    assert features.grid_size == (5, 7)
    assert features.input_size == (70, 98)
    assert features.image_size == (60, 84)
    assert features.cell_size == (12.0, 12.0)
    assert features.tokens.shape == (5, 7, 24)
    assert features.tokens.dtype == torch.float32
    tiny = extractor.extract(IMAGE[:1, :])
    assert tiny.grid_size == (1, 7)
    with torch.no_grad():
        x = extractor.model.forward_features(pixel_values((70, 98)))
    torch.testing.assert_close(features.tokens, x[0, 1:].view(5, 7, 24), rtol=1e-4, atol=1e-5)


def test_the_original_layout_is_understood() -> None:
    # facebookresearch's names are timm's but for the mask token and the registers' positions.
    torch.manual_seed(0)
    model = tiny_timm(4)
    state = {name: torch.randn_like(tensor) for name, tensor in model.state_dict().items()}
    original = dict(state)
    position = torch.randn(1, 1, 24)
    original["cls_token"] = state["cls_token"] - position
    original["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
    original["register_tokens"] = original.pop("reg_token")
    original["mask_token"] = torch.zeros(1, 24)
    found = to_timm_layout(original)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(found[name], tensor, msg=name)
    # timm's own layout is left as it is.
    assert to_timm_layout(state) == state


@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch14_dinov2.lvd142m",
        "vit_small_patch14_reg4_dinov2",
        "vit_small_patch16_dinov3.lvd1689m",
    ],
)
def test_models_by_name(name: str, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    extractor = create_dino(name, input_size=64, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    features = extractor.extract(IMAGE)
    patch = 16 if "patch16" in name else 14
    grid = (round(46 / patch), round(64 / patch))
    assert features.tokens.shape == (*grid, 384)
    assert features.tokens.isfinite().all()
    assert features.model_id == f"{name} (64 px)"
    # The same from a file, whatever the seed.
    path = tmp_path / "model.safetensors"
    save_file(extractor.model.state_dict(), path)
    again = create_dino(name, checkpoint=tmp_path, input_size=64, seed=2)
    torch.testing.assert_close(again.extract(IMAGE).tokens, features.tokens)


def test_all_names_are_timms() -> None:
    for size in ("small", "base", "large"):
        for rest in ("patch14_dinov2", "patch14_reg4_dinov2", "patch16_dinov3"):
            assert timm.is_model(f"vit_{size}_{rest}")


@pytest.mark.parametrize("name", ["dinov2", "vit_small_patch16_224", "vit_small_patch14_dinov3"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"no DINO model is called '{name}'"):
        create_dino(name)


def test_a_model_newer_than_timm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "is_model", lambda name: False)
    with pytest.raises(ModelNotFoundError, match="pip install -U timm"):
        create_dino("vit_small_patch16_dinov3")


def test_another_models_weights_are_refused(tmp_path: Path) -> None:
    save_file(tiny_timm(0).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not fit vit_small_patch14_dinov2"):
        create_dino("vit_small_patch14_dinov2", checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        create_dino("vit_small_patch14_dinov2", checkpoint=tmp_path / "none.safetensors")
    assert "timm" in sys.modules


def test_a_size_must_be_positive() -> None:
    with pytest.raises(InputError, match="input_size must be 1 pixel or more, got 0"):
        DinoFeatures(tiny_timm(0), input_size=0)


def test_the_size_is_part_of_the_model_id() -> None:
    model = tiny_timm(0)
    ids = {DinoFeatures(model, input_size=size, model_id="tiny").model_id for size in (56, 70)}
    assert ids == {"tiny (56 px)", "tiny (70 px)"}


def test_half_precision_gives_nearly_the_same_features_in_float32() -> None:
    model = tiny_timm(0)
    full, half = (
        DinoFeatures(model, input_size=SIZE, dtype=dtype).extract(IMAGE)
        for dtype in ("fp32", "bf16")
    )
    assert half.tokens.dtype == torch.float32
    assert not torch.equal(half.tokens, full.tokens)
    torch.testing.assert_close(half.tokens, full.tokens, rtol=0, atol=0.1)
    with pytest.raises(InputError, match="no dtype 'int8'"):
        create_dino("vit_small_patch14_dinov2", dtype="int8")
