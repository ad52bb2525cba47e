"""Examples of what to look for: an image and the object in it, as given and as encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ....models.errors import InputError
from ...checks import BoolArray, Numbers, UInt8Array, read_array, set_field
from ...compact_mask import CompactMask
from ...images import ImageSource, MaskSource, load_image, load_mask
from ...marks import Marks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ....models.features.dense import DenseFeatures

LABEL = "reference"

_Pixels = TypeVar("_Pixels", UInt8Array, BoolArray)


@dataclass(frozen=True, eq=False, init=False)
class Reference:
    """An image and the object in it, given by a mask, a box or points; SAM makes masks of those.

    Args:
        image: A path, a Pillow image or a uint8 array (H, W, 3) RGB.
        mask: Mask of the object, at the image's size: a path, a Pillow image or a bool or uint8
            array (H, W); non-zero pixels are the object.
        box: XYXY in pixels of the image.
        point: (x, y) in pixels of the image, or several (N, 2), all on the object.
        label: Label of the masks that this reference finds; references with the same label show
            the same thing.

    Attributes:
        image: (H, W, 3) uint8 RGB, read-only.
        mask: (H, W) bool, read-only, or None.
        marks: The box or the points; empty with a mask.
        label: The label, stripped.

    Raises:
        InputError: Not exactly one of mask, box and point is given, one of them cannot be read
            or lies outside the image, or the mask has another size, is empty or covers the image.
    """

    image: UInt8Array
    mask: BoolArray | None
    marks: Marks
    label: str

    def __init__(
        self,
        image: ImageSource,
        mask: MaskSource | None = None,
        box: Numbers | None = None,
        point: Numbers | None = None,
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
            raise InputError(f"the label of a reference must be a non-empty text, got {label!r}")
        pixels = load_image(image)
        size = (pixels.shape[0], pixels.shape[1])
        set_field(self, "image", _read_only(pixels))
        set_field(self, "mask", None if mask is None else _read_mask(mask, size))
        set_field(self, "marks", _read_mark(box, point, size))
        set_field(self, "label", label.strip())


@dataclass(frozen=True, eq=False)
class Shot:
    """The features of one example.

    Attributes:
        features: Features of its image, or of the part around a tiny object.
        coverage: Share of each cell that the object covers, (h, w) float32; not all 0.
        mask: Mask of the object in the image; None if only the cells are known.
        whole: Features of the whole image, if ``features`` are of a part of it.
    """

    features: DenseFeatures
    coverage: Tensor
    mask: CompactMask | None = None
    whole: DenseFeatures | None = None

    @property
    def picture(self) -> DenseFeatures:
        """Features of the whole image."""
        return self.features if self.whole is None else self.whole

    def to(self, device: torch.device) -> Shot:
        """Return the example with its tensors on a device."""
        whole = None if self.whole is None else self.whole.to(device)
        return Shot(self.features.to(device), self.coverage.to(device), self.mask, whole)


@dataclass(frozen=True, eq=False)
class EncodedReference:
    """Examples of one thing, encoded once for any number of targets.

    Attributes:
        label: Label of the masks that it finds.
        shots: One or more examples, all with features of the same model.
        negatives: Examples of what not to find, encoded by the same model.

    Raises:
        InputError: There are no examples, or their features are of different models.
    """

    label: str
    shots: tuple[Shot, ...]
    negatives: tuple[Shot, ...] = ()

    def __post_init__(self) -> None:
        if not self.shots:
            raise InputError("a reference needs at least one example; none was given")
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


# The references of a query: one or several, encoded or not.
ReferenceQuery = Reference | EncodedReference | Sequence[Reference | EncodedReference]


def read_references(
    query: ReferenceQuery | None, name: str = "reference"
) -> tuple[Reference | EncodedReference, ...]:
    """Return one or several references as a tuple.

    Args:
        query: The references as given.
        name: Name of the argument, for error messages.

    Raises:
        InputError: The query is empty, or an item is not a reference.
    """
    if query is None:
        return ()
    items: object = (query,) if isinstance(query, (Reference, EncodedReference)) else query
    if not isinstance(items, (list, tuple)):
        raise InputError(f"{name} must be a Reference or a list of them, got {items!r}")
    if not items:
        raise InputError(f"{name} is an empty list; give at least one Reference")
    for item in items:
        if not isinstance(item, (Reference, EncodedReference)):
            raise InputError(
                f"{name} must be a Reference or a list of them, got a {type(item).__name__}; "
                "write Reference(image, mask)"
            )
    return tuple(items)


def check_mask(mask: BoolArray) -> None:
    """Raise InputError for a mask that is empty or covers the whole image."""
    if not mask.any():
        raise InputError("the reference's mask is empty; mark the object with non-zero pixels")
    if mask.all():
        raise InputError(
            "the reference's mask covers the whole image, which leaves no background to tell the "
            "object from; mask the object alone"
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


def _read_mark(box: Numbers | None, point: Numbers | None, size: tuple[int, int]) -> Marks:
    """Return a box, or one or more points; no marks if neither is given."""
    if box is not None:
        corners = read_array("the reference's box", box)
        if corners.shape != (4,):
            raise InputError(f"the reference's box must be 4 numbers, XYXY, got {corners.shape}")
        marks = Marks.read(boxes=corners)
        marks.check_inside(size)
        return marks
    if point is None:
        return Marks.read()
    points = np.atleast_2d(read_array("the reference's point", point))
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise InputError(f"the reference's point must be (x, y) or (N, 2), got {points.shape}")
    marks = Marks.read(points)
    marks.check_inside(size)
    return marks


def _read_only(pixels: _Pixels) -> _Pixels:
    """Return a read-only copy: the caller may change the original later."""
    copy: _Pixels = pixels.copy()
    copy.flags.writeable = False
    return copy
