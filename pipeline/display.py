"""Shows a result: in a notebook, or in the system's image viewer."""

from __future__ import annotations

import base64
import html
import io
import os
import sys

from PIL import Image, ImageShow

from .checks import UInt8Array
from .drawing import Dropped, RankedMasks, draw_overlay, overlay_factor

# A notebook stores its images in its file, so they are no larger than a page.
LONGEST_SIDE = 1024


def show(result: RankedMasks) -> None:
    """Show a result that keeps its image: in a notebook below the cell, otherwise in a viewer.

    Raises:
        OSError: There is no display, or no viewer.
    """
    if "ipykernel" in sys.modules:
        from IPython.display import display

        display(result)
        return
    picture = Image.fromarray(_overlay(result))
    if _has_no_display() or not ImageShow.show(picture):
        raise OSError("no display to show the picture on; result.save('folder') writes it")


def to_png(result: RankedMasks) -> bytes:
    """Return the overlay of a result that keeps its image as a PNG, at most LONGEST_SIDE long."""
    picture = Image.fromarray(_overlay(result))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def to_html(result: RankedMasks) -> str:
    """Return the overlay, if the result keeps its image, and a table of the masks."""
    parts = []
    if result.image is not None:
        data = base64.b64encode(to_png(result)).decode("ascii")
        parts.append(f'<img alt="overlay" src="data:image/png;base64,{data}">')
    if len(result):
        names = ("", "label", "score", "IoU", "stability", "prompt", "box x0, y0, x1, y1")
        head = "".join(f"<th>{name}</th>" for name in names)
        rows = "".join(_row(result, i) for i in range(len(result)))
        parts.append(f"<table><tr>{head}</tr>{rows}</table>")
    else:
        reasons = "".join(f"<li>{html.escape(_reason(item))}</li>" for item in result.rejected)
        parts.append(f"<p>nothing found</p><ul>{reasons}</ul>")
    return "<div>" + "".join(parts) + "</div>"


def _has_no_display() -> bool:
    """Whether a Linux without a desktop says so; Pillow would show nothing, and tell nobody."""
    displays = os.environ.get("DISPLAY"), os.environ.get("WAYLAND_DISPLAY")
    return sys.platform == "linux" and not any(displays)


def _reason(item: Dropped) -> str:
    hint = f"; min_presence={item.enough} tries it anyway" if item.enough else ""
    return f"{item.label}: {item.reason}{hint}"


def _overlay(result: RankedMasks) -> UInt8Array:
    if result.image is None:
        raise ValueError("the result keeps no image to draw on")
    return draw_overlay(result.image, result, factor=overlay_factor(result.image_size))


def _row(result: RankedMasks, i: int) -> str:
    scores = (result.scores, result.iou_predictions, result.stability_scores, result.prompt_scores)
    cells = [
        str(i + 1),
        html.escape(result.labels[i]),
        *(f"{float(values[i]):.2f}" for values in scores),
        ", ".join(f"{value:.0f}" for value in result.boxes_xyxy[i]),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
