"""Reading weights from files, and loading them strictly.

Only tensors are read: from safetensors, or from PyTorch files with ``weights_only``. Any problem
with a file is raised as a CheckpointError that says what was expected, what was found and what to
do.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .errors import CheckpointError, InputError
from .foreign import decode_json, read_regular

# Weights files that a folder may have, preferred one first; an index names the shards of one.
_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
# Training scripts store the weights under one of these keys, beside other things.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# What wrappers put before every name: DistributedDataParallel, torch.compile, Lightning.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_LARGEST_INDEX = 100_000_000
_LONGEST_NAME = 200
_EXAMPLES = 3


class _Index(msgspec.Struct):
    """What is read of the index of a sharded checkpoint."""

    weight_map: dict[str, str]


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors.

    Args:
        path: A ``.safetensors``, ``.pth``, ``.pt``, ``.bin`` or ``.ckpt`` file, the index JSON
            of a sharded checkpoint, or a folder in the layout of the Hugging Face hub.

    Returns:
        Name -> tensor on the CPU; half-precision tensors become float32. Prefixes that training
        wrappers put before every name are removed.

    Raises:
        CheckpointError: The file does not exist, cannot be read or holds no weights.
    """
    path = Path(path)
    if path.is_dir():
        path = _file_in_folder(path)
    elif not path.exists():
        raise CheckpointError(f"{path} does not exist; check the path or download the weights")
    if not path.is_file():
        raise CheckpointError(f"{path} is not a regular file; give a weights file or its folder")
    tensors = _read_sharded(path) if path.name.endswith(".index.json") else _read_file(path)
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors; download it again")
    _check_stored(tensors, path)
    half = (torch.float16, torch.bfloat16)
    return {
        _plain(name, tensors): t.float() if t.dtype in half else t for name, t in tensors.items()
    }


class without_initialising(TorchFunctionMode):
    """Leave the parameters of networks that are built in this context as memory has them.

    Random values, which stored ones are to replace, take longer than reading those. It concerns
    the current thread only. Load all parameters afterwards, with :func:`load_strictly` or strictly.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, unless it fills a parameter."""
        given = kwargs or {}
        target = args[0] if args else given.get("tensor")
        name = getattr(func, "__name__", "")
        if isinstance(target, nn.Parameter) and name.endswith("_") and not name.endswith("__"):
            return target
        return func(*args, **given)


def load_strictly(
    model: nn.Module, state: Mapping[str, Tensor], *, source: str | Path, name: str, hint: str = ""
) -> None:
    """Put weights into a model, requiring exactly the model's tensors.

    The model takes over the tensors; those of a file that is mapped into memory stay there.

    Args:
        model: The model to load.
        state: Name -> tensor.
        source: Where the weights come from, for the error message.
        name: Name of the model, for the error message.
        hint: What the weights look like and what to do, for the error message.

    Raises:
        CheckpointError: A tensor is missing, unexpected or has another shape.
    """
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if missing or unexpected or misshapen:
        found = [
            _some("missing", missing),
            _some("unexpected", unexpected),
            _some("of another shape", misshapen),
        ]
        remedy = hint or f"give a checkpoint of {name}"
        raise CheckpointError(
            f"{source} does not fit {name}: expected {len(wanted)} tensors, found {len(state)}, "
            f"{', '.join(part for part in found if part)}; {remedy}"
        )
    fitting = {key: state[key].to(tensor.dtype).contiguous() for key, tensor in wanted.items()}
    model.load_state_dict(fitting, assign=True)


def fingerprint(module: nn.Module) -> str:
    """Return what tells a network's weights from all others: a hexadecimal SHA-256."""
    digest = hashlib.sha256(type(module).__name__.encode())
    for name, tensor in sorted(module.state_dict().items()):
        laid = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if laid.numel():
            digest.update(laid.view(torch.uint8).numpy())
    return digest.hexdigest()


def _some(what: str, items: Sequence[str]) -> str:
    """Format items as "7 missing (a, b, c, ...)"; "" if there are none."""
    if not items:
        return ""
    more = ", ..." if len(items) > _EXAMPLES else ""
    return f"{len(items)} {what} ({', '.join(items[:_EXAMPLES])}{more})"


def _file_in_folder(folder: Path) -> Path:
    for name in _FOLDER_FILES:
        if (folder / name).exists():
            return folder / name
    raise CheckpointError(
        f"{folder} holds no weights: expected one of {', '.join(_FOLDER_FILES)}; give the folder "
        "of a downloaded model or the weights file itself"
    )


def _check_stored(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that claim more values than the file stores, before any is copied."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(
                f"{path} has {name!r} as a {tensor.layout} tensor of {tensor.dtype}, expected "
                "plain numbers; save model.state_dict()"
            )
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path} claims a shape of {tuple(tensor.shape)} for {name!r} and stores fewer "
                "values; download it again"
            )


def _plain(name: str, names: Collection[str]) -> str:
    """The name without the prefixes that every name has."""
    for prefix in _PREFIXES:
        if all(other.startswith(prefix) for other in names):
            return _plain(
                name.removeprefix(prefix), [other.removeprefix(prefix) for other in names]
            )
    return name


def _read_sharded(index: Path) -> dict[str, Tensor]:
    try:
        content = read_regular(index, str(index), limit=_LARGEST_INDEX)
        shards = decode_json(content, _Index, str(index)).weight_map
    except InputError as error:
        raise CheckpointError(
            f"{index} is not the index of a sharded checkpoint (no weight_map in it); "
            "download the folder again"
        ) from error
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shards.values())):
        # Only files beside the index are read: a path could lead anywhere.
        if Path(shard).name != shard or "\0" in shard or len(shard) > _LONGEST_NAME:
            raise CheckpointError(f"{index} names {shard[:80]!r}, which is not a file beside it")
        if not (index.parent / shard).is_file():
            raise CheckpointError(
                f"{index.parent / shard} is missing, one of {len(set(shards.values()))} shards; "
                "download the folder again"
            )
        tensors.update(_read_file(index.parent / shard))
    lost = [key for key in shards if key not in tensors]
    if lost:
        raise CheckpointError(
            f"the shards beside {index} lack {_some('tensors of its index', lost)}; "
            "download the folder again"
        )
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is an empty file; download it again")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in _PICKLE_SUFFIXES:
        return _read_pickle(path)
    known = ", ".join((".safetensors", *_PICKLE_SUFFIXES))
    raise CheckpointError(f"{path} is not a weights file; expected one ending in {known}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({_one_line(error)}); download it again"
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    # Memory-mapping the file halves the peak memory; files in the old format cannot be mapped.
    try:
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        # Raised for damaged files as well as for harmful or foreign objects.
        raise CheckpointError(
            f"{path} is not a plain PyTorch state dict: it is damaged, or it holds objects other "
            f"than tensors, which are never loaded ({_one_line(error)}); download it again from "
            "its authors, or save model.state_dict() alone"
        ) from error
    except Exception as error:  # damaged bytes may make the reader raise anything
        raise CheckpointError(
            f"{path} is not a complete PyTorch file ({_one_line(error)}); download it again"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds {type(content).__name__}, expected a state dict (name -> tensor); "
            "save model.state_dict()"
        )
    foreign = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        raise CheckpointError(
            f"{path} is not a state dict, it has {_some('entries that are not tensors', foreign)}; "
            "save model.state_dict()"
        )
    return {str(key): value for key, value in content.items()}


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."
