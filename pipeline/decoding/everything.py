"""Everything mode: masks from a grid of clicks over the whole image, without a query.

Source: the automatic mask generation of Kirillov et al. 2023, "Segment Anything", appendix B.
Parameters, their defaults and the masks are those of the official SamAutomaticMaskGenerator.

Memory is bounded: logits and masks at the image's size exist for a block of candidates only, and
a mask is kept until the end as run lengths.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ...models.embedding import ImageEmbedding
from ...models.errors import InputError
from ..checks import Float32Array
from ..compact_mask import CompactMask
from ..images import ImageSource
from ..masks import Box, box_nms, remove_small_regions, shift
from ..proposals import Proposals
from ..result import RejectedMask
from .grid import decode_points, point_grid
from .segmenter import Segmenter
from .upscaling import STABILITY_OFFSET

# Label of every mask: there is no phrase to name it.
LABEL = "mask"
# A mask whose box comes within this many pixels of an edge of its crop is likely cut off there.
CROP_EDGE = 20

# Called with the number of points done and the number of points in total.
ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class EverythingConfig:
    """Settings of everything mode; the defaults are meant for SAM ViT-H.

    Attributes:
        points_per_side: Clicks along each side of the image's grid.
        points_per_batch: Number of points whose low-resolution masks are held at a time.
        pred_iou_thresh: A mask is kept if its predicted IoU is above this; 0 keeps all.
        stability_score_thresh: Minimum stability score; 0 keeps all.
        stability_score_offset: Distance in logits of the stability score's two thresholds from the
            mask threshold.
        box_nms_thresh: Of two masks of a crop whose boxes' IoU is above this, the one of higher
            predicted IoU stays.
        crop_n_layers: Layers of crops that are searched besides the whole image; layer i has 2 ** i
            crops along each side.
        crop_nms_thresh: As `box_nms_thresh`, between crops; the mask of the smaller crop stays.
        crop_overlap_ratio: How much the two crops along the shorter side of the first layer
            overlap, as a share of that side; the crops of further layers overlap less.
        crop_n_points_downscale_factor: Layer i has `points_per_side` // this ** i clicks along each
            side of a crop.
        min_mask_region_area: Holes of fewer pixels are filled and islands of fewer pixels removed;
            of masks whose boxes then nearly coincide one stays, preferably an unchanged one.

    Raises:
        InputError: A value is out of its range.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = STABILITY_OFFSET
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("points_per_side", 1),
            ("points_per_batch", 1),
            ("crop_n_layers", 0),
            ("crop_n_points_downscale_factor", 1),
            ("min_mask_region_area", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be a whole number, {least} or more, not {value!r}")
        for name in (
            "pred_iou_thresh",
            "stability_score_thresh",
            "box_nms_thresh",
            "crop_nms_thresh",
            "crop_overlap_ratio",
        ):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0.0 <= value <= 1.0):
                raise InputError(f"{name} must be between 0 and 1, not {value!r}")
        offset = self.stability_score_offset
        if not (isinstance(offset, (int, float)) and 0.0 <= offset < math.inf):
            raise InputError(f"stability_score_offset must be 0 or more, not {offset!r}")
        if self.crop_overlap_ratio == 1.0:
            raise InputError("crop_overlap_ratio must be below 1: the crops would never end")
        if self.points_in(self.crop_n_layers) < 1:
            raise InputError(
                f"{self.points_per_side} points_per_side leave none for layer "
                f"{self.crop_n_layers} of crops; lower crop_n_points_downscale_factor"
            )

    def points_in(self, layer: int) -> int:
        """Return the clicks along each side of a crop of a layer; layer 0 is the whole image."""
        points: int = self.points_per_side // self.crop_n_points_downscale_factor**layer
        return points


@dataclass(frozen=True)
class _Found:
    """A mask found so far.

    Attributes:
        mask: The mask in the image's frame.
        iou_prediction: The IoU token's estimate.
        stability_score: Stability in [0, 1].
        crop_area: Number of pixels of the crop that it was found in.
    """

    mask: CompactMask
    iou_prediction: float
    stability_score: float
    crop_area: int


def segment_everything(
    segmenter: Segmenter,
    image: ImageSource | ImageEmbedding,
    config: EverythingConfig,
    *,
    progress: ProgressCallback | None = None,
) -> Proposals:
    """Find masks all over an image.

    Args:
        segmenter: Encodes the image and its crops and decodes the clicks.
        image: An image, or its embedding by this segmenter.
        config: Grid, crops and thresholds.
        progress: Called after each block of points.

    Returns:
        Masks, all with label "mask" and prompt score 1. Unlike the official generator's, none is
        empty. `rejected` counts the candidates that were dropped, one entry per reason, without
        their masks: there can be thousands.

    Raises:
        InputError: The image cannot be read.
    """
    embedding = image if isinstance(image, ImageEmbedding) else segmenter.encode_image(image)
    size = embedding.original_size
    crops = crop_boxes(size, config.crop_n_layers, config.crop_overlap_ratio)
    total = sum(config.points_in(layer) ** 2 for _, layer in crops)
    search = _Search(segmenter, embedding, config)
    found: list[_Found] = []
    done = 0
    for crop, layer in crops:
        in_crop: list[_Found] = []
        for masks, points in search.crop(crop, config.points_in(layer)):
            in_crop.extend(masks)
            done += points
            if progress is not None:
                progress(done, total)
        ious = [mask.iou_prediction for mask in in_crop]
        found.extend(search.drop_duplicates(in_crop, ious, config.box_nms_thresh))
    if len(crops) > 1:
        found = search.drop_duplicates(found, [-m.crop_area for m in found], config.crop_nms_thresh)
    if config.min_mask_region_area:
        found = search.clean(found)
    return replace(_to_proposals(found, size, search.dropped), image=embedding.image)


class _Search:
    """Searches one image, and counts why candidates are dropped."""

    def __init__(
        self, segmenter: Segmenter, embedding: ImageEmbedding, config: EverythingConfig
    ) -> None:
        self.segmenter = segmenter
        self.embedding = embedding
        self.size = embedding.original_size
        self.config = config
        self.dropped: Counter[str] = Counter()

    def crop(self, crop: Box, points_per_side: int) -> Iterator[tuple[list[_Found], int]]:
        """Yield the good masks of each block of points of a crop, and the number of points."""
        x0, y0, x1, y1 = crop
        whole = (x1 - x0, y1 - y0) == self.size[::-1]
        embedding = self.embedding
        if not whole:
            embedding = self.segmenter.encode_image(self.embedding.pixels()[y0:y1, x0:x1])
        points = point_grid(points_per_side) * (x1 - x0, y1 - y0)  # (N, 2)
        for start in range(0, len(points), self.config.points_per_batch):
            block = points[start : start + self.config.points_per_batch]
            yield list(self._decode(embedding, block, crop)), len(block)

    def _decode(
        self, embedding: ImageEmbedding, points: NDArray[np.float64], crop: Box
    ) -> Iterator[_Found]:
        candidates = decode_points(self.segmenter, embedding, points)
        ious, logits = candidates.iou_predictions[:, 0], candidates.logits[:, 0]
        least = self.config.pred_iou_thresh
        chosen = np.flatnonzero(ious > least) if least > 0 else np.arange(len(ious))
        self.dropped[f"the predicted IoU is not above {least:g}"] += len(ious) - len(chosen)
        yield from self._upscale(embedding, logits[chosen], ious[chosen], crop)

    def _upscale(
        self, embedding: ImageEmbedding, logits: Float32Array, ious: Float32Array, crop: Box
    ) -> Iterator[_Found]:
        least = self.config.stability_score_thresh
        upscaled = self.segmenter.upscale_compact(
            embedding,
            logits,
            stability_offset=self.config.stability_score_offset,
            min_stability=least,
        )
        area = math.prod(embedding.original_size)
        for (mask, stability), iou in zip(upscaled, ious.tolist(), strict=True):
            # In float32, as the scores are.
            if stability < np.float32(least):
                self.dropped[f"the stability is below {least:g}"] += 1
                continue
            if mask.area == 0:
                self.dropped["the mask is empty"] += 1
                continue
            in_image = shift(mask.box, crop[0], crop[1])
            if _is_cut_off(in_image, crop, self.size):
                self.dropped["the mask is cut off by the edge of a crop"] += 1
                continue
            if mask.size != self.size:
                mask = mask.placed(crop[0], crop[1], self.size)
            yield _Found(mask, iou, float(stability), area)

    def drop_duplicates(
        self, found: Sequence[_Found], scores: Sequence[float], threshold: float
    ) -> list[_Found]:
        """Of masks with nearly the same box, keep the one with the highest score."""
        boxes = np.array([item.mask.box for item in found], np.float32).reshape(-1, 4)
        # The official boxes end at their last pixel, not one past it.
        boxes[:, 2:] -= 1
        kept = box_nms(boxes, np.array(scores, np.float64), threshold)
        reason = f"a better mask has nearly its box (IoU above {threshold:g})"
        self.dropped[reason] += len(found) - len(kept)
        return [found[i] for i in kept]

    def clean(self, found: Sequence[_Found]) -> list[_Found]:
        """Fill small holes, remove small islands, and drop masks that become duplicates."""
        cleaned, unchanged = [], []
        for item in found:
            mask = item.mask
            new = remove_small_regions(
                mask.part(), mask.box, self.size, self.config.min_mask_region_area
            )
            unchanged.append(float(new is None))
            if new is not None:
                item = replace(item, mask=CompactMask.within(*new, self.size))
            cleaned.append(item)
        threshold = max(self.config.box_nms_thresh, self.config.crop_nms_thresh)
        return self.drop_duplicates(cleaned, unchanged, threshold)


def crop_boxes(size: tuple[int, int], n_layers: int, overlap_ratio: float) -> list[tuple[Box, int]]:
    """Return the whole image and its crops, each with its layer.

    Along a side of L pixels layer i has n = 2 ** i crops of ceil((L + (n - 1) * o) / n) pixels
    that overlap by o = floor(overlap_ratio * min(H, W) * 2 / n).

    Args:
        size: (H, W) of the image.
        n_layers: Layers of crops besides the whole image, which is layer 0.
        overlap_ratio: Below 1.

    Returns:
        XYXY in pixels, as pixel edges; crops without pixels, of an image smaller than their
        number, are left out.
    """
    height, width = size
    boxes = [((0, 0, width, height), 0)]
    for layer in range(1, n_layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        spans = []  # along x, then along y
        for length in (width, height):
            side = math.ceil((overlap * (count - 1) + length) / count)
            starts = [(side - overlap) * i for i in range(count)]
            spans.append([(s, min(s + side, length)) for s in starts if s < length])
        boxes += [((x0, y0, x1, y1), layer) for (x0, x1), (y0, y1) in product(*spans)]
    return boxes


def _is_cut_off(box: Box, crop: Box, size: tuple[int, int]) -> bool:
    """Return whether a mask comes near an edge of its crop that is not an edge of the image."""
    x0, y0, x1, y1 = box
    # The official boxes end at their last pixel, not one past it.
    sides = (x0, y0, x1 - 1, y1 - 1)
    return any(
        abs(side - edge) <= CROP_EDGE < abs(side - image_edge)
        for side, edge, image_edge in zip(sides, crop, (0, 0, size[1], size[0]), strict=True)
    )


def _to_proposals(
    found: Sequence[_Found], size: tuple[int, int], dropped: Counter[str]
) -> Proposals:
    """Return the masks, and how many candidates were dropped for each reason."""
    total = len(found) + dropped.total()
    return Proposals(
        image_size=size,
        masks=tuple(item.mask for item in found),
        labels=(LABEL,) * len(found),
        iou_predictions=np.array([item.iou_prediction for item in found], np.float32),
        stability_scores=np.array([item.stability_score for item in found], np.float32),
        prompt_scores=np.ones(len(found), np.float32),
        rejected=tuple(
            RejectedMask(LABEL, f"{reason}: {count} of {total} candidates", prompt_score=1.0)
            for reason, count in dropped.items()
            if count
        ),
        distinct=True,
    )
