"""Examples of what to look for: a picture and the object in it, as given and as encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ....models.errors import InputError
from ...checks import BoolArray, UInt8Array
from ...images import ImageSource, MaskSource, load_image, load_mask
from ...marks import Marks
from ...masks import CompactMask

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ....models.features.dense import DenseFeatures

LABEL = "reference"

_Pixels = TypeVar("_Pixels", UInt8Array, BoolArray)


@dataclass(frozen=True, eq=False, init=False)
class Reference:
    """A picture with an object, given by its mask, or by a box or a click that SAM turns into one.

    Args:
        image: A path, a Pillow image or a uint8 array (H, W, 3) RGB.
        mask: Of the object, at the image's size: a path, a Pillow image or a bool or uint8 array
            (H, W); what is not zero is the object.
        box: XYXY in pixels of the image.
        point: (x, y) in pixels of the image, or several (N, 2), all on the object.
        label: What masks found by this reference are called; references of one label are
            examples of the same thing.

    Attributes:
        image: (H, W, 3) uint8 RGB, read-only.
        mask: (H, W) bool, read-only, or None.
        marks: The box or the points; empty with a mask.
        label: As given, without surrounding space.

    Raises:
        InputError: Not exactly one of mask, box and point is given, one of them cannot be read
            or lies outside the image, or the mask has another size, is empty or covers all.
    """

    image: UInt8Array
    mask: BoolArray | None
    marks: Marks
    label: str

    def __init__(
        self,
        image: ImageSource,
        mask: MaskSource | None = None,
        box: ArrayLike | None = None,
        point: ArrayLike | None = None,
        *,
        label: str = LABEL,
    ) -> None:
        given = [
            name
            for name, value in (("mask", mask), ("box", box), ("point", point))
            if value is not None
        ]
        if len(given) != 1:
            raise InputError(
                "a reference needs one of mask, box and point to say which object is meant, got "
                f"{' and '.join(given) or 'none'}"
            )
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"the label of a reference must be a text, got {label!r}")
        pixels = load_image(image)
        size = (pixels.shape[0], pixels.shape[1])
        object.__setattr__(self, "image", _read_only(pixels))
        object.__setattr__(self, "mask", None if mask is None else _read_mask(mask, size))
        object.__setattr__(self, "marks", _read_mark(box, point, size))
        object.__setattr__(self, "label", label.strip())


@dataclass(frozen=True, eq=False)
class Shot:
    """The features of one example.

    Attributes:
        features: Of its picture, or of the part of it around a tiny object.
        coverage: Share of each cell that the object covers, (h, w) float32; not all 0.
        mask: The object in the picture; None if only the cells are known.
        whole: Features of the whole picture, where the others are of a part of it.
    """

    features: DenseFeatures
    coverage: Tensor
    mask: CompactMask | None = None
    whole: DenseFeatures | None = None

    @property
    def picture(self) -> DenseFeatures:
        """Features of the whole picture."""
        return self.features if self.whole is None else self.whole

    def to(self, device: torch.device) -> Shot:
        """Return the example with its tensors on a device."""
        whole = None if self.whole is None else self.whole.to(device)
        return Shot(self.features.to(device), self.coverage.to(device), self.mask, whole)


@dataclass(frozen=True, eq=False)
class EncodedReference:
    """Examples of one thing, encoded once for any number of targets.

    Attributes:
        label: What masks found by it are called.
        shots: One or more examples, all with features of the same model.
        negatives: Examples of what it is not, by the same model.

    Raises:
        InputError: There are no examples, or their features are of different models.
    """

    label: str
    shots: tuple[Shot, ...]
    negatives: tuple[Shot, ...] = ()

    def __post_init__(self) -> None:
        if not self.shots:
            raise InputError("a reference needs one example at least; none was given")
        models = sorted({shot.features.model_id for shot in (*self.shots, *self.negatives)})
        if len(models) > 1:
            raise InputError(
                f"the examples of {self.label!r} were encoded by {' and '.join(models)}, whose "
                "features cannot be compared; encode all with one model"
            )

    @property
    def model_id(self) -> str:
        """Name of the model that made the features."""
        return self.shots[0].features.model_id

    def to(self, device: torch.device) -> EncodedReference:
        """Return the examples with their tensors on a device."""
        return replace(
            self,
            shots=tuple(shot.to(device) for shot in self.shots),
            negatives=tuple(shot.to(device) for shot in self.negatives),
        )


# What stands for references in a query: one or several, encoded or not.
ReferenceQuery = Reference | EncodedReference | Sequence[Reference | EncodedReference]


def read_references(
    query: ReferenceQuery | None, name: str = "reference"
) -> tuple[Reference | EncodedReference, ...]:
    """One or several references as a tuple.

    Args:
        query: What a caller gave.
        name: What the argument is called, for the messages.

    Raises:
        InputError: The query is empty, or something in it is no reference.
    """
    if query is None:
        return ()
    items: object = (query,) if isinstance(query, (Reference, EncodedReference)) else query
    if not isinstance(items, (list, tuple)):
        raise InputError(f"{name} must be a Reference or a list of them, got {items!r}")
    if not items:
        raise InputError(f"{name} is an empty list; give one Reference at least")
    for item in items:
        if not isinstance(item, (Reference, EncodedReference)):
            raise InputError(
                f"{name} must be a Reference or a list of them, got a {type(item).__name__}; "
                "write Reference(image, mask)"
            )
    return tuple(items)


def check_mask(mask: BoolArray) -> None:
    """Raise InputError for a mask that shows no object, or nothing but the object."""
    if not mask.any():
        raise InputError("the reference's mask is empty; mark the object with non-zero pixels")
    if mask.all():
        raise InputError(
            "the reference's mask covers the whole image, so that nothing tells the object from "
            "what is around it; mask the object alone"
        )


def _read_mask(source: MaskSource, size: tuple[int, int]) -> BoolArray:
    mask = load_mask(source)
    if mask.shape != size:
        raise InputError(
            f"the reference's mask is {mask.shape[1]} x {mask.shape[0]} pixels and its image "
            f"{size[1]} x {size[0]}; give a mask of the image's size"
        )
    check_mask(mask)
    return _read_only(mask)


def _read_mark(box: ArrayLike | None, point: ArrayLike | None, size: tuple[int, int]) -> Marks:
    """One box, or one or more points; none of both for a mask."""
    if box is not None:
        corners = _numbers("box", box)
        if corners.shape != (4,):
            raise InputError(f"the reference's box must be 4 numbers, XYXY, got {corners.shape}")
        marks = Marks.read(boxes=corners)
        marks.check_inside(size)
        return marks
    if point is None:
        return Marks.read()
    points = np.atleast_2d(_numbers("point", point))
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise InputError(f"the reference's point must be (x, y) or (N, 2), got {points.shape}")
    marks = Marks.read(points)
    marks.check_inside(size)
    return marks


def _numbers(name: str, value: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the reference's {name} must be numbers: {error}") from error


def _read_only(pixels: _Pixels) -> _Pixels:
    """A copy that nobody writes to: the caller may change his array later."""
    copy: _Pixels = pixels.copy()
    copy.flags.writeable = False
    return copy
