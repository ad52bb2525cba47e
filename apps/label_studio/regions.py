"""Masks as regions of Label Studio.

Brush regions hold the pixels of an RGBA picture, row by row, in the run lengths of
https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack, which are not COCO's.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ...pipeline.compact_mask import CompactMask
from ...pipeline.result import Result
from ..exports.outlines import edge_polygons
from .labelling import Labelling

# Bits of a run's length; which of them it has is told by an index of two bits.
_SIZES = (3, 4, 8, 16)
_WORD = 8
_CHANNELS = 4
_LONGEST_RUN = 2 ** _SIZES[-1]


def regions(result: Result, labels: list[str], labelling: Labelling) -> list[dict[str, Any]]:
    """Return the regions of a result, best first; an empty mask has none.

    Args:
        result: What was found.
        labels: The label of each mask.
        labelling: Where they go.
    """
    height, width = result.image_size
    found = []
    for i, mask in enumerate(result.compact_masks):
        values = _values(mask, labelling.kind)
        for number, value in enumerate(values):
            found.append(
                {
                    "id": _id(mask, labels[i], number),
                    "from_name": labelling.from_name,
                    "to_name": labelling.to_name,
                    "type": labelling.kind,
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "score": round(float(result.scores[i]), 4),
                    "value": {**value, labelling.kind: [labels[i]]},
                }
            )
    return found


def brush_rle(mask: CompactMask) -> list[int]:
    """Return a mask as bytes: white and opaque inside, black and transparent outside."""
    flat = mask.full().ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(starts, append=flat.size) * _CHANNELS
    bits = [f"{flat.size * _CHANNELS:032b}", f"{_WORD - 1:05b}"]
    bits += [f"{size - 1:04b}" for size in _SIZES]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = f"{255 if flat[start] else 0:08b}"
        while length > 0:
            run = min(length, _LONGEST_RUN)
            index = next(i for i, size in enumerate(_SIZES) if run <= 2**size)
            bits.append(f"1{index:02b}{run - 1:0{_SIZES[index]}b}{value}")
            length -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _values(mask: CompactMask, kind: str) -> list[dict[str, Any]]:
    """Return the values of a mask's regions; coordinates are per cent of the image."""
    if not mask.area:
        return []
    height, width = mask.size
    share = np.array([100 / width, 100 / height])
    if kind == "brushlabels":
        return [{"format": "rle", "rle": brush_rle(mask)}]
    if kind == "polygonlabels":
        return [
            {"points": (polygon * share).tolist(), "closed": True}
            for polygon in edge_polygons(mask)
        ]
    x0, y0, x1, y1 = (np.array(mask.box) * np.tile(share, 2)).tolist()
    return [{"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}]


def _id(mask: CompactMask, label: str, number: int) -> str:
    """Return a name that the same region always gets."""
    text = f"{label}/{number}/{mask.size}/".encode("utf-8", "replace") + mask.counts
    return hashlib.sha256(text).hexdigest()[:10]
