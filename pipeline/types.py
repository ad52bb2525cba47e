"""Values that flow through the pipeline: prompts, embeddings, candidates and results.

Every value is frozen; those that users make check their shapes. Conventions, everywhere:
coordinates are (x, y) in pixels of the input image, a point being the index of a pixel; boxes are
XYXY, sizes are (H, W), point labels are 1 for foreground, 0 for background and -1 for padding.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..models.errors import InputError
from .masks import CompactMask

if TYPE_CHECKING:
    from supervision import Detections

    from ..models.sam.sam import ImageFeatures

BoolArray = NDArray[np.bool_]
Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]

RESULT_SCHEMA = "promptseg.result/1"


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """What the segmenter keeps of an encoded image; decode as many prompts as wanted from it.

    Attributes:
        features: The image encoder's output.
        original_size: (H, W) of the input image.
        input_size: (H', W') of the picture within the model input.
        model_id: Name of the model that made it; "" if unnamed.
        image: The RGB image itself, (H, W, 3) uint8, read-only; text grounders read it.
    """

    features: ImageFeatures
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    model_id: str = ""
    image: UInt8Array | None = None

    def pixels(self) -> UInt8Array:
        """Return the image.

        Raises:
            ValueError: It was not kept.
        """
        if self.image is None:
            raise ValueError("text and references need an embedding that keeps its image")
        return self.image


@dataclass(frozen=True, eq=False)
class LowResMasks:
    """Masks as the decoder gives them, before they are brought to the image's size.

    Attributes:
        logits: (B, C, h, w) float32 in the model's padded square frame.
        iou_predictions: (B, C) float32.
    """

    logits: Float32Array
    iou_predictions: Float32Array

    def select(self, chosen: NDArray[np.intp]) -> LowResMasks:
        """Return one mask, ``chosen`` (B,), for each prompt: C is 1."""
        index = np.arange(len(chosen))[:, None], chosen[:, None]
        return LowResMasks(self.logits[index], self.iou_predictions[index])


@dataclass(frozen=True, eq=False)
class MaskCandidates:
    """Masks decoded for B prompts, C for each (3 with multimask output, else 1).

    Attributes:
        masks: (B, C, H, W) bool at the input image's size.
        iou_predictions: (B, C) float32, the IoU token's estimate of each mask's quality.
        low_res_logits: (B, C, h, w) float32 mask logits, to be used as the next mask prompt.
        stability_scores: (B, C) float32 in [0, 1]; the IoU between the mask thresholded one
            logit higher and one logit lower.
    """

    masks: BoolArray
    iou_predictions: Float32Array
    low_res_logits: Float32Array
    stability_scores: Float32Array


def _floats(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> Float32Array:
    """Return `value` as finite float32 of `shape` (None: any size), or raise InputError."""
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be an array of numbers: {error}") from error
    _check_shape(name, array.shape, shape)
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite; it holds NaN or infinity")
    return array


def _check_shape(name: str, actual: tuple[int, ...], shape: tuple[int | None, ...]) -> None:
    if len(actual) != len(shape) or any(
        want is not None and got != want for got, want in zip(actual, shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(f"{name} must have shape ({wanted}), not {actual}")


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptSet:
    """B prompts for one image: what a prompter hands to the segmenter.

    Attributes:
        prompt_scores: (B,) float32 in [0, 1], how sure the prompter is of each prompt.
        labels: B phrases, the one that each prompt stands for.
        point_coords: (B, N, 2) float32 (x, y) in pixels of the input image, or None.
        point_labels: (B, N) int64: 1 foreground, 0 background, -1 padding; None without points.
        boxes: (B, 4) float32 XYXY in pixels of the input image, or None.
        mask_input: (B, 1, h, w) float32 mask logits at the mask prompt's size, or None.

    Raises:
        InputError: A shape, a label or a coordinate makes no sense.
    """

    prompt_scores: Float32Array
    labels: tuple[str, ...]
    point_coords: Float32Array | None = None
    point_labels: NDArray[np.int64] | None = None
    boxes: Float32Array | None = None
    mask_input: Float32Array | None = None

    def __post_init__(self) -> None:
        labels = tuple(self.labels)
        count = len(labels)
        _set(self, "labels", labels)
        _set(self, "prompt_scores", _floats("prompt_scores", self.prompt_scores, (count,)))
        if (self.point_coords is None) != (self.point_labels is None):
            raise InputError("point_coords and point_labels go together; only one was given")
        if self.point_coords is not None:
            coords = _floats("point_coords", self.point_coords, (count, None, 2))
            point_labels = np.asarray(self.point_labels)
            _check_shape("point_labels", point_labels.shape, coords.shape[:2])
            if not np.isin(point_labels, (-1, 0, 1)).all():
                raise InputError("point_labels must be 1 (foreground), 0 (background) or -1")
            _set(self, "point_coords", coords)
            _set(self, "point_labels", point_labels.astype(np.int64))
        if self.boxes is not None:
            boxes = _floats("boxes", self.boxes, (count, 4))
            if (boxes[:, 2:] < boxes[:, :2]).any():
                raise InputError("boxes must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1")
            _set(self, "boxes", boxes)
        if self.mask_input is not None:
            _set(self, "mask_input", _floats("mask_input", self.mask_input, (count, 1, None, None)))
        if count and self.point_coords is None and self.boxes is None and self.mask_input is None:
            raise InputError("a prompt needs points, a box or a mask; none was given")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def layout(self) -> tuple[int, bool, bool]:
        """Points a prompt, and whether prompts have boxes and masks; sets of one layout join."""
        points = 0 if self.point_coords is None else self.point_coords.shape[1]
        return points, self.boxes is not None, self.mask_input is not None

    @classmethod
    def empty(cls) -> PromptSet:
        """Return a set of no prompts."""
        return cls(prompt_scores=np.zeros(0, np.float32), labels=())

    @classmethod
    def join(cls, sets: Sequence[PromptSet]) -> PromptSet:
        """Return the prompts of one or more sets of one layout, in their order."""
        if len(sets) == 1:
            return sets[0]
        if len({item.layout for item in sets}) != 1:
            raise InputError("prompts with different parts cannot be joined")
        return cls(
            prompt_scores=np.concatenate([item.prompt_scores for item in sets]),
            labels=tuple(label for item in sets for label in item.labels),
            point_coords=_joined([item.point_coords for item in sets]),
            point_labels=_joined([item.point_labels for item in sets]),
            boxes=_joined([item.boxes for item in sets]),
            mask_input=_joined([item.mask_input for item in sets]),
        )

    def part(self, block: slice) -> PromptSet:
        """Return some of the prompts."""
        return PromptSet(
            prompt_scores=self.prompt_scores[block],
            labels=self.labels[block],
            point_coords=None if self.point_coords is None else self.point_coords[block],
            point_labels=None if self.point_labels is None else self.point_labels[block],
            boxes=None if self.boxes is None else self.boxes[block],
            mask_input=None if self.mask_input is None else self.mask_input[block],
        )


def _joined(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    there = [array for array in arrays if array is not None]
    return np.concatenate(there) if there else None


@dataclass(frozen=True, eq=False)
class RejectedMask:
    """Something that was considered and dropped, with every score it had and the reason.

    Attributes:
        label: The phrase it was for.
        reason: One line for a person to read.
        prompt_score: How well the prompt matched the phrase.
        iou_prediction: The IoU token's estimate; None if nothing was decoded.
        stability_score: Stability of the mask; None if nothing was decoded.
        score: The combined score; None if nothing was decoded.
        box_xyxy: XYXY in pixels of the input image; None if there is no place to show.
        compact_mask: The mask; None for a phrase dropped before decoding.
    """

    label: str
    reason: str
    prompt_score: float
    iou_prediction: float | None = None
    stability_score: float | None = None
    score: float | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    compact_mask: CompactMask | None = None

    @property
    def mask(self) -> BoolArray | None:
        """(H, W) bool; None for a phrase dropped before decoding."""
        return None if self.compact_mask is None else self.compact_mask.full()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values; the mask as COCO run lengths."""
        return {
            "label": self.label,
            "reason": self.reason,
            "score": self.score,
            "iou_prediction": self.iou_prediction,
            "stability_score": self.stability_score,
            "prompt_score": self.prompt_score,
            "box_xyxy": None if self.box_xyxy is None else list(self.box_xyxy),
            "segmentation": (
                None if self.compact_mask is None else mask_to_rle(self.compact_mask.full())
            ),
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """Ranked masks of one image, best first, and what was dropped. It may be empty.

    Attributes:
        masks: (N, H, W) bool at the input image's size.
        boxes_xyxy: (N, 4) float32, the masks' tight boxes as pixel edges: x1 and y1 are one
            past the last pixel, so that (x1 - x0) * (y1 - y0) counts pixels.
        labels: N phrases; each mask has the phrase it was found for.
        scores: (N,) float32, the combined score that orders the masks.
        iou_predictions: (N,) float32, the IoU token's estimates.
        stability_scores: (N,) float32 in [0, 1].
        prompt_scores: (N,) float32, how well each prompt matched its phrase.
        rejected: What was considered and dropped, with the reasons.

    Raises:
        InputError: The fields' shapes or types do not agree.
    """

    masks: BoolArray
    boxes_xyxy: Float32Array
    labels: list[str]
    scores: Float32Array
    iou_predictions: Float32Array
    stability_scores: Float32Array
    prompt_scores: Float32Array
    rejected: tuple[RejectedMask, ...] = field(default=())

    def __post_init__(self) -> None:
        masks = np.asarray(self.masks)
        if masks.dtype != np.bool_:
            raise InputError(f"masks must be bool, not {masks.dtype}")
        _check_shape("masks", masks.shape, (None, None, None))
        count = len(masks)
        labels = list(self.labels)
        if len(labels) != count:
            raise InputError(f"labels must have one entry a mask: {len(labels)} for {count} masks")
        _set(self, "masks", masks)
        _set(self, "labels", labels)
        _set(self, "boxes_xyxy", _floats("boxes_xyxy", self.boxes_xyxy, (count, 4)))
        for name in ("scores", "iou_predictions", "stability_scores", "prompt_scores"):
            _set(self, name, _floats(name, getattr(self, name), (count,)))
        _set(self, "rejected", tuple(self.rejected))

    @classmethod
    def empty(cls, image_size: tuple[int, int], rejected: Sequence[RejectedMask] = ()) -> Result:
        """Return the answer "nothing here" for an image of `image_size` (H, W)."""
        nothing = np.zeros(0, np.float32)
        return cls(
            masks=np.zeros((0, *image_size), bool),
            boxes_xyxy=np.zeros((0, 4), np.float32),
            labels=[],
            scores=nothing,
            iou_predictions=nothing,
            stability_scores=nothing,
            prompt_scores=nothing,
            rejected=tuple(rejected),
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the input image."""
        return int(self.masks.shape[1]), int(self.masks.shape[2])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(
        self, key: int | slice | Sequence[int] | Sequence[bool] | NDArray[Any]
    ) -> Result:
        """Return the chosen masks as a Result; every field is filtered, `rejected` is kept.

        Args:
            key: An index, a slice, (N,) bool, or an array of indices in any order.

        Raises:
            IndexError: An index is out of range, or the bool mask's length is not N.
            TypeError: The key is of another kind.
        """
        index = self._positions(key)
        return Result(
            masks=self.masks[index],
            boxes_xyxy=self.boxes_xyxy[index],
            labels=[self.labels[i] for i in index],
            scores=self.scores[index],
            iou_predictions=self.iou_predictions[index],
            stability_scores=self.stability_scores[index],
            prompt_scores=self.prompt_scores[index],
            rejected=self.rejected,
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
        """Return JSON-able values: sizes, scores, boxes, and masks as COCO run lengths."""
        height, width = self.image_size
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
                    "area": int(self.masks[i].sum()),
                    "segmentation": mask_to_rle(self.masks[i]),
                }
                for i in range(len(self))
            ],
            "rejected": [item.to_dict() for item in self.rejected],
        }

    def to_supervision(self) -> Detections:
        """Return the masks as `supervision.Detections`, for its annotators and trackers.

        `class_id` numbers the labels in the order of their first appearance in this result;
        `data` has each mask's `class_name`, `iou_prediction`, `stability_score` and
        `prompt_score`.
        """
        names = list(dict.fromkeys(self.labels))
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


def mask_to_rle(mask: BoolArray) -> dict[str, Any]:
    """Return an (H, W) mask as COCO's compressed run lengths: {"size": [H, W], "counts": str}."""
    # pycocotools costs some 0.1 s to import, and only this needs it.
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(s) for s in rle["size"]], "counts": rle["counts"].decode("ascii")}


def import_supervision() -> ModuleType:
    """Import supervision when it is needed: it takes more than a second."""
    with warnings.catch_warnings():
        # Without OpenCV supervision warns at import that its NumPy code does the work: it may.
        warnings.filterwarnings("ignore", message="OpenCV", category=UserWarning)
        import supervision
    return supervision


def _set(instance: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass while it is being made."""
    object.__setattr__(instance, name, value)
