"""Types of arrays, and the checks of shapes and values that several modules share."""

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
    """Whether a value is a tensor; torch is not imported to know."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def read_array(name: str, value: Numbers) -> NDArray[np.float64]:
    """Return finite numbers as float64.

    Args:
        name: What they are called in the error.
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
    """Return finite numbers as float32, of a shape where one is asked for.

    Args:
        name: What they are called in the error.
        value: An array, nested lists or a tensor on any device.
        shape: The sizes wanted; None for any size.

    Raises:
        InputError: They are not numbers, not finite, or of another shape.
    """
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        array = value  # large mask priors pass here: no copy in float64
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
    """Raise InputError if sizes differ from those wanted (None: any size)."""
    if len(actual) != len(shape) or any(
        want is not None and got != want for got, want in zip(actual, shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(f"{name} must have shape ({wanted}), got {actual}")


def set_field(instance: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass while it is being made."""
    object.__setattr__(instance, name, value)
