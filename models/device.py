"""The arithmetic that networks run in: full precision, or autocast inside a single call."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch.nn import functional as F

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


def read_device(device: str | torch.device) -> torch.device:
    """A device that networks can be put on.

    Raises:
        InputError: There is no such device, or none that the installed PyTorch can use.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    # No driver, a build without it, a number beyond the last one, no name of a device at all.
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0][:160].rstrip(".")
        raise InputError(
            f"networks cannot run on the device {str(device)!r} here ({reason}); use cpu, or cuda, "
            "mps or xpu where there is one"
        ) from error
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


def check_support(device: torch.device, dtype: torch.dtype) -> None:
    """Find out, before a network runs, whether it can.

    Args:
        device: Where the network is to run.
        dtype: Of :func:`read_dtype`.

    Raises:
        InputError: The installed PyTorch cannot run networks in ``dtype`` on ``device``.
    """
    if dtype != torch.float32 and not _runs(device, dtype):
        name = str(dtype).removeprefix("torch.")
        other = "bf16" if dtype == torch.float16 else "fp16"
        raise InputError(
            f"PyTorch {torch.__version__} cannot run networks in {name} on {device} here; use "
            f"dtype='fp32' or try {other!r}"
        )


@cache
def _runs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a convolution and a matrix product come out in ``dtype``."""
    x = torch.zeros(1, 1, 2, 2, device=device)
    with warnings.catch_warnings():
        # Where autocast does not know the type it warns and switches itself off.
        warnings.simplefilter("ignore")
        try:
            with torch.autocast(device.type, dtype=dtype):
                outputs = (F.conv2d(x, x), x @ x)
        except RuntimeError:
            return False
    return all(output.dtype == dtype for output in outputs)
