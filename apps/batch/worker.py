"""A worker of a batch: reads images, encodes them together, and answers each one's query."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...models.errors import InputError
from ...pipeline.images import load_image, open_picture
from ...pipeline.raster import is_raster
from ..console import describe_error, printable
from ..wording import describe_unseen
from .filesystems import on_disk, read_bytes
from .rows import fields_of, schema
from .sources import QUERY_COLUMNS
from .work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from ...models.embedding import ImageEmbedding
    from ...pipeline.checks import UInt8Array

logger = logging.getLogger(__name__)

# Files that are fetched at a time.
_READERS = 8


class Worker:
    """Segments batches of rows; one model each. Ray Data makes it and calls it.

    Whatever is wrong with an image becomes its row's ``error``.

    Args:
        work: What is done with every image.
    """

    def __init__(self, work: Work) -> None:
        import torch

        torch.set_num_threads(work.threads)
        self.pipeline, self.work = work.load()
        self._readers = ThreadPoolExecutor(_READERS)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Segment the images of some rows.

        Args:
            table: With ``id``, ``uri`` and any of the columns of queries.

        Returns:
            A row for each, in the same order.
        """
        import pyarrow as pa

        rows = table.to_pylist()
        done: list[dict[str, Any]] = [
            {
                "id": row["id"],
                "uri": row["uri"],
                "preset": self.work.preset,
                "version": __version__,
            }
            for row in rows
        ]
        if self.work.tiles is not None:
            for row, filled in zip(rows, done, strict=True):
                self._segment_in_tiles(row, filled)
            return pa.Table.from_pylist(done, schema())
        for part in self._parts(rows, done):
            self._segment(part, rows, done)
        return pa.Table.from_pylist(done, schema())

    def _parts(
        self, rows: Sequence[Mapping[str, Any]], done: Sequence[dict[str, Any]]
    ) -> Iterator[dict[int, UInt8Array]]:
        """Yield decoded images by the number of their row, so many that memory is bounded."""
        contents = [self._readers.submit(read_bytes, row["uri"]) for row in rows]
        part: dict[int, UInt8Array] = {}
        pixels = 0
        for i, row in enumerate(rows):
            try:
                image = decode(contents[i].result(), row["uri"], self.work.max_pixels)
            except Exception as error:  # whatever is wrong with one, the others are done
                self._fail(done[i], error)
                continue
            size = image.shape[0] * image.shape[1]
            if part and pixels + size > self.work.max_pixels:
                yield part
                part, pixels = {}, 0
            part[i] = image
            pixels += size
        if part:
            yield part

    def _segment(
        self,
        images: Mapping[int, UInt8Array],
        rows: Sequence[Mapping[str, Any]],
        done: Sequence[dict[str, Any]],
    ) -> None:
        """Fill the rows of some images."""
        for i, embedding in self._encode(images, done):
            try:
                proposals = self.pipeline.propose(embedding, self.work.query_of(_own(rows[i])))
                done[i] |= fields_of(self.pipeline.rank(proposals, **self.work.ranking))
            except Exception as error:
                self._fail(done[i], error)

    def _segment_in_tiles(self, row: Mapping[str, Any], filled: dict[str, Any]) -> None:
        """Fill the row of an image that is looked at in tiles; TIFFs are not held in memory."""
        uri = row["uri"]
        try:
            query = self.work.query_of(_own(row))
            with on_disk(uri) if is_raster(uri.partition("?")[0]) else nullcontext() as path:
                picture: str | UInt8Array = (
                    decode(read_bytes(uri), uri, self.work.max_pixels) if path is None else path
                )
                proposals = self.pipeline.propose(picture, query, tiles=self.work.tiles)
                result = self.pipeline.rank(proposals, **self.work.ranking)
            if result.unseen:
                raise InputError(f"{uri!r}: {describe_unseen(result)}")
            filled |= fields_of(result)
        except Exception as error:
            self._fail(filled, error)

    def _encode(
        self, images: Mapping[int, UInt8Array], done: Sequence[dict[str, Any]]
    ) -> Iterator[tuple[int, ImageEmbedding]]:
        """Yield encoded images by number: on a GPU encoded together, on a CPU one by one."""
        segmenter = self.pipeline.segmenter
        left = dict(images)
        if segmenter.device.type != "cpu":
            together = segmenter.encode_images(images.values(), batch_size=len(images))
            try:
                for i, embedding in zip(images, together, strict=True):
                    del left[i]
                    yield i, embedding
            except Exception:  # such as too little memory: which one it is shows below
                logger.debug("images could not be encoded together", exc_info=True)
        for i, image in left.items():
            try:
                embedding = segmenter.encode_pixels(image)
            except Exception as error:
                self._fail(done[i], error)
                continue
            yield i, embedding

    def _fail(self, row: dict[str, Any], error: Exception) -> None:
        logger.debug("failed on %s", row["uri"], exc_info=error)
        row["error"] = printable(describe_error(error))


def _own(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row says to look for in its image."""
    return {name: row.get(name) for name in QUERY_COLUMNS}


def decode(content: bytes, uri: str, max_pixels: int) -> UInt8Array:
    """Return an image file's pixels, (H, W, 3) uint8 RGB.

    Args:
        content: Of the file.
        uri: What errors call it.
        max_pixels: Most pixels; a larger image is not decoded.

    Raises:
        InputError: It is larger, or cannot be read.
    """
    name = repr(uri)
    try:
        with open_picture(BytesIO(content), name) as picture:
            pixels = picture.width * picture.height
    except Exception:  # of a decoder that reads damaged data: told below
        pixels = 0
    if pixels > max_pixels:
        raise InputError(
            f"{name} has {pixels / 1e6:.0f} million pixels, more than max_pixels allows "
            f"({max_pixels / 1e6:g} million)"
        )
    try:
        image = load_image(content)
    except InputError as error:
        raise InputError(str(error).replace("the image", name, 1)) from error
    image.flags.writeable = False
    return image
