"""A server of the Model Context Protocol: an assistant asks for masks in the pictures of a folder.

Source: https://modelcontextprotocol.io, by the package ``mcp``, version 2.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mcp.server.mcpserver import Image as ShownImage
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from PIL import Image

from .. import __version__
from ..models.errors import InputError, PromptsegError
from ..models.foreign import read_regular
from ..pipeline.checks import UInt8Array
from ..pipeline.drawing import draw_overlay
from ..pipeline.result import Result
from .console import describe_error
from .service.answers import Answerer, Ranking
from .service.encoded import decode_file, is_data_url
from .service.limits import MAX_FILE_BYTES

# Encodes a file and finds masks in it.
_Find = Callable[[bytes], tuple[Result, UInt8Array]]
# Longest side of the picture that an assistant is shown, and what it is told of at most.
_SHOWN_SIDE = 1024
_MOST_TOLD = 50
_INSTRUCTIONS = (
    "Finds things in photographs by English noun phrases, points or boxes, and returns masks. "
    "Coordinates are pixels (x, y) from the top left. If nothing is found, the reasons say why; "
    "do not take that for an error."
)


def build_mcp_server(answerer: Answerer, root: Path) -> MCPServer[Any]:
    """Return the server, with the tools ``segment`` and ``everything``.

    Args:
        answerer: Finds masks.
        root: Folder of the pictures; no file elsewhere is read or written.

    Raises:
        InputError: It is not a folder.
    """
    if not root.is_dir():
        raise InputError(f"{str(root)!r} is not a folder; give the one of the pictures")
    desk = _Desk(answerer, root.resolve())
    server: MCPServer[Any] = MCPServer(
        "promptseg", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING"
    )

    @server.tool(structured_output=False)
    def segment(
        image: str,
        text: list[str] | None = None,
        negative_text: list[str] | None = None,
        points: list[list[float]] | None = None,
        point_labels: list[int] | None = None,
        boxes: list[list[float]] | None = None,
        min_presence: float | None = None,
        min_score: float | None = None,
        top_k: int | None = None,
        save_to: str | None = None,
    ) -> list[Any]:
        """Find what phrases name, or what points and boxes mark, in one picture.

        Returns the picture with numbered masks drawn on it, and JSON with their labels, scores,
        boxes [x0, y0, x1, y1] and areas, and why anything was left out.

        Args:
            image: Path of the picture below the served folder, or a data URL.
            text: Noun phrases to look for, such as ["red car", "dog"].
            negative_text: Phrases whose masks are not wanted.
            points: [[x, y], ...] in pixels.
            point_labels: 1 (object) or 0 (background) for each point; all 1 by default.
            boxes: [[x0, y0, x1, y1], ...] in pixels.
            min_presence: 0 to 1; lower it to the presence told to look for what seems absent.
            min_score: Least score of a mask, 0 to 1.
            top_k: Most masks for each phrase.
            save_to: New folder below the served one for the masks as PNG and result.json.
        """

        def find(content: bytes) -> tuple[Result, UInt8Array]:
            _, embedding = answerer.encode(content)
            query = answerer.query(
                text,
                negative_text=negative_text,
                points=points,
                point_labels=point_labels,
                boxes=boxes,
                min_presence=min_presence,
            )
            ranking = Ranking(top_k=top_k, min_score=min_score)
            return answerer.segment(embedding, query, ranking), embedding.pixels()

        return desk.answer(image, find, save_to)

    @server.tool(structured_output=False)
    def everything(
        image: str, points_per_side: int | None = None, save_to: str | None = None
    ) -> list[Any]:
        """Find masks all over a picture, without saying what to look for.

        Args:
            image: As for segment.
            points_per_side: Of the grid of clicks; more find smaller things and take longer.
            save_to: As for segment.
        """

        def find(content: bytes) -> tuple[Result, UInt8Array]:
            _, embedding = answerer.encode(content)
            return answerer.everything(embedding, points_per_side), embedding.pixels()

        return desk.answer(image, find, save_to)

    return server


class _Desk:
    """Answers one call at a time, from and to files below one folder.

    Args:
        answerer: Finds masks.
        root: The folder, resolved.
    """

    def __init__(self, answerer: Answerer, root: Path) -> None:
        self.answerer = answerer
        self.root = root
        self._turn = threading.Lock()

    def answer(self, image: str, find: _Find, save_to: str | None) -> list[Any]:
        """Return the overlay and the JSON of a call.

        Raises:
            ToolError: The picture or the query cannot be used.
        """
        try:
            folder = None if save_to is None else self._below(save_to)
            content = self._read(image)
            with self._turn:
                result, pixels = find(content)
                saved = None if folder is None else str(result.save(folder, pixels))
                return [_shown(pixels, result), json.dumps(_told(result, saved))]
        except (PromptsegError, OSError, MemoryError) as error:
            raise ToolError(describe_error(error)) from error

    def _read(self, image: str) -> bytes:
        if is_data_url(image):
            return decode_file(image)
        return read_regular(self._below(image), f"the image {image!r}", limit=MAX_FILE_BYTES)

    def _below(self, name: str) -> Path:
        if "\0" in name:
            raise InputError("a path has no null byte")
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root):
            raise InputError(f"{name!r} is not below the served folder, {str(self.root)!r}")
        return path


def _shown(pixels: UInt8Array, result: Result) -> ShownImage:
    picture = Image.fromarray(np.asarray(draw_overlay(pixels, result)))
    picture.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return ShownImage(data=content.getvalue(), format="jpeg")


def _told(result: Result, saved: str | None) -> dict[str, Any]:
    """Return what an assistant can use of a result: no run lengths, which it cannot read."""
    record = result.to_dict()
    masks = [
        {
            "number": number,
            "label": mask["label"],
            "score": round(mask["score"], 3),
            "box_xyxy": mask["box_xyxy"],
            "area": mask["area"],
        }
        for number, mask in enumerate(record["masks"][:_MOST_TOLD], 1)
    ]
    rejected = [
        {"label": item["label"], "reason": item["reason"], "presence": item["presence"]}
        for item in record["rejected"][:_MOST_TOLD]
    ]
    height, width = result.image_size
    return {
        "width": width,
        "height": height,
        "found": len(result),
        "masks": masks,
        "left_out": rejected,
        "saved_to": saved,
    }
