"""Exported models answer as torch does, in both runtimes; what is not one is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from promptseg.models import CheckpointError, InputError, load_exported
from promptseg.models.exported.export import export_sam
from promptseg.models.exported.graphs import DECODER_INPUTS, DECODER_OUTPUTS, pack_maps, unpack_maps
from promptseg.models.exported.manifest import choose_runtime, read_manifest
from promptseg.models.exported.runtimes import open_model
from promptseg.models.exported.vit_graph import to_graph
from promptseg.models.sam.sam import Sam
from promptseg.pipeline import Segmenter
from promptseg.pipeline.decoding.compare import compare_segmenters

from ..shrunken import SHRUNKEN_VITS, Pair, build_pair

PICTURE = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
PORTRAIT = np.ascontiguousarray(PICTURE.transpose(1, 0, 2))


@pytest.fixture(scope="module")
def sam() -> Sam:
    model = build_pair(SHRUNKEN_VITS["padded-windows"]).ours
    model.model_id = "tiny"
    return model


@pytest.fixture(scope="module")
def folder(sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exported")
    export_sam(sam, place, version="1.2.3")
    return place


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_every_kind_of_prompt_gives_the_masks_of_torch(
    sam: Sam, folder: Path, runtime: str
) -> None:
    exported = Segmenter(load_exported(folder, runtime=runtime))
    found = compare_segmenters(Segmenter(sam), exported, [PICTURE, PORTRAIT])
    assert found.masks == 2 * (27 + 9 + 3)
    assert found.largest_logit > 0.1
    assert found.logits < 1e-4
    assert found.iou_prediction < 1e-4
    assert found.least_iou >= 0.99  # a pixel at the threshold may turn
    # A mask alone, which leaves no point at all.
    mask = np.random.default_rng(1).normal(size=(2, 1, *sam.mask_input_size))
    ours, theirs = (
        s.decode(s.encode_image(PICTURE), mask_input=mask) for s in (Segmenter(sam), exported)
    )
    np.testing.assert_allclose(theirs.low_res_logits, ours.low_res_logits, atol=1e-4)


def test_the_models_have_the_names_and_shapes_of_the_convention(sam: Sam, folder: Path) -> None:
    encoder, decoder = (onnx.load(folder / f"{name}.onnx") for name in ("encoder", "decoder"))

    def shapes(values: object) -> dict[str, list[str | int]]:
        return {
            v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in values
        }

    assert shapes(encoder.graph.input) == {"input_image": ["image_height", "image_width", 3]}
    assert shapes(encoder.graph.output) == {"image_embeddings": [1, 32, 7, 7]}
    assert shapes(decoder.graph.input) == {
        "image_embeddings": [1, 32, 7, 7],
        "point_coords": ["prompts", "points", 2],
        "point_labels": ["prompts", "points"],
        "mask_input": ["prompts", 1, 28, 28],
        "has_mask_input": [1],
        "orig_im_size": [2],
    }
    assert list(shapes(decoder.graph.output)) == list(DECODER_OUTPUTS)
    assert {item.version for item in decoder.opset_import if item.domain == ""} == {18}


def test_the_decoder_upscales_as_torch_does(sam: Sam, folder: Path) -> None:
    session = open_model(folder / "decoder.onnx", "onnx", DECODER_OUTPUTS)
    segmenter = Segmenter(sam)
    for picture in (PICTURE, PORTRAIT, np.ascontiguousarray(PICTURE[:7])):
        size = picture.shape[:2]
        embedding = segmenter.encode_image(picture)
        scale = 112 / max(size)
        values = (
            embedding.features.image_embeddings.numpy(),
            np.array([[[10 * scale, 3 * scale], [0, 0]]], np.float32),
            np.array([[1, -1]], np.float32),
            np.zeros((1, 1, 28, 28), np.float32),
            np.zeros(1, np.float32),
            np.array(size, np.float32),
        )
        masks, _, low_res = session(dict(zip(DECODER_INPUTS, values, strict=True)))
        assert masks.shape == (1, 4, *size)
        expected = sam.postprocess_masks(
            torch.from_numpy(low_res[0][:, None]),
            input_size=embedding.input_size,
            original_size=size,
        )
        np.testing.assert_allclose(masks[0], expected[:, 0].numpy(), atol=1e-5)


def test_the_plain_graph_is_the_encoder(pair: Pair) -> None:
    side = pair.config.image_size
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = to_graph(pair.ours.image_encoder)(pixels)
        expected = pair.ours.image_encoder(pixels)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_maps_are_packed_without_loss() -> None:
    maps = [torch.randn(1, c, 3 * s, 5 * s) for c, s in ((6, 1), (4, 2), (2, 4))]
    packed = pack_maps(maps[0], (maps[1], maps[2]))
    assert packed.shape == (1, 6 + 16 + 32, 3, 5)
    embeddings, high_res = unpack_maps(packed, (6, 4, 2))
    for found, expected in zip((embeddings, *high_res), maps, strict=True):
        assert torch.equal(found, expected)


def test_the_manifest_tells_how_to_use_the_models(folder: Path) -> None:
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert content["model"] == "tiny"
    assert content["version"] == "1.2.3"
    assert content["format"] == "onnx"
    assert content["int8"] is False
    assert content["image_size"] == 112
    assert content["pixel_mean"] == [123.675, 116.28, 103.53]
    assert content["decoder_inputs"] == list(DECODER_INPUTS)
    assert read_manifest(folder).mask_input_size == (28, 28)


def test_what_is_not_an_export_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest\.json .* give a folder that"):
        load_exported(tmp_path)
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "encoder.onnx").write_bytes(b"no model")
    for runtime in ("onnx", "openvino"):
        with pytest.raises(CheckpointError, match=r"cannot open .* export the model again"):
            load_exported(damaged, runtime=runtime)
    (damaged / "decoder.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"decoder\.onnx is missing"):
        load_exported(damaged)
    (damaged / "manifest.json").write_text('{"model": 3}')
    with pytest.raises(CheckpointError, match=r"manifest\.json: model: Expected `?str"):
        load_exported(damaged)


def test_a_runtime_that_cannot_run_it_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="there is no runtime 'tensorrt'; use onnx or openvino"):
        load_exported(folder, runtime="tensorrt")
    with pytest.raises(InputError, match=r"onnxruntime does not run .* in bfloat16"):
        load_exported(folder, runtime="onnx", dtype="bf16")
    with pytest.raises(InputError, match=r"onnxruntime cannot read .* export with --format onnx"):
        choose_runtime("onnx", "openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install 'promptseg\[export\]'"):
        load_exported(folder, runtime="openvino")
