"""Writing a SAM as two ONNX or OpenVINO models with a manifest."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import InputError
from ..pocket.sam import PocketSam
from ..sam.sam import Sam
from .graphs import (
    DECODER_INPUTS,
    DECODER_OUTPUTS,
    ENCODER_INPUT,
    DecoderGraph,
    EncoderGraph,
    PocketDecoderGraph,
    PocketEncoderGraph,
)
from .manifest import FILES, MANIFEST_FILE, Family, Format, Manifest
from .quantise import quantise_encoder, quiet
from .runtimes import require

if TYPE_CHECKING:
    import onnx

OPSET = 18
# Names of the dimensions that a user may choose; each is the same in all inputs and outputs.
_IMAGE_DIMS = ("image_height", "image_width")
_PROMPTS, _POINTS = "prompts", "points"

Image = NDArray[np.uint8]


def export_sam(
    sam: Sam,
    folder: Path,
    *,
    format: Format = "onnx",
    int8: bool = False,
    pictures: Sequence[Image] = (),
    version: str = "",
    tell: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Write the encoder and the decoder of a SAM, and their manifest.

    Args:
        sam: The model, on the CPU; it is not changed.
        folder: An existing folder, whose files of these names are replaced.
        format: "onnx" or "openvino".
        int8: Whether the encoder computes in 8-bit integers. The decoder stays in float32.
        pictures: (H, W, 3) uint8 RGB each: what the ranges of the 8-bit integers are taken from.
        version: Version of promptseg, for the manifest.
        tell: Called with the name of each step before it begins.

    Raises:
        InputError: A package of the extra is missing, or ``int8`` comes without pictures.
    """
    require("onnx", "onnxscript", "onnxruntime", *(["openvino"] if format == "openvino" else []))
    if int8 and not pictures:
        raise InputError("int8 needs pictures to take the ranges of its integers from; give some")
    family: Family = "pocket" if isinstance(sam, PocketSam) else "sam"
    encoder, decoder = _graphs(sam)
    tell("encoder")
    with torch.no_grad():
        models = [_export_encoder(encoder, sam.image_size)]
        tell("decoder")
        models.append(_export_decoder(decoder, sam))
    names = FILES["onnx"]
    for name, model in zip(names, models, strict=True):
        _save(model, folder / name)
    if int8:
        tell("8-bit integers")
        quantise_encoder(folder / names[0], pictures, sam.image_size, family)
    if format == "openvino":
        tell("OpenVINO")
        for name, final in zip(names, FILES[format], strict=False):
            _convert(folder / name, folder / final)
            (folder / name).unlink()
    manifest = Manifest(
        model=sam.model_id,
        family=family,
        format=format,
        int8=int8,
        version=version,
        opset=OPSET,
        image_size=sam.image_size,
        mask_input_size=sam.mask_input_size,
        num_multimask_outputs=sam.num_multimask_outputs,
        mask_threshold=sam.mask_threshold,
        pixel_mean=_triple(sam.pixel_mean),
        pixel_std=_triple(sam.pixel_std),
        encoder_inputs=(ENCODER_INPUT,),
        encoder_outputs=encoder.output_names,
        decoder_inputs=DECODER_INPUTS,
        decoder_outputs=DECODER_OUTPUTS,
    )
    (folder / MANIFEST_FILE).write_bytes(manifest.to_json())
    return manifest


def _triple(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = (float(f"{value:.6g}") for value in values.flatten().tolist())
    return red, green, blue


def _graphs(sam: Sam) -> tuple[EncoderGraph, DecoderGraph]:
    if isinstance(sam, PocketSam):
        sam = copy.deepcopy(sam)
        sam.to(memory_format=torch.contiguous_format)
        sam.image_encoder.backbone.fold_batch_norms()
        return PocketEncoderGraph(sam).eval(), PocketDecoderGraph(sam).eval()
    return EncoderGraph(sam).eval(), DecoderGraph(sam).eval()


def _export_encoder(graph: EncoderGraph, side: int) -> onnx.ModelProto:
    # Not square, so that the two sides are told apart.
    image = torch.zeros(side * 3 // 4, side, 3)
    dims: tuple[dict[int, str], ...] = ({0: _IMAGE_DIMS[0], 1: _IMAGE_DIMS[1]},)
    return _export(graph, (image,), (ENCODER_INPUT,), graph.output_names, dims)


def _export_decoder(decoder: DecoderGraph, sam: Sam) -> onnx.ModelProto:
    pocket = isinstance(decoder, PocketDecoderGraph)
    grid = sam.mask_input_size[0] // 4, sam.mask_input_size[1] // 4
    # Pocket's grid covers the image, not its padding; SAM's is always the same.
    size = (grid[0] - 2, grid[1] - 1) if pocket else grid
    inputs = (
        torch.zeros(1, decoder.embedding_width, *size),
        torch.zeros(3, 5, 2),
        torch.zeros(3, 5),
        torch.zeros(3, 1, *sam.mask_input_size),
        torch.zeros(1),
        torch.tensor([30.0, 40.0]),
    )
    dims: tuple[dict[int, str], ...] = (
        {2: "embedding_height", 3: "embedding_width"} if pocket else {},
        {0: _PROMPTS, 1: _POINTS},
        {0: _PROMPTS, 1: _POINTS},
        {0: _PROMPTS},
        {},
        {},
    )
    return _export(decoder, inputs, DECODER_INPUTS, DECODER_OUTPUTS, dims)


def _export(
    graph: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dims: Sequence[dict[int, str]],
) -> onnx.ModelProto:
    """Turn a graph into an ONNX model whose inputs may vary along the named dimensions."""
    shapes = tuple(dict.fromkeys(named, Dim.DYNAMIC) or None for named in dims)
    # Fused attention has no plain counterpart in this opset.
    with quiet(), sdpa_kernel(SDPBackend.MATH):
        program = torch.export.export(
            graph,
            inputs,
            dynamic_shapes=shapes,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(input_names),
            output_names=list(output_names),
            opset_version=OPSET,
            verbose=False,
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model = exported.model_proto
    _name_dims(model, dims)
    return model


def _name_dims(model: onnx.ModelProto, dims: Sequence[dict[int, str]]) -> None:
    """Name the dimensions that may vary; those that follow from others get no name."""
    renamed: dict[str, str] = {}
    for value, named in zip(model.graph.input, dims, strict=True):
        for axis, name in named.items():
            dim = value.type.tensor_type.shape.dim[axis]
            renamed[dim.dim_param] = name
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                known = renamed.get(dim.dim_param)
                dim.Clear()
                if known is not None:
                    dim.dim_param = known
    # What the exporter inferred in between speaks of the old names; runtimes infer it anew.
    del model.graph.value_info[:]


def _save(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    onnx.checker.check_model(model)
    onnx.save(model, path)


def _convert(path: Path, final: Path) -> None:
    """Write an ONNX model in OpenVINO's format, float32 as it is."""
    import openvino

    openvino.save_model(openvino.Core().read_model(path), final, compress_to_fp16=False)
