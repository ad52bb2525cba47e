"""Turns results into what the page shows: pictures for the stage, a gallery, tables, sentences."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ...pipeline.checks import BoolArray, UInt8Array
from ...pipeline.compact_mask import CompactMask
from ...pipeline.drawing import outline
from ...pipeline.result import RejectedMask, Result
from ..service.limits import MAX_OBJECTS
from ..wording import count, describe_missing, shorten
from .collection import CollectedObject, Collection, color_of
from .request import NO_MARKS, MarkHistory, Request

# Longest side of the stage's picture in pixels; masks are shown at the same size.
STAGE_SIZE = 1280
# Masks shown at a time; downloads have all of them.
MOST_SHOWN = 100
_THUMBNAIL = 220
_HINT = 'move "Least presence" to {} to try it anyway'
_TINT = 105  # alpha, of 255
_ORIGINS = {
    "phrase": "a phrase",
    "example": "an example",
    "clicks": "clicks",
    "everything": "everything",
    "painted": "a brush",
}
_NO_OBJECTS = Collection()
_COLUMNS = ("score", "IoU prediction", "stability", "prompt")


def stage_photo(pixels: UInt8Array, name: str) -> dict[str, Any]:
    """Return a picture for the stage: its full size, and a JPEG scaled to the stage."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    image.thumbnail((STAGE_SIZE, STAGE_SIZE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=88)
    return {
        "src": _data_url("image/jpeg", data.getvalue()),
        "width": width,
        "height": height,
        "name": name,
    }


def stage_masks(
    result: Result | None, marks: MarkHistory = NO_MARKS, first: int = 0
) -> dict[str, Any]:
    """Return what to draw over the stage's picture: masks with their scores, clicks and boxes.

    Args:
        result: The masks.
        marks: Clicks and boxes.
        first: How many objects were collected before; colours go on after theirs.
    """
    masks = []
    if result is not None:
        masks = [_stage_mask(result, i, color_of(first + i + 1)) for i in range(_shown(result))]
    return {
        "masks": masks,
        "points": [[*click.point, click.label] for click in marks.clicks],
        "boxes": [list(box) for box in marks.boxes],
    }


def gallery(pixels: UInt8Array, result: Result) -> list[tuple[UInt8Array, str]]:
    """Return a small cut-out of each mask on white, with its caption."""
    items = []
    for i in range(_shown(result)):
        x0, y0, x1, y1 = (int(edge) for edge in result.boxes_xyxy[i])
        mask = result.compact_masks[i].part()
        step = max(1, max(mask.shape) // _THUMBNAIL)
        piece = pixels[y0:y1:step, x0:x1:step]
        kept = np.where(mask[::step, ::step, None], piece, np.uint8(255))
        caption = f"{i + 1} {shorten(result.labels[i])} {result.scores[i]:.2f}"
        items.append((kept.astype(np.uint8), caption))
    return items


def stage_objects(objects: Collection, before: Collection = _NO_OBJECTS) -> list[dict[str, Any]]:
    """Return the collected objects as the stage draws them.

    Args:
        objects: The objects.
        before: What the stage shows: it has the pictures of these, and gets only their names.
    """
    sent = {(item.mask, item.color) for item in before.objects if not item.hidden}
    items = []
    for i, item in enumerate(objects.objects):
        height, width = item.mask.size
        x0, y0, x1, y1 = item.mask.box
        drawn = {
            "number": item.number,
            "label": f"{i + 1} {shorten(item.label)}",
            "color": item.color,
            "hidden": item.hidden,
            "area": item.mask.area,
            "about": about(item),
            "box": [x0 / width, y0 / height, x1 / width, y1 / height],
        }
        if not item.hidden:
            url = _mask_url(item.mask, item.color)
            drawn["picture"] = hashlib.sha256(url.encode("ascii")).hexdigest()[:16]
            if (item.mask, item.color) not in sent:
                drawn["src"] = url
        items.append(drawn)
    return items


def object_choices(objects: Collection) -> list[tuple[str, str]]:
    """Return (text to show, number) of each object for the list."""
    return [
        (f"{i + 1} {shorten(item.label)}{' (hidden)' if item.hidden else ''}", str(item.number))
        for i, item in enumerate(objects.objects)
    ]


def object_colors(objects: Collection) -> str:
    """Return a style sheet that gives the objects' entries in the list their colours."""
    rules = [
        f"#objects [data-testid] > label:nth-of-type({i + 1})::after {{ background: {item.color} }}"
        for i, item in enumerate(objects.objects)
    ]
    return f"<style>{' '.join(rules)}</style>"


def about(item: CollectedObject) -> str:
    """Return how an object was made, in a few words."""
    words = f"from {_ORIGINS[item.origin]}"
    if item.origin != "painted":
        words += f", score {item.scores.score:.2f}"
    return f"{words}, edited" if item.edited else words


def as_html(words: str) -> str:
    """Return a sentence with a capital letter, as HTML."""
    return html.escape(words[:1].upper() + words[1:])


def masks_table(result: Result, first: int = 0) -> str:
    """Return an HTML table of the masks with all their scores; ``first`` as for the stage."""
    if not len(result):
        return ""
    rows = []
    height, width = result.image_size
    for i in range(_shown(result)):
        scores = (
            result.scores[i],
            result.iou_predictions[i],
            result.stability_scores[i],
            result.prompt_scores[i],
        )
        area = result.compact_masks[i].area / (height * width)
        swatch = f'<i class="swatch" style="background:{color_of(first + i + 1)}"></i>'
        cells = [
            f'<td class="number">{swatch}{i + 1}</td>',
            f"<td>{_safe(result.labels[i])}</td>",
            *(f'<td class="number">{value:.2f}</td>' for value in scores),
            f'<td class="number">{area:.1%}</td>',
            f'<td class="number">{", ".join(f"{edge:.0f}" for edge in result.boxes_xyxy[i])}</td>',
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    more = len(result) - len(rows)
    rest = f"<p>and {more} more; downloads have all of them</p>" if more else ""
    return _table(("#", "label", *_COLUMNS, "area", "box"), rows) + rest


def rejected_table(rejected: Sequence[RejectedMask]) -> str:
    """Return an HTML table of the candidates that were dropped, with the reasons."""
    if not rejected:
        return '<p class="quiet">Nothing was dropped.</p>'
    rows = []
    for item in rejected[:MOST_SHOWN]:
        scores = (item.score, item.iou_prediction, item.stability_score, item.prompt_score)
        cells = [
            f"<td>{_safe(item.label)}</td>",
            f'<td class="reason">{html.escape(item.reason)}</td>',
            *(
                f'<td class="number">{"" if value is None else f"{value:.2f}"}</td>'
                for value in scores
            ),
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    more = len(rejected) - len(rows)
    rest = f"<p>and {more} more; downloads have all of them</p>" if more else ""
    return _table(("label", "dropped because", *_COLUMNS), rows) + rest


def headline(result: Result, request: Request, seconds: float | None) -> str:
    """Return a sentence on what was found, and one for each phrase that was not, with why."""
    counts: dict[str, int] = {}
    for label in result.labels:
        counts[label] = counts.get(label, 0) + 1
    took = "" if seconds is None else f' <span class="quiet">in {seconds:.2f} s</span>'
    if not counts:
        lines = [f"<strong>Nothing found.</strong>{took}"]
    elif request.wanted:
        found = ", ".join(
            f"{number} x {_safe(label)}" if number > 1 else _safe(label)
            for label, number in counts.items()
        )
        lines = [f"<strong>Found {found}</strong>{took}"]
    else:
        lines = [f"<strong>{count(len(result), 'mask')}</strong>{took}"]
    lines += [html.escape(line[:1].upper() + line[1:]) for line in _missing(result, request)]
    kind = "found" if counts else "empty"
    return message("<br>".join(lines), kind)


def added(objects: Collection, number: int) -> str:
    """Return a status line on objects that were just added."""
    total = f"; {len(objects)} in all" if len(objects) > number else ""
    words = f"<strong>Added {count(number, 'object')}</strong>{total}. The Edit tab changes them."
    return message(words, "found")


def message(words: str, kind: str = "plain") -> str:
    """Return a status line; `words` is HTML, `kind` is "plain", "found", "empty" or "error"."""
    return f'<div class="headline {kind}" role="status">{words}</div>'


def whole_and_parts(result: Result) -> Mapping[str, int]:
    """Name a lone click's masks by their size, largest first: name -> position."""
    areas = np.array([mask.area for mask in result.compact_masks])
    names = ("whole", "part", "subpart")
    order = np.argsort(-areas, kind="stable")
    return {name: int(i) for name, i in zip(names, order, strict=False)}


def _missing(result: Result, request: Request) -> list[str]:
    """Explain each phrase without a mask, or why there is no mask at all."""
    lines = describe_missing(result, request.wanted, _HINT) if request.wanted else []
    if lines or len(result):
        return lines
    reasons = list(dict.fromkeys(item.reason for item in result.rejected))
    if reasons:
        return [f"All masks were dropped: {'; '.join(reasons[:3])}"]
    return ["No mask there; mark another place"]


def _stage_mask(result: Result, i: int, color: str) -> dict[str, Any]:
    height, width = result.image_size
    x0, y0, x1, y1 = (int(edge) for edge in result.boxes_xyxy[i])
    return {
        "label": shorten(result.labels[i]),
        "score": round(float(result.scores[i]), 4),
        "iou": round(float(result.iou_predictions[i]), 4),
        "stability": round(float(result.stability_scores[i]), 4),
        "prompt": round(float(result.prompt_scores[i]), 4),
        "color": color,
        "area": result.compact_masks[i].area,
        "box": [x0 / width, y0 / height, x1 / width, y1 / height],
        "src": _mask_url(result.compact_masks[i], color),
    }


@functools.lru_cache(maxsize=2 * MAX_OBJECTS)
def _mask_url(mask: CompactMask, color: str) -> str:
    """Return a mask within its box, at the size of the stage's picture, as the URL of a PNG."""
    share = min(1.0, STAGE_SIZE / max(mask.size))
    x0, y0, x1, y1 = mask.box
    size = max(1, round((x1 - x0) * share)), max(1, round((y1 - y0) * share))
    part = mask.part() if mask.area else np.zeros((1, 1), np.bool_)
    small = np.asarray(Image.fromarray(part).resize(size, Image.Resampling.NEAREST), np.bool_)
    return _data_url("image/png", _mask_png(small, color))


def _mask_png(mask: BoolArray, color: str) -> bytes:
    """A mask in one colour: transparent outside, tinted inside, opaque along the outline."""
    thickness = 2
    indices = mask.astype(np.uint8)
    indices[outline(mask, thickness)] = 2
    image = Image.fromarray(indices, mode=None).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([0, 0, 0, *_rgb(color), *_rgb(color)])
    data = io.BytesIO()
    image.save(data, "PNG", bits=2, transparency=bytes([0, _TINT, 255]), compress_level=3)
    return data.getvalue()


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _shown(result: Result) -> int:
    return min(len(result), MOST_SHOWN)


def _safe(label: str) -> str:
    return html.escape(shorten(label))


def _table(headings: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    return (
        '<div class="table-scroll"><table class="masks"><thead><tr>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
