"""The arithmetic that networks run in: full precision, or autocast inside a single call."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from .errors import InputError

_DTYPES = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}


def read_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A type of floating-point numbers by its name or by itself.

    Raises:
        InputError: It is none that networks are run in here.
    """
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in _DTYPES.values():
        raise InputError(f"there is no dtype {str(dtype)!r} to run in; use fp32, bf16 or fp16")
    return found


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Run what is inside in ``dtype``; weights stay as they are and nothing is set globally.

    Args:
        device: Where the network runs.
        dtype: Of :func:`read_dtype`; float32 changes nothing.
    """
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)
