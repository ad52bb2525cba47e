"""Drawing a result over its image.

The annotators of supervision would do, but importing it takes longer than a query.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .masks import Box, cut

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

    from .checks import BoolArray, Float32Array, UInt8Array
    from .compact_mask import CompactMask

# Wong 2011, "Points of view: Color blindness", Nature Methods 8:441, and four more: distinguishable
# with colour vision deficiency. Black is left out: it disappears in shadows.
PALETTE = (
    "#56B4E9", "#E69F00", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
    "#8E6BE0", "#7FD34E", "#F26B8A", "#3DD6D0",
)  # fmt: skip

MASK_OPACITY = 0.45
# What is left of the colours within an outline, so that it is seen on a background of its colour.
_INNER_LINE = 0.25
# An overlay of more pixels than this, of which no screen shows a tenth, is reduced to half of it.
MAX_OVERLAY_PIXELS = 2**25
_BAND_PIXELS = 2**22
_LONGEST_LABEL = 32
# Labels that are kept apart; among more of them there is no room left.
_MOST_APART = 50
# Labels that would cover more of the picture than this are shortened to their masks' widths.
_MOST_COVERED = 0.25
# Letters as high and as deep as any.
_TALL = "Ég"
_IMPORTING = Lock()


class Dropped(Protocol):
    """What is told of a mask that was dropped."""

    @property
    def label(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def enough(self) -> str: ...


class RankedMasks(Protocol):
    """What is drawn, shown and saved of a :class:`~promptseg.pipeline.result.Result`; see there."""

    @property
    def image(self) -> UInt8Array | None: ...

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def compact_masks(self) -> Sequence[CompactMask]: ...

    @property
    def boxes_xyxy(self) -> Float32Array: ...

    @property
    def labels(self) -> list[str]: ...

    @property
    def scores(self) -> Float32Array: ...

    @property
    def iou_predictions(self) -> Float32Array: ...

    @property
    def stability_scores(self) -> Float32Array: ...

    @property
    def prompt_scores(self) -> Float32Array: ...

    @property
    def rejected(self) -> Sequence[Dropped]: ...

    def __len__(self) -> int: ...


def overlay_factor(size: tuple[int, int]) -> int:
    """Return the whole factor by which the overlay of an image (H, W) in a file is smaller."""
    pixels = size[0] * size[1]
    if pixels <= MAX_OVERLAY_PIXELS:
        return 1
    return math.ceil(math.sqrt(2 * pixels / MAX_OVERLAY_PIXELS))


def draw_overlay(image: UInt8Array, result: RankedMasks, *, factor: int = 1) -> UInt8Array:
    """Return a copy of the image with every mask tinted, outlined and labelled.

    An outline is a line in the mask's colour and a dark one within it: one of them is seen on any
    background. Both lie on the mask, so that without its label it changes no other pixel.

    The label of a mask is "i phrase score", with i from 1 in the order of the result. Line width
    and font size scale with the image, so that labels are legible on small and large images alike.
    A label wider than half the image is shortened, down to its number if need be; where labels
    would cover much of the image, so is one that is wider than its mask.

    Args:
        image: (H, W, 3) uint8 RGB.
        result: Masks of that image.
        factor: By how much the image and its masks are reduced first.

    Returns:
        (H, W, 3) uint8 RGB, of the reduced size.
    """
    canvas = image.copy() if factor == 1 else _reduced(image, factor)
    if len(result) == 0:
        return canvas
    from PIL import ImageFont

    masks = result.compact_masks
    if factor > 1:
        masks = [mask.reduced(factor) for mask in masks]
    height, width = canvas.shape[:2]
    thickness = max(1, round(max(height, width) / 500))
    font = ImageFont.load_default(int(np.clip(min(height, width) / 24, 10, 160)))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, which writes labels; reinstall it")
    colors = [_rgb(PALETTE[i % len(PALETTE)]) for i in range(len(result))]
    _tint(canvas, masks, colors)
    # Worst first, so that the best mask's outline lies on top.
    for i in reversed(range(len(result))):
        _draw_outline(cut(canvas, masks[i].box), masks[i].part(), thickness, colors[i])
    _write_labels(canvas, result, [mask.box for mask in masks], font)
    return canvas


def _write_labels(
    canvas: UInt8Array, result: RankedMasks, boxes: Sequence[Box], font: FreeTypeFont
) -> None:
    """Write a label above the top left corner of each mask's box, or where there is room."""
    from PIL import Image, ImageDraw

    height, width = canvas.shape[:2]
    padding = max(2, int(font.size) // 4)
    _, top, _, bottom = (round(edge) for edge in font.getbbox(_TALL, anchor="ls"))
    tall = bottom - top + 2 * padding

    def fit(i: int, room: int) -> tuple[str, int]:
        text = _fit(i + 1, result.labels[i], float(result.scores[i]), font, room - 2 * padding)
        return text, round(font.getlength(text)) + 2 * padding

    fitted = [fit(i, width // 2) for i in range(len(result))]
    if sum(wide for _, wide in fitted) * tall > _MOST_COVERED * height * width:
        fitted = [fit(i, min(box[2] - box[0], width // 2)) for i, box in enumerate(boxes)]
    placed: list[Box] = []
    for i, ((x, y, _, _), (text, wide)) in enumerate(zip(boxes, fitted, strict=True)):
        size = (wide, tall)
        place = _free_place((x, y - size[1]), size, (width, height), placed)
        placed.append(place)
        color = PALETTE[i % len(PALETTE)]
        tile = Image.new("RGB", size, color)
        ImageDraw.Draw(tile).text(
            (padding, padding - top), text, _readable_on(color), font, anchor="ls"
        )
        shown = cut(canvas, place)
        shown[...] = np.asarray(tile)[: shown.shape[0], : shown.shape[1]]


def _free_place(
    corner: tuple[int, int], size: tuple[int, int], room: tuple[int, int], placed: Sequence[Box]
) -> Box:
    """Return where a label of (width, height) goes: at its corner, or the nearest row left free.

    Args:
        corner: The wanted (x, y) of its top left.
        size: Of the label.
        room: Of the picture; what is larger than it is cut off.
        placed: Labels that are there already; many of them may be covered.
    """
    x = max(0, min(corner[0], room[0] - size[0]))
    start = max(0, min(corner[1], room[1] - size[1]))
    # Beside each label of these columns, and the wanted row itself.
    rows = [start]
    if len(placed) < _MOST_APART:
        beside = [box for box in placed if box[0] < x + size[0] and x < box[2]]
        rows += [row for box in beside for row in (box[3], box[1] - size[1])]
        rows = [
            row
            for row in rows
            if 0 <= row <= room[1] - size[1]
            and not any(box[1] < row + size[1] and row < box[3] for box in beside)
        ] or [start]
    y = min(rows, key=lambda row: abs(row - start))
    return x, y, min(x + size[0], room[0]), min(y + size[1], room[1])


def _tint(canvas: UInt8Array, masks: Sequence[CompactMask], colors: Sequence[UInt8Array]) -> None:
    """Blend each pixel with the colour of the smallest mask that covers it."""
    taken = np.zeros(canvas.shape[:2], np.bool_)
    for i in np.argsort([mask.area for mask in masks], kind="stable").tolist():
        box = masks[i].box
        there = cut(taken, box)
        own = masks[i].part() & ~there
        there |= own
        for channel, color in enumerate(colors[i].tolist()):
            blended = np.rint(color * MASK_OPACITY + np.arange(256) * (1 - MASK_OPACITY))
            values = cut(canvas, box)[..., channel]
            values[own] = blended.astype(np.uint8)[values[own]]


def _draw_outline(canvas: UInt8Array, mask: BoolArray, thickness: int, color: UInt8Array) -> None:
    """Draw the outline of a mask on the part (h, w, 3) of the picture that its box covers."""
    line = outline(mask, thickness)
    inner = outline(mask, 2 * thickness) & ~line
    canvas[inner] = np.rint(canvas[inner] * _INNER_LINE).astype(np.uint8)
    canvas[line] = color


def _reduced(image: UInt8Array, factor: int) -> UInt8Array:
    """Return the means of blocks of pixels, computed in bands to bound memory."""
    from PIL import Image

    band = factor * max(1, _BAND_PIXELS // (factor * image.shape[1]))
    bands = [image[start : start + band] for start in range(0, image.shape[0], band)]
    return np.concatenate([np.asarray(Image.fromarray(some).reduce(factor)) for some in bands])


def outline(mask: BoolArray, thickness: int) -> BoolArray:
    """Return the pixels of a mask within `thickness` of its edge, along rows or columns."""
    inside = np.pad(mask, thickness)
    height, width = mask.shape
    core = mask.copy()
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        top, left = dy * thickness, dx * thickness
        core &= inside[top : top + height, left : left + width]
    edge: BoolArray = mask & ~core
    return edge


def _fit(number: int, phrase: str, score: float, font: FreeTypeFont, room: int) -> str:
    """Return the longest of the label's forms that is at most `room` pixels wide."""
    # Pillow's own font has no glyphs beyond Latin-1 and would draw empty boxes.
    if not phrase.isprintable() or phrase != phrase.encode("latin-1", "ignore").decode("latin-1"):
        phrase = ""
    if len(phrase) > _LONGEST_LABEL:
        phrase = phrase[: _LONGEST_LABEL - 3] + "..."
    forms = [f"{number} {phrase} {score:.2f}", f"{number} {phrase}", f"{number} {score:.2f}"]
    if not phrase:
        forms = forms[2:]
    return next((form for form in forms if font.getlength(form) <= room), str(number))


def _rgb(color: str) -> UInt8Array:
    """Return a "#RRGGBB" colour as (3,) uint8."""
    return np.frombuffer(bytes.fromhex(color[1:]), np.uint8)


def _readable_on(background: str) -> str:
    """Return black or white, whichever contrasts more with a "#RRGGBB" colour (WCAG 2.1)."""
    channels = [int(background[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "#FFFFFF"


def import_supervision() -> ModuleType:
    """Import supervision when it is needed: it takes more than a second."""
    with _IMPORTING:
        if "supervision" not in sys.modules:
            # Without OpenCV it warns at its import that NumPy does the work, which is fine. This is
            # the only place that touches the filters of warnings, once a process and by one thread.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="OpenCV", category=UserWarning)
                import supervision
        import supervision
    return supervision
