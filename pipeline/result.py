"""The answer: ranked masks of one image, and what was dropped and why.

Conventions throughout the package: coordinates are (x, y) in pixels of the input image, a point
being the index of a pixel; boxes are XYXY, sizes are (H, W), point labels are 1 for foreground, 0
for background and -1 for padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..models.errors import InputError
from .checks import BoolArray, Float32Array, UInt8Array, check_shape, read_floats, set_field
from .compact_mask import CompactMask
from .masks import cut
from .unseen import UnseenTile

if TYPE_CHECKING:
    from supervision import Detections

    from .images import ImageSource

RESULT_SCHEMA = "promptseg.result/1"


@dataclass(frozen=True, eq=False)
class RejectedMask:
    """A candidate that was dropped, with its scores and the reason.

    Attributes:
        label: The phrase it was for.
        reason: One human-readable line.
        prompt_score: How well the prompt matched the phrase.
        iou_prediction: The IoU token's estimate; None if nothing was decoded.
        stability_score: Stability of the mask; None if nothing was decoded.
        score: The combined score; None if nothing was decoded.
        box_xyxy: XYXY in pixels of the input image; None if it has no location.
        compact_mask: The mask; None for a phrase dropped before decoding.
        presence: For what was dropped since there is too little presence: how much there is, so
            that a query with a ``min_presence`` of no more than this decodes it; otherwise None.
    """

    label: str
    reason: str
    prompt_score: float
    iou_prediction: float | None = None
    stability_score: float | None = None
    score: float | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    compact_mask: CompactMask | None = None
    presence: float | None = None

    @property
    def mask(self) -> BoolArray | None:
        """(H, W) bool; None for a phrase dropped before decoding."""
        return None if self.compact_mask is None else self.compact_mask.full()

    @property
    def enough(self) -> str:
        """A ``min_presence`` that decodes it, its presence rounded down, as text; "" if none."""
        if self.presence is None:
            return ""
        return f"{math.floor(self.presence * 1000) / 1000:g}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable values, with the mask as COCO run lengths."""
        return {
            "label": self.label,
            "reason": self.reason,
            "score": self.score,
            "iou_prediction": self.iou_prediction,
            "stability_score": self.stability_score,
            "prompt_score": self.prompt_score,
            "presence": self.presence,
            "box_xyxy": None if self.box_xyxy is None else list(self.box_xyxy),
            "segmentation": None if self.compact_mask is None else self.compact_mask.to_rle(),
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """Ranked masks of one image, best first, and what was dropped; it may be empty.

    Attributes:
        image_size: (H, W) of the input image.
        compact_masks: N masks of that size, as run lengths.
        labels: N phrases; each mask has the phrase it was found for.
        scores: (N,) float32, the combined score that orders the masks.
        iou_predictions: (N,) float32, the IoU token's estimates.
        stability_scores: (N,) float32 in [0, 1].
        prompt_scores: (N,) float32, how well each prompt matched its phrase.
        rejected: Candidates that were dropped, with the reasons.
        image: The image itself, (H, W, 3) uint8 RGB, read-only; None if it was not kept.
        unseen: Tiles that could not be looked at.

    Raises:
        InputError: The fields' shapes or types do not agree.
    """

    image_size: tuple[int, int]
    compact_masks: tuple[CompactMask, ...]
    labels: list[str]
    scores: Float32Array
    iou_predictions: Float32Array
    stability_scores: Float32Array
    prompt_scores: Float32Array
    rejected: tuple[RejectedMask, ...] = field(default=())
    image: UInt8Array | None = None
    unseen: tuple[UnseenTile, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.compact_masks)
        others = {mask.size for mask in self.compact_masks} - {self.image_size}
        if others:
            raise InputError(
                f"all masks must be of the image's size {self.image_size}, got {others.pop()}"
            )
        labels = list(self.labels)
        if len(labels) != count:
            raise InputError(
                f"labels must have one entry per mask: {len(labels)} for {count} masks"
            )
        set_field(self, "labels", labels)
        for name in ("scores", "iou_predictions", "stability_scores", "prompt_scores"):
            set_field(self, name, read_floats(name, getattr(self, name), (count,)))
        set_field(self, "rejected", tuple(self.rejected))
        if self.image is not None and self.image.shape != (*self.image_size, 3):
            raise InputError(
                f"the image must have shape {(*self.image_size, 3)} to match the masks, not "
                f"{self.image.shape}"
            )

    @classmethod
    def of(
        cls,
        masks: BoolArray,
        labels: Sequence[str],
        scores: ArrayLike,
        iou_predictions: ArrayLike,
        stability_scores: ArrayLike,
        prompt_scores: ArrayLike,
        *,
        rejected: Sequence[RejectedMask] = (),
        image: UInt8Array | None = None,
    ) -> Result:
        """Make a result of masks (N, H, W) bool; for the other arguments see the class.

        Raises:
            InputError: As for the class.
        """
        masks = np.asarray(masks)
        if masks.dtype != np.bool_:
            raise InputError(f"masks must be bool, not {masks.dtype}")
        check_shape("masks", masks.shape, (None, None, None))
        return cls(
            image_size=(masks.shape[1], masks.shape[2]),
            compact_masks=tuple(CompactMask.of(mask) for mask in masks),
            labels=list(labels),
            scores=read_floats("scores", scores),
            iou_predictions=read_floats("iou_predictions", iou_predictions),
            stability_scores=read_floats("stability_scores", stability_scores),
            prompt_scores=read_floats("prompt_scores", prompt_scores),
            rejected=tuple(rejected),
            image=image,
        )

    @classmethod
    def empty(
        cls,
        image_size: tuple[int, int],
        rejected: Sequence[RejectedMask] = (),
        image: UInt8Array | None = None,
    ) -> Result:
        """Return the answer "nothing here" for an image of `image_size` (H, W)."""
        nothing = np.zeros(0, np.float32)
        return cls(
            image_size=image_size,
            compact_masks=(),
            labels=[],
            scores=nothing,
            iou_predictions=nothing,
            stability_scores=nothing,
            prompt_scores=nothing,
            rejected=tuple(rejected),
            image=image,
        )

    @cached_property
    def masks(self) -> BoolArray:
        """(N, H, W) bool at the input image's size.

        They are made when they are first asked for and kept from then on: N * H * W bytes.
        `compact_masks` have areas, boxes and the pixels of one mask at a time.
        """
        masks = np.zeros((len(self), *self.image_size), np.bool_)
        for mask, compact in zip(masks, self.compact_masks, strict=True):
            cut(mask, compact.box)[...] = compact.part()
        return masks

    @cached_property
    def boxes_xyxy(self) -> Float32Array:
        """(N, 4) float32, the masks' tight boxes as pixel edges.

        x1 and y1 are one past the last pixel, so that (x1 - x0) * (y1 - y0) counts pixels.
        """
        return np.array([mask.box for mask in self.compact_masks], np.float32).reshape(-1, 4)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(
        self, key: int | slice | Sequence[int] | Sequence[bool] | NDArray[Any]
    ) -> Result:
        """Return the selected masks as a Result; `rejected` stays complete.

        Args:
            key: An index, a slice, (N,) bool, or an array of indices in any order.

        Raises:
            IndexError: An index is out of range, or the bool mask's length is not N.
            TypeError: The key has another type.
        """
        index = self._positions(key)
        return Result(
            image_size=self.image_size,
            compact_masks=tuple(self.compact_masks[i] for i in index),
            labels=[self.labels[i] for i in index],
            scores=self.scores[index],
            iou_predictions=self.iou_predictions[index],
            stability_scores=self.stability_scores[index],
            prompt_scores=self.prompt_scores[index],
            rejected=self.rejected,
            image=self.image,
            unseen=self.unseen,
        )

    def __iter__(self) -> Iterator[Result]:
        """Yield a Result of one mask for each mask, best first."""
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return (
            f"Result(masks={len(self)}, labels={self.labels!r}, "
            f"scores={[round(float(s), 3) for s in self.scores]}, "
            f"rejected={len(self.rejected)}, image_size={self.image_size})"
        )

    def _positions(self, key: object) -> NDArray[np.intp]:
        """Return the key as (n,) indices."""
        positions = np.arange(len(self))
        if isinstance(key, slice):
            return positions[key]
        if isinstance(key, (bool, np.bool_, str, tuple)) or key is None:
            raise TypeError(f"a Result is indexed by int, slice, bool mask or indices, not {key!r}")
        chosen = np.asarray(key)
        if chosen.size == 0 and chosen.dtype != np.bool_:
            chosen = chosen.astype(np.intp)
        if chosen.ndim > 1 or chosen.dtype.kind not in "bui":
            raise TypeError(
                "a Result is indexed by int, slice, bool mask or indices, "
                f"not an array of {chosen.dtype} with {chosen.ndim} axes"
            )
        return np.atleast_1d(positions[chosen])

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable values: sizes, scores, boxes, and masks as COCO run lengths.

        Tiles that could not be looked at are named only where there are some.
        """
        height, width = self.image_size
        unseen = [tile.to_dict() for tile in self.unseen]
        return {
            "schema": RESULT_SCHEMA,
            "image_size": [height, width],
            "masks": [
                {
                    "label": self.labels[i],
                    "score": float(self.scores[i]),
                    "iou_prediction": float(self.iou_predictions[i]),
                    "stability_score": float(self.stability_scores[i]),
                    "prompt_score": float(self.prompt_scores[i]),
                    "box_xyxy": [float(v) for v in self.boxes_xyxy[i]],
                    "area": self.compact_masks[i].area,
                    "segmentation": self.compact_masks[i].to_rle(),
                }
                for i in range(len(self))
            ],
            "rejected": [item.to_dict() for item in self.rejected],
            **({"unseen": unseen} if unseen else {}),
        }

    def overlay(self, image: ImageSource | None = None) -> UInt8Array:
        """Draw the masks over the image: tinted, outlined and labelled, with their scores.

        Args:
            image: The image; by default the one that the result keeps.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            InputError: There is no image, or it has another size.
        """
        from .drawing import draw_overlay

        return draw_overlay(self._pixels(image), self)

    def show(self, image: ImageSource | None = None) -> None:
        """Show :meth:`overlay` below a notebook cell, otherwise in the system's image viewer.

        Raises OSError where there is neither.
        """
        from .display import show

        show(replace(self, image=self._pixels(image)))

    def save(
        self, folder: str | Path, image: ImageSource | None = None, *, overwrite: bool = False
    ) -> Path:
        """Write result.json, the overlay and one PNG per mask, as `promptseg segment` does.

        The files of an earlier result in the folder are replaced; other files are left alone.

        Args:
            folder: Folder to write to; created if needed.
            image: The image; by default the one that the result keeps.
            overwrite: Also replace files of the same names that are not of an earlier result.

        Returns:
            The folder.

        Raises:
            InputError: There is no image, it has another size, or a file that is in the way is
                not of an earlier result.
            OSError: The folder cannot be created or written to.
        """
        from .saving import file_names, write_outputs

        folder = Path(folder)
        record = {"files": file_names(folder, self), **self.to_dict()}
        write_outputs(folder, self._pixels(image), self, record, overwrite=overwrite)
        return folder

    def _pixels(self, image: ImageSource | None) -> UInt8Array:
        from .images import load_image

        pixels = self.image if image is None else load_image(image)
        if pixels is None:
            raise InputError("this result does not keep its image; pass the image as well")
        if pixels.shape[:2] != self.image_size:
            raise InputError(
                f"the result belongs to an image of {self.image_size[1]} x {self.image_size[0]} "
                f"pixels, this one has {pixels.shape[1]} x {pixels.shape[0]}; pass the image "
                "that was segmented"
            )
        return pixels

    def _repr_png_(self) -> bytes | None:
        """The overlay, for notebooks."""
        from .display import to_png

        return None if self.image is None else to_png(self)

    def _repr_html_(self) -> str:
        """The overlay and a table of the masks, for notebooks."""
        from .display import to_html

        return to_html(self)

    def to_supervision(self) -> Detections:
        """Return the masks as `supervision.Detections`, for its annotators and trackers.

        `class_id` numbers the labels in the order of their first appearance in this result;
        `data` has each mask's `class_name`, `iou_prediction`, `stability_score` and
        `prompt_score`.
        """
        names = list(dict.fromkeys(self.labels))
        from .drawing import import_supervision

        detections: Detections = import_supervision().Detections(
            xyxy=self.boxes_xyxy.copy(),
            mask=self.masks.copy(),
            confidence=self.scores.copy(),
            class_id=np.array([names.index(label) for label in self.labels], dtype=int),
            data={
                "class_name": np.array(self.labels, dtype=np.str_),
                "iou_prediction": self.iou_predictions.copy(),
                "stability_score": self.stability_scores.copy(),
                "prompt_score": self.prompt_scores.copy(),
            },
        )
        return detections
