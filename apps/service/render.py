"""A result as the content of an answer, in any format of the exports."""

from __future__ import annotations

import mimetypes
import tempfile
from pathlib import Path

from PIL import Image
from starlette.responses import JSONResponse, Response

from ...pipeline.checks import UInt8Array
from ...pipeline.drawing import draw_overlay, overlay_factor
from ...pipeline.result import Result
from ...pipeline.saving import slug
from ..exports.base import to_png
from ..exports.run import write_format


def render(kind: str, picture: str, pixels: UInt8Array, result: Result) -> Response:
    """Return a result as one file; a format of several files comes as a ZIP.

    Args:
        kind: "rle", "overlay" or one of FORMATS.
        picture: The picture's file name.
        pixels: (H, W, 3) uint8 RGB.
        result: What was found in it.
    """
    stem = slug(Path(picture).stem)
    if kind == "rle":
        kept = ("label", "score", "box_xyxy", "segmentation")
        masks = [{name: mask[name] for name in kept} for mask in result.to_dict()["masks"]]
        return JSONResponse({"image_size": list(result.image_size), "masks": masks})
    if kind == "overlay":
        factor = overlay_factor(result.image_size)
        overlay = Image.fromarray(draw_overlay(pixels, result, factor=factor))
        return _file(f"{stem}-overlay.png", to_png(overlay))
    with tempfile.TemporaryDirectory() as folder:
        path = write_format(kind, Path(folder), Path(picture), pixels, result)
        return _file(path.name, path.read_bytes())


def _file(name: str, content: bytes) -> Response:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=kind, headers=headers)
