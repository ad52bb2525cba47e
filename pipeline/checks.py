"""Array types, and checks of shapes and values that several modules share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..models.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

BoolArray = NDArray[np.bool_]
Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]
Numbers: TypeAlias = "ArrayLike | Tensor"


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Return whether a value is a tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def read_array(name: str, value: Numbers) -> NDArray[np.float64]:
    """Return finite numbers as float64.

    Args:
        name: Name of the argument, for error messages.
        value: An array, nested lists or a tensor on any device.

    Raises:
        InputError: They are not numbers, or not finite.
    """
    if is_tensor(value):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name} must be an array of numbers: {error}") from error
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite; it holds NaN or infinity")
    return array


def read_floats(
    name: str, value: Numbers, shape: tuple[int | None, ...] | None = None
) -> Float32Array:
    """Return finite numbers as float32, checking the shape if one is given.

    Args:
        name: Name of the argument, for error messages.
        value: An array, nested lists or a tensor on any device.
        shape: Expected shape; a None entry allows any size.

    Raises:
        InputError: They are not numbers, not finite, or of another shape.
    """
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        array = value  # large mask priors take this path: no float64 copy
        if not np.isfinite(array).all():
            raise InputError(f"{name} must be finite; it holds NaN or infinity")
    else:
        with np.errstate(over="ignore"):
            array = read_array(name, value).astype(np.float32)
        if not np.isfinite(array).all():
            raise InputError(f"{name} must be finite; it holds numbers beyond float32's range")
    if shape is not None:
        check_shape(name, array.shape, shape)
    return array


def check_shape(name: str, actual: tuple[int, ...], shape: tuple[int | None, ...]) -> None:
    """Raise InputError if a shape differs from the expected one (None: any size)."""
    if len(actual) != len(shape) or any(
        want is not None and got != want for got, want in zip(actual, shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(f"{name} must have shape ({wanted}), got {actual}")


def set_field(instance: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass during its construction."""
    object.__setattr__(instance, name, value)
