"""The implementations that benchmarks/speed.py times, each behind the same two functions.

Weights are random where no checkpoint is needed: they cost as much as trained ones. Pocket has its
shipped weights. Exported models are made once, in a folder that is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data
from torch import Tensor

from promptseg import load
from promptseg.models import create_model, load_exported
from promptseg.models.exported.export import export_sam
from promptseg.models.exported.manifest import MANIFEST_FILE, read_manifest
from promptseg.models.exported.quantise import quantise_encoder
from promptseg.models.sam.sam import Sam
from promptseg.pipeline import Segmenter

SIZE = 1024  # of the square picture that every implementation encodes
BLOCK = 32  # boxes that are decoded at a time, by all

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class Timed:
    """What is timed of an implementation.

    Attributes:
        encode: Encodes the picture; what it returns is given to ``decode``.
        decode: Decodes one mask for each box (N, 4) in pixels of the picture; None if it has no
            decoder.
    """

    encode: Callable[[], object]
    decode: Callable[[object, Boxes], object] | None


def picture() -> Image:
    """A photograph of SIZE x SIZE pixels."""
    return np.ascontiguousarray(np.tile(data.astronaut(), (2, 2, 1))[:SIZE, :SIZE])


def ours(model: str, dtype: str) -> Timed:
    """Our SAM in torch, as presets load it."""
    return _segmenter(Segmenter(_create(model), dtype=dtype, cast_weights=True))


def compiled(model: str) -> Timed:
    """Our SAM in float32 with its image encoder compiled."""
    sam = _create(model)
    sam.image_encoder.compile()
    return _segmenter(Segmenter(sam, dtype="fp32"))


def exported(model: str, runtime: str, int8: bool, folder: Path) -> Timed:
    """Our SAM as an exported model."""
    place = folder / f"{model}{'-int8' if int8 else ''}"
    return _segmenter(Segmenter(load_exported(place, runtime=runtime)))


def transformers(dtype: torch.dtype) -> Timed:
    """Hugging Face's SamModel with its default attention; its default sizes are ViT-B's."""
    from transformers import SamConfig, SamModel

    model = SamModel(SamConfig()).eval().to(dtype)
    pixels = _pixels().to(dtype)

    def decode(embedding: object, boxes: Boxes) -> object:
        return [
            model(
                image_embeddings=embedding,
                input_boxes=block[None].to(dtype),
                multimask_output=False,
            )
            for block in _blocks(boxes)
        ]

    return Timed(lambda: model.get_image_embeddings(pixels), decode)


def segment_anything() -> Timed:
    """The official implementation."""
    from segment_anything import build_sam_vit_b

    model = build_sam_vit_b().eval()
    pixels = _pixels()

    def decode(embedding: object, boxes: Boxes) -> object:
        masks = []
        for block in _blocks(boxes):
            sparse, dense = model.prompt_encoder(points=None, boxes=block, masks=None)
            masks.append(
                model.mask_decoder(
                    image_embeddings=embedding,
                    image_pe=model.prompt_encoder.get_dense_pe(),
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=False,
                )
            )
        return masks

    return Timed(lambda: model.image_encoder(pixels), decode)


def timm_tiny_vit() -> Timed:
    """timm's TinyViT of MobileSAM's widths; its last stage has half the resolution."""
    import timm

    model = timm.create_model("tiny_vit_5m_224", features_only=True).eval()
    pixels = _pixels()
    return Timed(lambda: model(pixels), None)


def build(name: str, model: str, folder: Path) -> Timed:
    """Build an implementation by its name."""
    builders: dict[str, Callable[[], Timed]] = {
        "ours fp32": lambda: ours(model, "fp32"),
        "ours auto": lambda: ours(model, "auto"),
        "ours compiled": lambda: compiled(model),
        "onnx": lambda: exported(model, "onnx", False, folder),
        "onnx int8": lambda: exported(model, "onnx", True, folder),
        "openvino": lambda: exported(model, "openvino", False, folder),
        "openvino int8": lambda: exported(model, "openvino", True, folder),
        "transformers fp32": lambda: transformers(torch.float32),
        "transformers bf16": lambda: transformers(torch.bfloat16),
        "segment-anything": segment_anything,
        "timm fp32": timm_tiny_vit,
    }
    return builders[name]()


_EXPORTED = ("onnx", "openvino", "onnx int8", "openvino int8")
_OURS = ("ours fp32", "ours auto", "ours compiled", *_EXPORTED)
# The implementations of each model; ratios are to the first one.
NAMES: dict[str, tuple[str, ...]] = {
    "sam_vit_b": ("transformers fp32", "transformers bf16", "segment-anything", *_OURS),
    "sam_vit_t": (_OURS[0], "timm fp32", *_OURS[1:]),
    # What it computes in by default on a CPU is float32.
    "sam_pocket": ("ours fp32", "ours compiled", *_EXPORTED),
}


def export_for_timing(model: str, folder: Path, *, int8: bool) -> None:
    """Export a model, unless that was done before."""
    plain, quantised = folder / model, folder / f"{model}-int8"
    if not (plain / MANIFEST_FILE).exists():
        plain.mkdir(parents=True, exist_ok=True)
        export_sam(_create(model), plain)
    if int8 and not (quantised / MANIFEST_FILE).exists():
        manifest = read_manifest(plain)
        quantised.mkdir(exist_ok=True)
        for name in ("encoder.onnx", "decoder.onnx"):
            shutil.copy(plain / name, quantised / name)
        quantise_encoder(
            quantised / "encoder.onnx", [picture()], manifest.image_size, manifest.family
        )
        content = msgspec.structs.replace(manifest, int8=True).to_json()
        (quantised / MANIFEST_FILE).write_bytes(content)


def _create(model: str) -> Sam:
    created = load("pocket").segmenter.model if model == "sam_pocket" else create_model(model)
    if not isinstance(created, Sam):
        raise TypeError(f"{model} is not a Sam")
    return created


def _segmenter(segmenter: Segmenter) -> Timed:
    image = picture()

    def decode(embedding: object, boxes: Boxes) -> object:
        return segmenter.decode_low_res(embedding, boxes=boxes, multimask_output=False)  # type: ignore[arg-type]

    return Timed(lambda: segmenter.encode_image(image), decode)


def _pixels() -> Tensor:
    return torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def _blocks(boxes: Boxes) -> Iterator[Tensor]:
    yield from torch.from_numpy(boxes).split(BLOCK)
