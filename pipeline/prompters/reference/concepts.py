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
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .... import __version__
from ....models.errors import CheckpointError, InputError
from ....models.features.dense import DenseFeatures
from ...checks import BoolArray, UInt8Array
from ...files import write_whole
from ...masks import CompactMask, tight_box
from .examples import EncodedReference, Shot

FORMAT = "promptseg.concept/1"
SUFFIX = ".safetensors"
PREVIEW_SIDE = 160
# What is not the object is this much as bright in a preview.
_DIMMED = 0.25
_GROUPS = ("shots", "negatives")
# What a doctored or damaged file may raise while it is put together.
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, OverflowError, zlib.error)


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
        InputError: The path has another ending.
        OSError: The file cannot be written.
    """
    path = Path(path)
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


def open_concept(path: str | Path) -> Concept:
    """Read all of a concept file; errors are those of :func:`load_concept`."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"there is no concept {str(path)!r}; make one: promptseg concept save NAME "
            "--reference IMAGE --mask MASK"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be read as a concept file: {' '.join(str(error).split())}; "
            "save the concept again"
        ) from error
    found = metadata.get("format", "")
    if not found.startswith("promptseg.concept/"):
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
        geometry = json.loads(metadata["geometry"])
        shots, negatives = (
            tuple(
                _read_shot(tensors, f"{group}.{i}.", sizes, metadata["model_id"])
                for i, sizes in enumerate(geometry[group])
            )
            for group in _GROUPS
        )
        previews = tuple(
            _from_png(tensors[f"preview.{i}"])
            for i in range(sum(name.startswith("preview.") for name in tensors))
        )
        encoded = EncodedReference(metadata["label"], shots, negatives)
    except (*_BROKEN, OSError, Image.DecompressionBombError) as error:
        raise CheckpointError(
            f"{str(path)!r} is a damaged concept file ({type(error).__name__}: "
            f"{' '.join(str(error).split())}); save the concept again"
        ) from error
    return Concept(encoded, previews, metadata.get("version", "unknown"))


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
        tensors["mask"] = torch.frombuffer(bytearray(shot.mask.packed), dtype=torch.uint8)
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
    tensors: Mapping[str, Tensor], prefix: str, sizes: Mapping[str, Any], model_id: str
) -> Shot:
    """An example; one of the errors of ``_BROKEN`` if its parts do not fit together."""
    features = _read_features(tensors[f"{prefix}tokens"], sizes, model_id)
    coverage = tensors[f"{prefix}coverage"].float()
    if coverage.shape != features.grid_size or not 0 < float(coverage.max()) <= 1:
        raise ValueError(f"{prefix}coverage {tuple(coverage.shape)} is not of an object")
    whole = None
    if f"{prefix}whole" in tensors:
        whole = _read_features(tensors[f"{prefix}whole"], sizes["whole"], model_id)
    shot = Shot(features, coverage, whole=whole)
    packed = tensors.get(f"{prefix}mask")
    if packed is None:
        return shot
    return replace(shot, mask=_read_mask(packed, sizes["mask_box"], shot.picture.image_size))


def _read_features(tokens: Tensor, sizes: Mapping[str, Any], model_id: str) -> DenseFeatures:
    if tokens.ndim != 3 or not tokens.numel() or not tokens.isfinite().all():
        raise ValueError(f"tokens {tuple(tokens.shape)} are no features of a picture")
    return DenseFeatures(
        tokens=tokens.float(),
        image_size=_pair(sizes["image_size"], int),
        input_size=_pair(sizes["input_size"], int),
        cell_size=_pair(sizes["cell_size"], float),
        model_id=model_id,
    )


def _pair(values: Sequence[float], kind: type[Any]) -> tuple[Any, Any]:
    first, second = (kind(value) for value in values)
    if not (0 < first < math.inf and 0 < second < math.inf):
        raise ValueError(f"{first} x {second} is no size")
    return first, second


def _read_mask(packed: Tensor, box: Sequence[int], size: tuple[int, int]) -> CompactMask:
    x0, y0, x1, y1 = (int(value) for value in box)
    if not (0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]):
        raise ValueError(f"a mask's box {box} is not within {size}")
    mask = CompactMask(size, (x0, y0, x1, y1), 0, packed.numpy().tobytes())
    part = mask.part()
    if tight_box(part) != (0, 0, x1 - x0, y1 - y0):
        raise ValueError(f"a mask does not fill its box {box}")
    return CompactMask.within(part, mask.box, size)


def _to_png(preview: UInt8Array) -> Tensor:
    stream = io.BytesIO()
    Image.fromarray(preview).save(stream, "PNG", optimize=True)
    return torch.frombuffer(bytearray(stream.getvalue()), dtype=torch.uint8)


def _from_png(png: Tensor) -> UInt8Array:
    with Image.open(io.BytesIO(png.numpy().tobytes()), formats=["PNG"]) as image:
        picture: UInt8Array = np.asarray(image.convert("RGB"))
    return picture
