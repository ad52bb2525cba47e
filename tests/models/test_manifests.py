"""Names and shapes of the published checkpoints, as golden files.

``PROMPTSEG_UPDATE_GOLDEN=1 pytest tests/models/test_manifests.py`` writes them anew: the ViTs
from the segment-anything package, MobileSAM from the description of its encoder below (its
decoder is SAM's).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import segment_anything
import torch

from promptseg.models import create_model, get_model_info
from promptseg.models.registry import _MODELS, _read_config
from promptseg.models.sam.checkpoints import to_official_layout

GOLDEN = Path(__file__).parent / "golden"
UPDATE = os.environ.get("PROMPTSEG_UPDATE_GOLDEN") == "1"

Manifest = dict[str, list[int]]


def manifest_of(state: Mapping[str, torch.Tensor]) -> Manifest:
    return {name: list(tensor.shape) for name, tensor in sorted(state.items())}


def official_manifest(name: str) -> Manifest:
    with torch.device("meta"):
        model = segment_anything.sam_model_registry[name.removeprefix("sam_")]()
    return manifest_of(model.state_dict())


def conv_bn(prefix: str, shape: list[int]) -> Iterator[tuple[str, list[int]]]:
    yield f"{prefix}.c.weight", shape
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield f"{prefix}.bn.{name}", [shape[0]]
    yield f"{prefix}.bn.num_batches_tracked", []


def affine(prefix: str, shape: list[int]) -> Iterator[tuple[str, list[int]]]:
    yield f"{prefix}.weight", shape
    yield f"{prefix}.bias", shape[:1]


def mobile_sam_encoder() -> Iterator[tuple[str, list[int]]]:
    """TinyViT-5M as MobileSAM publishes it, its unused ImageNet classifier included."""
    dims, depths, heads, windows = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)
    yield from conv_bn("patch_embed.seq.0", [32, 3, 3, 3])
    yield from conv_bn("patch_embed.seq.2", [64, 32, 3, 3])
    for block in range(depths[0]):
        prefix = f"layers.0.blocks.{block}"
        yield from conv_bn(f"{prefix}.conv1", [256, 64, 1, 1])
        yield from conv_bn(f"{prefix}.conv2", [256, 1, 3, 3])
        yield from conv_bn(f"{prefix}.conv3", [64, 256, 1, 1])
    for stage in (0, 1, 2):
        prefix, out = f"layers.{stage}.downsample", dims[stage + 1]
        yield from conv_bn(f"{prefix}.conv1", [out, dims[stage], 1, 1])
        yield from conv_bn(f"{prefix}.conv2", [out, 1, 3, 3])
        yield from conv_bn(f"{prefix}.conv3", [out, out, 1, 1])
    for stage in (1, 2, 3):
        dim = dims[stage]
        for block in range(depths[stage]):
            prefix = f"layers.{stage}.blocks.{block}"
            yield f"{prefix}.attn.attention_biases", [heads[stage], windows[stage] ** 2]
            yield from affine(f"{prefix}.attn.norm", [dim])
            yield from affine(f"{prefix}.attn.qkv", [3 * dim, dim])
            yield from affine(f"{prefix}.attn.proj", [dim, dim])
            yield from affine(f"{prefix}.mlp.norm", [dim])
            yield from affine(f"{prefix}.mlp.fc1", [4 * dim, dim])
            yield from affine(f"{prefix}.mlp.fc2", [dim, 4 * dim])
            yield from conv_bn(f"{prefix}.local_conv", [dim, 1, 3, 3])
    yield from affine("norm_head", [320])
    yield from affine("head", [1000, 320])
    yield "neck.0.weight", [256, 320, 1, 1]
    yield from affine("neck.1", [256])
    yield "neck.2.weight", [256, 256, 3, 3]
    yield from affine("neck.3", [256])


def reference_manifest(name: str) -> Manifest:
    if name != "sam_vit_t":
        return official_manifest(name)
    decoder = official_manifest("sam_vit_b")
    manifest = {k: v for k, v in decoder.items() if not k.startswith("image_encoder.")}
    manifest.update((f"image_encoder.{k}", v) for k, v in mobile_sam_encoder())
    return dict(sorted(manifest.items()))


def golden_manifest(name: str) -> Manifest:
    path = GOLDEN / f"{name}.json"
    if UPDATE:
        lines = [f'"{k}": {json.dumps(v)}' for k, v in reference_manifest(name).items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
    return manifest


@pytest.mark.parametrize("name", ["sam_vit_t", "sam_vit_b", "sam_vit_l", "sam_vit_h"])
def test_names_and_shapes_are_the_published_ones(name):
    golden = golden_manifest(name)
    assert golden == reference_manifest(name)
    with torch.device("meta"):
        ours = _MODELS[name].build(_read_config(name)[1])
    published = {key: torch.empty(shape, device="meta") for key, shape in golden.items()}
    assert manifest_of(ours.state_dict()) == manifest_of(to_official_layout(published))


def test_sizes_of_the_golden_files():
    """Known of the published files: tensors in SAM's, and the megabytes of mobile_sam.pt."""
    assert [len(golden_manifest(f"sam_vit_{size}")) for size in "blh"] == [314, 482, 594]
    elements = sum(torch.Size(shape).numel() for shape in golden_manifest("sam_vit_t").values())
    assert 38.5 < 4 * elements / 2**20 < 38.8


def test_mobile_sam_file_loads(tmp_path):
    """A file of exactly the published names and shapes loads, and its values arrive."""
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(shape, generator=generator) if shape else torch.tensor(7)
        for key, shape in golden_manifest("sam_vit_t").items()
    }
    torch.save(state, tmp_path / "mobile_sam.pt")
    model = create_model("sam_vit_t", checkpoint=tmp_path / "mobile_sam.pt")
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[key]), key


@pytest.mark.parametrize("name", [name for name, family in _MODELS.items() if family])
def test_described_size_is_the_built_size(name):
    with torch.device("meta"):
        model = _MODELS[name].build(_read_config(name)[1])
    assert get_model_info(name).parameters == sum(p.numel() for p in model.parameters())
