"""Values of models as safetensors files: tensors, arrays, and dataclasses and tuples of them.

A file's metadata hold the value's tree as JSON, with a checksum of each tensor. A tensor comes back
with the order of its axes in memory, on which the last bits of what is computed from it depend.
Nothing in a file is ever executed: the types are those of the value that is asked for.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

T = TypeVar("T")

_PLAIN = (bool, int, float, str)
_LENGTH_BYTES = 8  # of the size of a safetensors file's header, with which it begins


def pack(value: object, about: str) -> bytes:
    """Return a value as the content of a safetensors file.

    Args:
        value: A tensor, an array, a plain value, or a dataclass or tuple of these.
        about: What the value is; :func:`unpack` asks for it again.

    Raises:
        TypeError: A part of it is of another type.
    """
    tensors: dict[str, Tensor] = {}
    tree = _take_apart(value, tensors)
    return save(tensors, {"about": about, "tree": json.dumps(tree)})


def unpack(content: bytes, kind: type[T], about: str, device: torch.device) -> T:
    """Return the value that a file holds.

    Args:
        content: Of the file.
        kind: Type of the value.
        about: As for :func:`pack`.
        device: Where its tensors go.

    Raises:
        ValueError: The file is damaged, or holds another value.
    """
    try:
        end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
        metadata = json.loads(content[_LENGTH_BYTES:end])["__metadata__"]
        if metadata["about"] != about:
            raise ValueError("it is of another picture or model")
        tree = json.loads(metadata["tree"])
        return cast(T, _put_together(tree, kind, load(content), device))
    except ValueError:
        raise
    except Exception as error:  # of damaged data, also safetensors' own
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _take_apart(value: object, tensors: dict[str, Tensor]) -> object:
    """Return the tree of a value, and add its tensors."""
    if isinstance(value, np.ndarray):
        return _take_apart(torch.from_numpy(np.array(value)), tensors)
    if isinstance(value, Tensor):
        strides = value.stride()
        order = sorted(range(value.ndim), key=lambda axis: -strides[axis])
        # A copy, since safetensors holds no two tensors of the same memory.
        laid = value.detach().permute(order).clone(memory_format=torch.contiguous_format).cpu()
        name = str(len(tensors))
        tensors[name] = laid
        return {"tensor": name, "order": order, "checksum": _checksum(laid)}
    if is_dataclass(value):
        return {
            item.name: _take_apart(getattr(value, item.name), tensors) for item in fields(value)
        }
    if isinstance(value, (tuple, list)):
        return [_take_apart(item, tensors) for item in value]
    if isinstance(value, _PLAIN):
        return value
    raise TypeError(f"{type(value).__name__} cannot be kept")


def _put_together(tree: Any, kind: Any, tensors: dict[str, Tensor], device: torch.device) -> object:
    """Return the value of a type from its tree; whatever does not fit raises."""
    origin = get_origin(kind)
    if kind is Tensor or origin is np.ndarray:
        laid, order = tensors[tree["tensor"]], tree["order"]
        if _checksum(laid) != tree["checksum"]:
            raise ValueError("a checksum differs")
        tensor = laid.permute([order.index(axis) for axis in range(len(order))])
        return tensor.to(device) if kind is Tensor else _array(tensor)
    if origin is tuple:
        kinds = get_args(kind)
        if kinds[-1] is ...:
            kinds = kinds[:1] * len(tree)
        pairs = zip(tree, kinds, strict=True)
        return tuple(_put_together(item, kind, tensors, device) for item, kind in pairs)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        parts = {
            item.name: _put_together(tree[item.name], hints[item.name], tensors, device)
            for item in fields(kind)
        }
        return cast(Any, kind)(**parts)
    if kind in _PLAIN and type(tree) is kind:
        return tree
    raise ValueError(f"{tree!r} is not of {kind}")


def _array(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.numpy()
    return array


def _checksum(laid: Tensor) -> int:
    if not laid.numel():
        return 0
    return zlib.crc32(laid.reshape(-1).view(torch.uint8).numpy().data)
