"""A closer look at small things: their surroundings are cut out, encoded and decoded alone.

An image encoder sees every image at one size, so that something small covers a few cells of its
grid. Cut out with some of what is around it, it covers many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ...models.embedding import ImageEmbedding
from ...models.errors import InputError
from ..checks import Float32Array
from ..masks import Box
from ..proposals import Proposals
from .prompts import PromptSet
from .segmenter import Segmenter

Decode = Callable[[ImageEmbedding, PromptSet], Proposals]
# Share of a side of the window that a mask may lie along: one that is cut off is no answer.
_CUT_OFF = 0.05


@dataclass(frozen=True)
class CloserConfig:
    """When and how a closer look is taken.

    Attributes:
        largest_box: Share of the image below which what a box marks is looked at closely.
        reach: Side of what is cut out around a box, in longer sides of the box.
        least_side: Smallest side of what is cut out, in pixels.
        looks: Most closer looks of a query; further boxes are decoded from the whole image.
        click_share: Side of what is cut out around clicks, as a share of the image's longer side.
            It is used where its mask's predicted IoU is higher and it does not cut the mask off.
        largest_mask: Share of the image below which a mask from around clicks is used.

    Raises:
        InputError: A value is out of its range.
    """

    largest_box: float = 0.015
    reach: float = 2.0
    least_side: int = 48
    looks: int = 8
    click_share: float = 0.5
    largest_mask: float = 0.02

    def __post_init__(self) -> None:
        for name in ("largest_box", "click_share", "largest_mask"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"{name} must be between 0 and 1, not {getattr(self, name)!r}")
        if not self.reach >= 1.0:
            raise InputError(f"reach must be 1 or more, not {self.reach!r}")
        for name in ("least_side", "looks"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, not {getattr(self, name)}")


class CloserLooks:
    """Decodes points and boxes, small things from a closer look.

    The last look at a click is kept as long as the image's embedding: further clicks on the same
    thing neither encode what was cut out nor decode the first click again.

    Args:
        segmenter: Encodes what is cut out.
        decode: Decodes prompts on an encoded image.
    """

    def __init__(self, segmenter: Segmenter, decode: Decode) -> None:
        self.segmenter = segmenter
        self.decode = decode
        self._last: WeakKeyDictionary[ImageEmbedding, _Look] = WeakKeyDictionary()

    def __call__(
        self, embedding: ImageEmbedding, prompts: PromptSet, config: CloserConfig
    ) -> Proposals:
        """Decode prompts.

        Args:
            embedding: The encoded image; without its pixels there is no closer look.
            prompts: One prompt of points, or any number of boxes, with or without points.
            config: When and how a closer look is taken.

        Returns:
            Masks of the image, in any order.
        """
        if embedding.image is None:
            return self.decode(embedding, prompts)
        if prompts.boxes is None:
            return self._clicked(embedding, prompts, config)
        small = _small(prompts.boxes, embedding.original_size, config)
        rest = np.setdiff1d(np.arange(len(prompts)), small)
        found = [self.decode(embedding, prompts.part(rest))] if len(rest) else []
        for i in small.tolist():
            window = window_around(prompts.boxes[i], embedding.original_size, config)
            closer = self.segmenter.encode_pixels(cut_out(embedding, window))
            found.append(self._within(embedding, closer, window, prompts.part(np.array([i]))))
        return Proposals.join(embedding.original_size, found)

    def _within(
        self, embedding: ImageEmbedding, closer: ImageEmbedding, window: Box, prompts: PromptSet
    ) -> Proposals:
        """Decode prompts of the whole image in a window."""
        found = self.decode(closer, moved(prompts, window))
        return placed(found, window, embedding.original_size)

    def _clicked(
        self, embedding: ImageEmbedding, prompts: PromptSet, config: CloserConfig
    ) -> Proposals:
        """Decode one prompt of clicks from where its first foreground click is seen better."""
        first = _first_click(prompts)
        window = _window_of_click(first, embedding.original_size, config)
        if window is None or not _all_inside(prompts, window):
            return self.decode(embedding, prompts)
        look = self._look(embedding, first, window, config)
        if prompts.point_coords is not None and prompts.point_coords.shape[1] == 1:
            return look.whole if look.near is None else look.near
        if look.near is None:
            return self.decode(embedding, prompts)
        return self._within(embedding, look.closer, window, prompts)

    def _look(
        self, embedding: ImageEmbedding, first: PromptSet, window: Box, config: CloserConfig
    ) -> _Look:
        """Decode a click from the whole image and a window, unless it was the image's last one."""
        key = (config, first.labels, *_contents(first))
        last = self._last.get(embedding)
        if last is not None and last.key == key:
            return last
        whole = self.decode(embedding, first)
        if last is not None and last.window == window:  # in a corner of the image
            closer = last.closer
        else:
            closer = self.segmenter.encode_pixels(cut_out(embedding, window))
        near = self._within(embedding, closer, window, first)
        better = _is_better(near, whole, window, config.largest_mask)
        look = _Look(key, window, closer, whole, near if better else None)
        self._last[embedding] = look
        return look


@dataclass(frozen=True, eq=False)
class _Look:
    """What was last found of a click on an image.

    Attributes:
        key: The click and what else the rest depends on.
        window: What was cut out around the click.
        closer: That, encoded.
        whole: What the whole image gives.
        near: What the window gives, if that is better.
    """

    key: tuple[object, ...]
    window: Box
    closer: ImageEmbedding
    whole: Proposals
    near: Proposals | None


def _contents(prompts: PromptSet) -> list[bytes | None]:
    arrays = (prompts.prompt_scores, prompts.point_coords, prompts.point_labels, prompts.mask_input)
    return [None if array is None else array.tobytes() for array in arrays]


def _first_click(prompts: PromptSet) -> PromptSet:
    """Return the first foreground click of a prompt of points, alone."""
    if prompts.point_coords is None or prompts.point_labels is None:
        raise ValueError("the prompt has no points")
    first = int(np.argmax(prompts.point_labels[0] == 1))
    return replace(
        prompts,
        point_coords=prompts.point_coords[:, first : first + 1],
        point_labels=prompts.point_labels[:, first : first + 1],
    )


def _window_of_click(click: PromptSet, size: tuple[int, int], config: CloserConfig) -> Box | None:
    """Return what to cut out around a click; None if that is most of the image."""
    side = config.click_share * max(size)
    if click.point_coords is None or side < config.least_side or side >= min(size):
        return None
    x, y = click.point_coords[0, 0].tolist()
    return _window(x, y, side / 2, size)


def _all_inside(prompts: PromptSet, window: Box) -> bool:
    """Whether all foreground clicks lie in a window; background clicks elsewhere do not matter."""
    if prompts.point_coords is None or prompts.point_labels is None:
        return False
    wanted = prompts.point_coords[prompts.point_labels == 1]
    return bool((wanted >= window[:2]).all() and (wanted < window[2:]).all())


def _is_better(near: Proposals, whole: Proposals, window: Box, largest: float) -> bool:
    """Whether a window's best mask beats the whole image's, is small and is not cut off by it."""
    best = int(near.iou_predictions.argmax())
    mask = near.masks[best]
    height, width = mask.size
    if near.iou_predictions[best] <= whole.iou_predictions.max():
        return False
    if not 0 < mask.area <= largest * height * width:
        return False
    part, box = mask.part(), mask.box
    inner = window[0] > 0, window[1] > 0, window[2] < width, window[3] < height
    ends = part[:, 0], part[0], part[:, -1], part[-1]
    sides = window[3] - window[1], window[2] - window[0]
    return not any(
        cuts and box[i] == window[i] and np.count_nonzero(end) > _CUT_OFF * sides[i % 2]
        for i, (cuts, end) in enumerate(zip(inner, ends, strict=True))
    )


def _small(boxes: Float32Array, size: tuple[int, int], config: CloserConfig) -> NDArray[np.intp]:
    """Return the numbers of the boxes to look at closely, smallest first."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    small = np.flatnonzero(areas < config.largest_box * size[0] * size[1])
    chosen: NDArray[np.intp] = small[np.argsort(areas[small], kind="stable")][: config.looks]
    return chosen


def window_around(box: Float32Array, size: tuple[int, int], config: CloserConfig) -> Box:
    """Return the part of an image (H, W) that a closer look shows: a square, but for the border."""
    x0, y0, x1, y1 = (float(edge) for edge in box)
    half = max(config.reach * max(x1 - x0, y1 - y0), config.least_side) / 2
    return _window((x0 + x1) / 2, (y0 + y1) / 2, half, size)


def _window(x: float, y: float, half: float, size: tuple[int, int]) -> Box:
    return (
        max(0, int(np.floor(x - half))),
        max(0, int(np.floor(y - half))),
        min(size[1], int(np.ceil(x + half))),
        min(size[0], int(np.ceil(y + half))),
    )


def cut_out(embedding: ImageEmbedding, window: Box) -> NDArray[np.uint8]:
    """Return a copy of the pixels (h, w, 3) of an encoded image within a window."""
    x0, y0, x1, y1 = window
    return np.ascontiguousarray(embedding.pixels()[y0:y1, x0:x1])


def moved(prompts: PromptSet, window: Box) -> PromptSet:
    """Return prompts of the whole image as prompts of a window; points outside it are dropped."""
    x0, y0, x1, y1 = window
    corner = np.array([x0, y0], np.float32)
    last = np.array([x1 - x0 - 1, y1 - y0 - 1], np.float32)
    coords, labels = prompts.point_coords, prompts.point_labels
    if coords is not None and labels is not None:
        inside = (coords >= corner).all(-1) & (coords <= corner + last).all(-1)
        labels = np.where(inside, labels, -1)
        coords = np.clip(coords - corner, 0, last)
    boxes = prompts.boxes
    if boxes is not None:
        boxes = np.clip(boxes - np.tile(corner, 2), 0, np.tile(last + 1, 2))
    return replace(prompts, point_coords=coords, point_labels=labels, boxes=boxes)


def placed(found: Proposals, window: Box, size: tuple[int, int]) -> Proposals:
    """Return masks of a window as masks of the image (H, W)."""
    masks = tuple(mask.placed(window[0], window[1], size) for mask in found.masks)
    return replace(found, image_size=size, masks=masks, image=None)
