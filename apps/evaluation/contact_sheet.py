"""A sheet of thumbnails that shows predictions over true masks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ...pipeline.checks import UInt8Array
from ...pipeline.drawing import MASK_OPACITY, PALETTE, outline
from ...pipeline.files import write_whole
from .tasks.base import Shown

CELL = 260
LEGEND = "filled: predicted", "outlined: true", "yellow: the box, clicks or example given"
NO_FAILURES = "nothing went wrong"
_COLUMNS = 4
_MARGIN = 10
_CAPTION = 20
_FONT_SIZE = 13
# Side of the example picture in the corner, as a share of the cell's.
_EXAMPLE = 0.38
_PREDICTION, _TRUTH, _ASKED = PALETTE[6], PALETTE[0], PALETTE[3]


def draw_sheet(title: str, shown: Sequence[Shown]) -> Image.Image:
    """Draw predictions as a grid: predicted masks filled, true masks outlined.

    Args:
        title: The first line.
        shown: The cells, row by row; if there are none, the sheet says so.

    Returns:
        An RGB image, as wide as four cells.
    """
    rows = max(1, -(-len(shown) // _COLUMNS))
    pitch = CELL + _MARGIN, CELL + _CAPTION + _MARGIN
    header = 2 * _CAPTION + _MARGIN
    sheet = Image.new(
        "RGB", (_MARGIN + _COLUMNS * pitch[0], header + _MARGIN + rows * pitch[1]), "white"
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    room = sheet.width - 2 * _MARGIN
    draw.text((_MARGIN, _MARGIN), _fit(title, font, room), fill="black", font=font)
    draw.text((_MARGIN, _MARGIN + _CAPTION), "    ".join(LEGEND) if shown else NO_FAILURES,
              fill="#555555", font=font)  # fmt: skip
    for i, item in enumerate(shown):
        left = _MARGIN + i % _COLUMNS * pitch[0]
        top = header + i // _COLUMNS * pitch[1]
        sheet.paste(draw_cell(item), (left, top))
        caption = _fit(item.caption, font, CELL)
        draw.text((left, top + CELL + 2), caption, fill="black", font=font)
    return sheet


def draw_cell(item: Shown, side: int = CELL) -> Image.Image:
    """Draw a prediction over its picture, centred in a square of `side` pixels."""
    picture = _small(item.image, side)
    canvas = np.array(picture)
    _tint(canvas, _small_mask(item.prediction, picture.size), _PREDICTION)
    if item.target is not None:
        edge = outline(_small_mask(item.target, picture.size), 2)
        canvas[edge] = _rgb(_TRUTH)
    picture = Image.fromarray(canvas)
    scale = picture.width / item.image.shape[1], picture.height / item.image.shape[0]
    draw = ImageDraw.Draw(picture)
    if item.box is not None:
        x0, y0, x1, y1 = (edge * scale[i % 2] for i, edge in enumerate(item.box))
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=_ASKED)
    for number, (x, y, label) in enumerate(item.clicks, start=1):
        _draw_click(draw, ((x + 0.5) * scale[0], (y + 0.5) * scale[1]), number, label)
    cell = Image.new("RGB", (side, side), "#EEEEEE")
    cell.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    if item.example is not None:
        cell.paste(_draw_example(*item.example, round(side * _EXAMPLE)), (0, 0))
    return cell


def save_sheet(path: Path, sheet: Image.Image) -> None:
    """Write a sheet as a PNG, whole or not at all; its folder is created if needed.

    Raises:
        OSError: It cannot be written.
    """
    content = io.BytesIO()
    sheet.save(content, format="PNG")
    write_whole(path, content.getvalue())


def _draw_click(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], number: int, label: int
) -> None:
    """A numbered disc: yellow for foreground, black for background."""
    x, y = place
    fill, ink = (_ASKED, "black") if label else ("black", "white")
    draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=fill, outline=ink)
    draw.text((x, y), str(number), fill=ink, font=ImageFont.load_default(10), anchor="mm")


def _draw_example(image: UInt8Array, mask: NDArray[np.bool_], side: int) -> Image.Image:
    picture = _small(image, side)
    canvas = np.array(picture)
    canvas[outline(_small_mask(mask, picture.size), 1)] = _rgb(_ASKED)
    framed = Image.new("RGB", (picture.width + 4, picture.height + 4), _ASKED)
    framed.paste(Image.fromarray(canvas), (2, 2))
    return framed


def _small(image: UInt8Array, side: int) -> Image.Image:
    """The picture with a long side of ``side`` pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)


def _small_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask (H, W) at a size (width, height)."""
    resized = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    small: NDArray[np.bool_] = np.asarray(resized) >= 128
    return small


def _tint(canvas: UInt8Array, mask: NDArray[np.bool_], color: str) -> None:
    mixed = (1 - MASK_OPACITY) * canvas[mask] + MASK_OPACITY * _rgb(color)
    canvas[mask] = np.rint(mixed).astype(np.uint8)


def _rgb(color: str) -> UInt8Array:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    """Return text that the font can draw, cut to ``room`` pixels."""
    # Pillow's own font has no glyphs beyond Latin-1 and would draw empty boxes.
    text = text.encode("latin-1", "replace").decode("latin-1")
    while len(text) > 1 and font.getlength(text) > room:
        text = text.removesuffix("...")[:-1] + "..."
    return text
