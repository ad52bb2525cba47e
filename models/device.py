"""Devices, and the arithmetic of networks: full precision, or autocast within a single call."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

from .errors import InputError
from .hardware import bf16_units

_DTYPES = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
}


def read_dtype(dtype: str | torch.dtype, device: str | torch.device = "cpu") -> torch.dtype:
    """Return the floating-point type of that name; a type itself is checked and returned.

    Args:
        dtype: "fp32", "bf16", "fp16", a type, or "auto": see :func:`best_dtype`.
        device: Where networks will run; "auto" depends on it.

    Raises:
        InputError: Networks are not run in that type here.
    """
    if isinstance(dtype, str) and dtype == "auto":
        return best_dtype(read_device(device))
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in _DTYPES.values():
        raise InputError(
            f"there is no dtype {str(dtype)!r} to run in; use auto, fp32, bf16 or fp16"
        )
    return found


def best_dtype(device: torch.device) -> torch.dtype:
    """Return what networks compute in unless told otherwise.

    It is bfloat16 where the device multiplies it in hardware, which takes about half the time of
    float32: CPUs with AMX or AVX512-BF16, NVIDIA GPUs from compute capability 8.0 on, and what
    ROCm and oneAPI report. Elsewhere it is float32.
    """
    fast = False
    if device.type == "cpu":
        fast = bool(bf16_units()) and _runs(device, torch.bfloat16)
    elif device.type == "cuda" and torch.version.hip is None:
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    elif device.type == "xpu":
        fast = torch.xpu.is_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def read_device(device: str | torch.device) -> torch.device:
    """Return a device that networks can be put on.

    Raises:
        InputError: There is no such device, or the installed PyTorch cannot use it.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    # No driver, a build without support, an index out of range, or not the name of a device.
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0][:160].rstrip(".")
        raise InputError(
            f"networks cannot run on the device {str(device)!r} here ({reason}); use cpu, or cuda, "
            "mps or xpu where there is one"
        ) from error
    return found


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Run the enclosed calls in ``dtype``; weights are unchanged and nothing is set globally.

    Args:
        device: Device that the network runs on.
        dtype: A type from :func:`read_dtype`; float32 has no effect.
    """
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def cast_layers(network: nn.Module, dtype: torch.dtype) -> None:
    """Convert the linear layers and the convolutions of a network for good.

    Under :func:`autocast` in the same type the network then gives the same results, takes half the
    memory for these layers, and does not convert them anew at each call. It works in no other type.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            layer.to(dtype)


def check_support(device: torch.device, dtype: torch.dtype) -> None:
    """Check that networks can run in a type on a device, before one does.

    Args:
        device: Device that the network will run on.
        dtype: A type from :func:`read_dtype`.

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
    if dtype not in (torch.float16, torch.bfloat16):
        return False
    x = torch.zeros(1, 1, 2, 2, device=device)
    try:
        with torch.autocast(device.type, dtype=dtype):
            outputs = (F.conv2d(x, x), x @ x)
    except RuntimeError:
        return False
    return all(output.dtype == dtype for output in outputs)
