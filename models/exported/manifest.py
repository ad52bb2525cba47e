"""The manifest of an exported folder: what its two models are and how images are prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from ..errors import CheckpointError, InputError
from ..foreign import decode_json, read_regular

MANIFEST_FILE = "manifest.json"
_LARGEST = 100_000

Family = Literal["sam", "pocket"]
Format = Literal["onnx", "openvino"]
FORMATS: tuple[Format, ...] = ("onnx", "openvino")
Runtime = Literal["onnx", "openvino"]
RUNTIMES: tuple[Runtime, ...] = ("onnx", "openvino")
# The packages that each runtime needs; the first is the one that runs models.
PACKAGES: dict[Runtime, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "onnx"),
    "openvino": ("openvino",),
}
# The files of each format; the encoder's and the decoder's first ones are what runtimes open.
FILES: dict[Format, tuple[str, ...]] = {
    "onnx": ("encoder.onnx", "decoder.onnx"),
    "openvino": ("encoder.xml", "decoder.xml", "encoder.bin", "decoder.bin"),
}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What is in an exported folder.

    Attributes:
        model: Name of the model, as ``create_model`` knows it.
        family: "sam", or "pocket", whose boxes are decoded in two passes.
        format: "onnx" or "openvino".
        int8: Whether the encoder computes in 8-bit integers.
        version: Version of promptseg that wrote the folder.
        opset: Opset of the ONNX models.
        image_size: Pixels that the long side of an image is scaled to.
        mask_input_size: (h, w) of the mask input and of the low-resolution logits.
        num_multimask_outputs: Masks after the first, which is the single one.
        mask_threshold: Logits above it belong to the mask.
        pixel_mean: Mean of R, G, B in 0..255; the encoder subtracts it by itself.
        pixel_std: Standard deviation of R, G, B in 0..255; the encoder divides by it by itself.
        encoder_inputs: Names, in order.
        encoder_outputs: Names, in order.
        decoder_inputs: Names, in order.
        decoder_outputs: Names, in order.
    """

    model: str
    family: Family
    format: Format
    int8: bool
    version: str
    opset: int
    image_size: int
    mask_input_size: tuple[int, int]
    num_multimask_outputs: int
    mask_threshold: float
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    encoder_inputs: tuple[str, ...]
    encoder_outputs: tuple[str, ...]
    decoder_inputs: tuple[str, ...]
    decoder_outputs: tuple[str, ...]

    def to_json(self) -> bytes:
        """Return the manifest as JSON text."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def read_manifest(folder: str | Path) -> Manifest:
    """Read the manifest of a folder that `promptseg export` wrote.

    Raises:
        CheckpointError: There is none, it is damaged, or a model's file is missing.
    """
    path = Path(folder)
    remedy = "give a folder that `promptseg export` wrote"
    try:
        content = read_regular(
            path / MANIFEST_FILE, f"{MANIFEST_FILE} in {str(path)!r}", limit=_LARGEST
        )
        manifest = decode_json(content, Manifest, MANIFEST_FILE)
    except InputError as error:
        raise CheckpointError(f"{error}; {remedy}") from error
    for name in FILES[manifest.format]:
        if not (path / name).is_file():
            raise CheckpointError(f"{name} is missing in {str(path)!r}; {remedy}")
    return manifest


def choose_runtime(runtime: str | None, written: Format) -> Runtime:
    """Return the runtime of that name, by default the one that a folder was written for.

    Raises:
        InputError: There is no such runtime, or it cannot read the folder.
    """
    name = written if runtime is None else runtime
    for known in RUNTIMES:
        if name == known:
            if known == "onnx" and written == "openvino":
                raise InputError(
                    "onnxruntime cannot read models in OpenVINO's format; use the runtime "
                    "openvino, or export with --format onnx"
                )
            return known
    raise InputError(f"there is no runtime {name!r}; use {' or '.join(RUNTIMES)}")


def missing_package(name: str) -> InputError:
    """Return the error that a package of the extra is not installed."""
    return InputError(f"exported models need {name}; run: pip install 'promptseg[export]'")
