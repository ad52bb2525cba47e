"""Every formula of dense CLIP against a plain NumPy restatement."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from open_clip.transformer import QuickGELU, VisionTransformer
from scipy.special import erf
from torch import nn

from promptseg.models.grounding.clip.similarity import (
    average_templates,
    global_presence,
    min_max,
    similarity_to_text,
)
from promptseg.models.grounding.clip.vision import dense_features, resize_positions, value_attention

Array = NDArray[np.float64]
WIDTH, HEADS, PATCH, LAYERS = 24, 3, 4, 4


def unit(rows: Array) -> Array:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def random_units(seed: int, *shape: int) -> Array:
    return unit(np.random.default_rng(seed).normal(size=shape))


def as_tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))


def resize(values: Array, size: int) -> Array:
    """Resize the first axis linearly: pixels lie at their centres, beyond the border it repeats."""
    padded = np.concatenate([values[:1]] * 2 + [values] + [values[-1:]] * 2)
    places = (np.arange(size) + 0.5) * len(values) / size - 0.5
    distance = np.abs(places[:, None] - (np.arange(len(padded)) - 2))
    return np.tensordot(np.maximum(0, 1 - distance), padded, axes=1)


class PlainVit:
    """CLIP's image encoder in NumPy, one token at a time in the reader's eyes.

    Holds the weights of an open_clip model by their names.
    """

    def __init__(self, visual: VisionTransformer, activation: str) -> None:
        self.w = {k: v.detach().numpy().astype(float) for k, v in visual.state_dict().items()}
        self.activation = activation

    def norm(self, x: Array, name: str) -> Array:
        if f"{name}.weight" not in self.w:
            return x
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * self.w[f"{name}.weight"] + self.w[
            f"{name}.bias"
        ]

    def heads(self, i: int, x: Array, part: int) -> Array:
        """Queries (0), keys (1) or values (2) of block i, (heads, N, d)."""
        name = f"transformer.resblocks.{i}.attn."
        rows = slice(part * WIDTH, (part + 1) * WIDTH)
        y = x @ self.w[name + "in_proj_weight"][rows].T + self.w[name + "in_proj_bias"][rows]
        return y.reshape(len(x), HEADS, -1).swapaxes(0, 1)

    def attend(self, i: int, x: Array, kind: str) -> Array:
        name = f"transformer.resblocks.{i}."
        q, k, v = (self.heads(i, x, part) for part in range(3))
        scale = (WIDTH // HEADS) ** -0.5
        weights = {
            "qk": lambda: softmax(q @ k.swapaxes(1, 2) * scale),
            "vv": lambda: softmax(v @ v.swapaxes(1, 2) * scale),
        }[kind]()
        y = (weights @ v).swapaxes(0, 1).reshape(len(x), WIDTH)
        y = y @ self.w[name + "attn.out_proj.weight"].T + self.w[name + "attn.out_proj.bias"]
        return y * self.w.get(name + "ls_1.gamma", 1.0)

    def feed_forward(self, i: int, x: Array) -> Array:
        name = f"transformer.resblocks.{i}."
        y = self.norm(x, name + "ln_2")
        y = y @ self.w[name + "mlp.c_fc.weight"].T + self.w[name + "mlp.c_fc.bias"]
        if self.activation == "quick":
            y = y / (1 + np.exp(-1.702 * y))
        else:
            y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
        y = y @ self.w[name + "mlp.c_proj.weight"].T + self.w[name + "mlp.c_proj.bias"]
        return y * self.w.get(name + "ls_2.gamma", 1.0)

    def tokens(self, pixels: Array) -> Array:
        """Tokens of an image (3, H, W) at the native size, as they enter the first block."""
        rows, columns = pixels.shape[1] // PATCH, pixels.shape[2] // PATCH
        patches = pixels.reshape(3, rows, PATCH, columns, PATCH).transpose(1, 3, 0, 2, 4)
        x = patches.reshape(rows * columns, -1) @ self.w["conv1.weight"].reshape(WIDTH, -1).T
        x = np.concatenate([self.w["class_embedding"][None], x]) + self.w["positional_embedding"]
        return self.norm(x, "ln_pre")

    def run(self, pixels: Array, kind: str, blocks: int) -> tuple[Array, Array]:
        """Tokens of the dense path without the class token, and all of the original path."""
        x = self.tokens(pixels)
        new = None
        for i in range(LAYERS):
            normed = self.norm(x, f"transformer.resblocks.{i}.ln_1")
            if kind == "surgery" and i >= LAYERS - blocks:
                new = (x if new is None else new) + self.attend(i, normed, "vv")
            x = x + self.attend(i, normed, "qk")
            x = x + self.feed_forward(i, x)
        return (x if new is None else new)[1:], x


VARIANTS = {
    "openai": {"act_layer": QuickGELU},
    "laion": {},
    "layer-scale": {"ls_init_value": 0.5},
    "clipa": {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
    "average": {"pool_type": "avg"},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> tuple[VisionTransformer, PlainVit]:
    """An image encoder of each kind that open_clip has, beside its restatement."""
    options = VARIANTS[request.param]
    visual = VisionTransformer(
        image_size=(12, 20),
        patch_size=PATCH,
        width=WIDTH,
        layers=LAYERS,
        heads=HEADS,
        mlp_ratio=2,
        output_dim=10,
        **options,
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in visual.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise if parameter.ndim > 1 else parameter + 0.3 * noise)
    return visual, PlainVit(visual, "quick" if "act_layer" in options else "exact")


PIXELS = np.random.default_rng(1).normal(size=(3, 12, 20))


@torch.inference_mode()
@pytest.mark.parametrize(
    ("kind", "blocks"), [("surgery", 1), ("surgery", 3), ("surgery", 9), ("none", 6)]
)
def test_dense_paths(
    variant: tuple[VisionTransformer, PlainVit], kind: str, blocks: int, request
) -> None:
    visual, plain = variant
    cells, cls = dense_features(visual, as_tensor(PIXELS)[None], attention=kind, blocks=blocks)
    dense, original = plain.run(PIXELS, kind, blocks)
    projection = plain.w["proj"]
    wanted = (plain.norm(dense, "ln_post") @ projection).reshape(3, 5, -1)
    np.testing.assert_allclose(cells.numpy(), wanted, rtol=1e-4, atol=1e-5)
    if "clipa" in request.node.callspec.params["variant"]:
        pooled = plain.norm(original[1:].mean(0), "ln_post")
    elif "average" in request.node.callspec.params["variant"]:
        pooled = plain.norm(original, "ln_post")[1:].mean(0)
    else:
        pooled = plain.norm(original[0], "ln_post")
    np.testing.assert_allclose(cls.numpy(), pooled @ projection, rtol=1e-4, atol=1e-5)
    # Whatever the cells' path, the whole picture's vector is the model's own.
    torch.testing.assert_close(cls, visual(as_tensor(PIXELS)[None])[0], rtol=0, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["surgery", "none"])
def test_a_larger_picture_is_seen_with_resized_positions(
    variant: tuple[VisionTransformer, PlainVit], kind: str
) -> None:
    visual, plain = variant
    larger = copy.deepcopy(visual)
    positions = plain.w["positional_embedding"]
    grid = resize(positions[1:].reshape(3, 5, WIDTH), 7)
    grid = resize(grid.swapaxes(0, 1), 6).swapaxes(0, 1).reshape(42, WIDTH)
    larger.positional_embedding = nn.Parameter(as_tensor(np.concatenate([positions[:1], grid])))
    pixels = torch.randn(1, 3, 28, 24, generator=torch.Generator().manual_seed(0))
    cells, cls = dense_features(visual, pixels, attention=kind, blocks=2)
    assert cells.shape == (7, 6, 10)
    torch.testing.assert_close(cls, larger(pixels)[0], rtol=0, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
def test_attention_of_values(bias: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, bias=bias, batch_first=True)
    if bias:
        for tensor in (attention.in_proj_bias, attention.out_proj.bias):
            tensor.copy_(torch.randn(tensor.shape))
    x = torch.randn(1, 5, 8)
    weight = attention.in_proj_weight.numpy().astype(float)
    offset = attention.in_proj_bias.numpy() if bias else np.zeros(24)
    projected = x[0].numpy().astype(float) @ weight.T + offset
    heads = []
    for head in range(2):
        v = projected[:, 16 + 4 * head :][:, :4]
        heads.append(softmax(v @ v.T / 2) @ v)  # sqrt(4) is 2
    wanted = np.concatenate(heads, axis=1) @ attention.out_proj.weight.numpy().T
    wanted = wanted + (attention.out_proj.bias.numpy() if bias else 0)
    found = value_attention(attention, x)[0].numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_positions_are_resized() -> None:
    positions = np.random.default_rng(0).normal(size=(1 + 3 * 4, 6))
    found = resize_positions(as_tensor(positions), (3, 4), (7, 5)).numpy()
    grid = resize(positions[1:].reshape(3, 4, 6), 7)
    grid = resize(grid.swapaxes(0, 1), 5).swapaxes(0, 1)
    np.testing.assert_allclose(found[1:], grid.reshape(35, 6), atol=1e-5)
    np.testing.assert_allclose(found[:1], positions[:1], atol=1e-7)


def test_positions_at_the_native_grid_are_unchanged() -> None:
    positions = torch.randn(1 + 12, 6, generator=torch.Generator().manual_seed(0))
    assert resize_positions(positions, (3, 4), (3, 4)) is positions


def test_template_average() -> None:
    features = np.random.default_rng(0).normal(size=(7, 5)) * np.arange(1, 8)[:, None]
    mean = unit(features).mean(0)
    found = average_templates(as_tensor(features)).numpy()
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-6)


def test_a_single_text_is_held_against_the_empty_one() -> None:
    cells, text, empty = random_units(0, 6, 5), random_units(1, 5), random_units(2, 5)
    wanted = [float(cell @ text - cell @ empty) for cell in cells]
    found = similarity_to_text(as_tensor(cells), as_tensor(text), as_tensor(empty))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_min_max() -> None:
    similarity = np.array([0.3, -0.1, 0.1, 0.7])
    found = min_max(as_tensor(similarity)).numpy()
    np.testing.assert_allclose(found, (similarity + 0.1) / 0.8, atol=1e-6)
    assert min_max(torch.full((4,), 0.3)).tolist() == [0.0] * 4
    assert min_max(0.3 + torch.tensor([0.0, 1e-7])).tolist() == [0.0] * 2


@pytest.mark.parametrize("count", [0, 1, 4])
def test_presence(count: int) -> None:
    cls, text, rivals = random_units(0, 5), random_units(1, 5), random_units(2, count, 5)
    odds = [np.exp(20 * float(rival @ cls)) for rival in rivals]
    own = np.exp(20 * float(text @ cls))
    found = global_presence(as_tensor(cls), as_tensor(text), as_tensor(rivals), 20.0)
    assert found == pytest.approx(own / (own + sum(odds)), abs=1e-5)
