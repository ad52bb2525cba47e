"""Concept files: encoded references kept on disk, each one safetensors file.

Tensors, for each example N of `shots` and of `negatives`:

    shots.N.tokens    (h, w, C) float16, or float32 where a value is beyond float16's range
    shots.N.coverage  (h, w) float32
    shots.N.whole     (h', w', C) of the whole picture, if the others are of a part of it
    shots.N.mask      (n,) uint8, the packed bits of the mask; only if it is known

and for each picture N that shows them `preview.N`, (n,) uint8, a PNG. The metadata hold `format`,
`version` of promptseg, `label`, `model_id` and `geometry`, a JSON object that has for `shots` and
`negatives` a list of each example's sizes. Nothing in a file is ever executed.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .... import __version__
from ....models.errors import CheckpointError, InputError
from ....models.features.dense import DenseFeatures
from ....models.foreign import decode_json
from ...checks import BoolArray, UInt8Array
from ...compact_mask import CompactMask
from ...files import write_whole
from ...masks import Box, tight_box
from .examples import EncodedReference, Shot

_KIND = "promptseg.concept/"
FORMAT = f"{_KIND}1"
SUFFIX = ".safetensors"
PREVIEW_SIDE = 160
# What is not the object is this much as bright in a preview.
_DIMMED = 0.25
_GROUPS = ("shots", "negatives")
_LARGEST_FILE = 2**30
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
# What a doctored or damaged file may raise while it is put together.
_BROKEN = (KeyError, ValueError, RuntimeError, zlib.error)

_Side = Annotated[int, msgspec.Meta(gt=0, le=2**17)]
_Step = Annotated[float, msgspec.Meta(gt=0, le=2**17)]
_Edge = Annotated[int, msgspec.Meta(ge=0, le=2**17)]


class _Sizes(msgspec.Struct):
    """Sizes of a picture's features, as in ``DenseFeatures``."""

    image_size: tuple[_Side, _Side]
    input_size: tuple[_Side, _Side]
    cell_size: tuple[_Step, _Step]


class _ShotSizes(_Sizes):
    """Sizes of an example: of its features, of those of the whole picture, and its mask's box."""

    whole: _Sizes | None = None
    mask_box: tuple[_Edge, _Edge, _Edge, _Edge] | None = None


class _Geometry(msgspec.Struct):
    shots: list[_ShotSizes]
    negatives: list[_ShotSizes]


@dataclass(frozen=True, eq=False)
class Concept:
    """What a concept file holds.

    Attributes:
        encoded: The examples.
        previews: Small pictures of them, (h, w, 3) uint8 RGB.
        version: Of promptseg that wrote it.
    """

    encoded: EncodedReference
    previews: tuple[UInt8Array, ...]
    version: str


def save_concept(
    path: str | Path, encoded: EncodedReference, previews: Sequence[UInt8Array] = ()
) -> None:
    """Write a concept file, as a whole or not at all.

    Args:
        path: Of the file; it ends in .safetensors.
        encoded: The examples.
        previews: Pictures that show them, (h, w, 3) uint8 RGB, such as :func:`draw_preview` makes.

    Raises:
        InputError: It is not a path, or has another ending.
        OSError: The file cannot be written.
    """
    path = _read_path(path)
    if path.suffix != SUFFIX:
        raise InputError(f"{str(path)!r}: a concept file must end in {SUFFIX}")
    tensors: dict[str, Tensor] = {}
    geometry: dict[str, list[dict[str, Any]]] = {}
    for group in _GROUPS:
        shots: tuple[Shot, ...] = getattr(encoded, group)
        geometry[group] = [_describe(shot) for shot in shots]
        for i, shot in enumerate(shots):
            tensors |= {f"{group}.{i}.{name}": x for name, x in _tensors_of(shot).items()}
    for i, preview in enumerate(previews):
        tensors[f"preview.{i}"] = _to_png(preview)
    metadata = {
        "format": FORMAT,
        "version": __version__,
        "label": encoded.label,
        "model_id": encoded.model_id,
        "geometry": json.dumps(geometry),
    }
    write_whole(path, save(tensors, metadata))


def load_concept(path: str | Path, *, model_id: str | None = None) -> EncodedReference:
    """Read the examples of a concept file.

    Args:
        path: Of the file.
        model_id: The model whose features it is to be compared with; None for any.

    Raises:
        InputError: There is no such file, or another model made it.
        CheckpointError: The file is damaged, no concept, or of another version's format.
    """
    encoded = open_concept(path).encoded
    if model_id is not None and encoded.model_id != model_id:
        raise InputError(
            f"the concept {str(path)!r} was made by {encoded.model_id!r}, and features of "
            f"{model_id!r} are compared here; make it anew from its pictures: promptseg concept "
            f"save {encoded.label!r} --preset PRESET --reference IMAGE --mask MASK"
        )
    return encoded


def is_concept(path: str | Path) -> bool:
    """Return whether a file is a concept file, of this format or an older one."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return False
    return metadata.get("format", "").startswith(_KIND)


def open_concept(path: str | Path) -> Concept:
    """Read all of a concept file; errors are those of :func:`load_concept`."""
    path = _read_path(path)
    try:
        is_file = path.is_file()
        size = path.stat().st_size if is_file else 0
    except OSError:  # a name that no file can have
        is_file, size = False, 0
    if not is_file:
        raise InputError(
            f"there is no concept {str(path)!r}; make one: promptseg concept save NAME "
            "--reference IMAGE --mask MASK"
        )
    if size > _LARGEST_FILE:
        raise CheckpointError(
            f"{str(path)!r} has {size / 1e6:.0f} MB, more than the {_LARGEST_FILE / 1e6:.0f} MB "
            "that a concept file may have"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read as a concept file: {' '.join(str(error).split())}; "
            "save the concept again"
        ) from error
    found = metadata.get("format", "")
    if not found.startswith(_KIND):
        raise CheckpointError(
            f"{str(path)!r} is a safetensors file, but no concept; make one with `promptseg "
            "concept save`"
        )
    if found != FORMAT:
        raise CheckpointError(
            f"{str(path)!r} has the format {found!r}, this is promptseg {__version__}, which reads "
            f"{FORMAT!r}; save the concept again"
        )
    try:
        geometry = decode_json(metadata["geometry"], _Geometry, "geometry")
        shots, negatives = (
            tuple(
                _read_shot(tensors, f"{group}.{i}.", sizes, metadata["model_id"])
                for i, sizes in enumerate(getattr(geometry, group))
            )
            for group in _GROUPS
        )
        previews = tuple(
            _from_png(tensors[f"preview.{i}"])
            for i in range(sum(name.startswith("preview.") for name in tensors))
        )
        encoded = EncodedReference(metadata["label"], shots, negatives)
    except _BROKEN as error:
        raise CheckpointError(
            f"{str(path)!r} is a damaged concept file ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); save the concept again"
        ) from error
    return Concept(encoded, previews, metadata.get("version", "unknown"))


def _read_path(path: str | Path) -> Path:
    if not isinstance(path, (str, Path)) or "\0" in str(path):
        raise InputError(f"{path!r} is not the path of a concept file")
    return Path(path)


def draw_preview(image: UInt8Array, mask: BoolArray) -> UInt8Array:
    """A small picture of an example, dark where the object is not.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W).

    Returns:
        (h, w, 3), the longer side ``PREVIEW_SIDE`` at most.
    """
    scale = min(1.0, PREVIEW_SIDE / max(mask.shape))
    size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    share = np.asarray(
        Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    )
    light = _DIMMED + (1 - _DIMMED) * share[..., None].astype(np.float32) / 255
    preview: UInt8Array = np.rint(np.asarray(small) * light).astype(np.uint8)
    return preview


def _tensors_of(shot: Shot) -> dict[str, Tensor]:
    tensors = {
        "tokens": _halved(shot.features.tokens),
        "coverage": shot.coverage.float().cpu().contiguous(),
    }
    if shot.whole is not None:
        tensors["whole"] = _halved(shot.whole.tokens)
    if shot.mask is not None:
        packed = zlib.compress(np.packbits(shot.mask.part()).tobytes(), level=1)
        tensors["mask"] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
    return tensors


def _halved(x: Tensor) -> Tensor:
    half = x.half().cpu().contiguous()
    return half if bool(half.isfinite().all()) else x.float().cpu().contiguous()


def _describe(shot: Shot) -> dict[str, Any]:
    """Sizes of an example, JSON-able."""
    described: dict[str, Any] = _sizes_of(shot.features)
    if shot.whole is not None:
        described["whole"] = _sizes_of(shot.whole)
    if shot.mask is not None:
        described["mask_box"] = shot.mask.box
    return described


def _sizes_of(features: DenseFeatures) -> dict[str, Any]:
    return {name: getattr(features, name) for name in ("image_size", "input_size", "cell_size")}


def _read_shot(
    tensors: Mapping[str, Tensor], prefix: str, sizes: _ShotSizes, model_id: str
) -> Shot:
    """An example; one of the errors of ``_BROKEN`` if its parts do not fit together."""
    features = _read_features(tensors[f"{prefix}tokens"], sizes, model_id)
    coverage = _floats(tensors[f"{prefix}coverage"])
    if coverage.shape != features.grid_size or not 0 < float(coverage.max()) <= 1:
        raise ValueError(f"{prefix}coverage {tuple(coverage.shape)} is not of an object")
    whole = None
    if f"{prefix}whole" in tensors:
        if sizes.whole is None:
            raise ValueError(f"{prefix}whole has no sizes")
        whole = _read_features(tensors[f"{prefix}whole"], sizes.whole, model_id)
    shot = Shot(features, coverage, whole=whole)
    packed = tensors.get(f"{prefix}mask")
    if packed is None or sizes.mask_box is None:
        return shot
    return replace(shot, mask=_read_mask(packed, sizes.mask_box, shot.picture.image_size))


def _read_features(tokens: Tensor, sizes: _Sizes, model_id: str) -> DenseFeatures:
    tokens = _floats(tokens)
    if tokens.ndim != 3 or not tokens.numel():
        raise ValueError(f"tokens {tuple(tokens.shape)} are not features of a picture")
    return DenseFeatures(
        tokens=tokens,
        image_size=sizes.image_size,
        input_size=sizes.input_size,
        cell_size=sizes.cell_size,
        model_id=model_id,
    )


def _floats(x: Tensor) -> Tensor:
    if x.dtype not in _FLOATS or not bool(x.isfinite().all()):
        raise ValueError(f"a tensor of {x.dtype} {tuple(x.shape)} does not hold finite floats")
    return x.float()


def _bytes(x: Tensor) -> bytes:
    if x.dtype != torch.uint8 or x.ndim != 1:
        raise ValueError(f"a tensor of {x.dtype} {tuple(x.shape)} does not hold bytes")
    return x.numpy().tobytes()


def _read_mask(packed: Tensor, box: Box, size: tuple[int, int]) -> CompactMask:
    x0, y0, x1, y1 = box
    if not (x0 < x1 <= size[1] and y0 < y1 <= size[0]):
        raise ValueError(f"a mask's box {box} is not within {size}")
    expected = -(-(x1 - x0) * (y1 - y0) // 8)
    inflate = zlib.decompressobj()
    bits = inflate.decompress(_bytes(packed), expected + 1)  # never more than the box can hold
    if len(bits) != expected:
        raise ValueError(f"a mask's bits do not fill its box {box}")
    part = np.unpackbits(np.frombuffer(bits, np.uint8), count=(x1 - x0) * (y1 - y0))
    mask = part.reshape(y1 - y0, x1 - x0).view(np.bool_)
    if tight_box(mask) != (0, 0, x1 - x0, y1 - y0):
        raise ValueError(f"a mask does not fill its box {box}")
    return CompactMask.within(mask, box, size)


def _to_png(preview: UInt8Array) -> Tensor:
    stream = io.BytesIO()
    Image.fromarray(preview).save(stream, "PNG", optimize=True)
    return torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)


def _from_png(png: Tensor) -> UInt8Array:
    try:
        with Image.open(io.BytesIO(_bytes(png)), formats=["PNG"]) as image:
            if max(image.size) > PREVIEW_SIDE:
                raise ValueError(f"a preview is of {image.width} x {image.height} pixels")
            picture: UInt8Array = np.asarray(image.convert("RGB"))
    except Exception as error:  # a decoder may raise anything on damaged data
        raise ValueError(f"a preview cannot be read: {error}") from error
    return picture
