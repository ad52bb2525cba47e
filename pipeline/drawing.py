"""Drawing a result over its image, with the annotators of supervision."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from .checks import BoolArray, Float32Array, UInt8Array

# Wong 2011, "Points of view: Color blindness", Nature Methods 8:441, and four more: distinguishable
# with colour vision deficiency. Black is left out: it disappears in shadows.
PALETTE = (
    "#56B4E9", "#E69F00", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
    "#8E6BE0", "#7FD34E", "#F26B8A", "#3DD6D0",
)  # fmt: skip

MASK_OPACITY = 0.45
_LONGEST_LABEL = 32
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
    def masks(self) -> BoolArray: ...

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


def draw_overlay(image: UInt8Array, result: RankedMasks) -> UInt8Array:
    """Return a copy of the image with every mask tinted, outlined and labelled.

    The label of a mask is "i phrase score", with i from 1 in the order of the result. Line width
    and font size scale with the image, so that labels are legible on small and large images alike.
    A label wider than half the image is shortened, down to its number if need be.

    Args:
        image: (H, W, 3) uint8 RGB.
        result: Masks of that image.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    canvas: UInt8Array = image.copy()
    if len(result) == 0:
        return canvas
    sv = import_supervision()
    height, width = result.image_size
    thickness = max(1, round(max(height, width) / 500))
    font_size = int(np.clip(min(height, width) / 24, 10, 160))
    colors = sv.ColorPalette.from_hex(list(PALETTE))
    lookup = sv.ColorLookup.INDEX
    detections = sv.Detections(xyxy=result.boxes_xyxy.astype(np.float64), mask=result.masks)
    # supervision draws on BGR.
    canvas = np.ascontiguousarray(canvas[:, :, ::-1])
    tint = sv.MaskAnnotator(color=colors, opacity=MASK_OPACITY, color_lookup=lookup)
    canvas = tint.annotate(canvas, detections)
    # Not PolygonAnnotator: without OpenCV it takes minutes over a ragged mask of 12 megapixels.
    # Worst first, so that the best mask's outline lies on top.
    for i in reversed(range(len(result))):
        canvas[outline(result.masks[i], thickness)] = colors.by_idx(i).as_bgr()
    writer = sv.RichLabelAnnotator(
        color=colors,
        color_lookup=lookup,
        text_color=sv.ColorPalette.from_hex([_readable_on(color) for color in PALETTE]),
        font_size=font_size,
        text_padding=max(2, font_size // 4),
        smart_position=len(result) <= 50,
    )
    room = width // 2 - 2 * writer.text_padding
    labels = [
        _fit(i + 1, result.labels[i], float(result.scores[i]), writer.font, room)
        for i in range(len(result))
    ]
    canvas = writer.annotate(canvas, detections, labels=labels)
    return np.ascontiguousarray(canvas[:, :, ::-1], dtype=np.uint8)


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


def _fit(number: int, phrase: str, score: float, font: object, room: int) -> str:
    """Return the longest of the label's forms that is at most `room` pixels wide."""
    # Pillow's own font has no glyphs beyond Latin-1 and would draw empty boxes.
    if not phrase.isprintable() or phrase != phrase.encode("latin-1", "ignore").decode("latin-1"):
        phrase = ""
    if len(phrase) > _LONGEST_LABEL:
        phrase = phrase[: _LONGEST_LABEL - 3] + "..."
    forms = [f"{number} {phrase} {score:.2f}", f"{number} {phrase}", f"{number} {score:.2f}"]
    if not phrase:
        forms = forms[2:]
    measure = getattr(font, "getlength")  # noqa: B009
    return next((form for form in forms if measure(form) <= room), str(number))


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
