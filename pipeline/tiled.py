"""Queries on pictures of any size: each look at a tile is a look at an image of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from ..models.embedding import ImageEmbedding
from ..models.errors import InputError
from .checks import UInt8Array
from .decoding.everything import EverythingConfig, segment_everything
from .finding import Finder
from .images import ImageSource, load_own_image
from .proposals import Proposals
from .query import Query
from .raster import Raster, is_raster
from .tiling.layout import Tiles, read_tiles
from .tiling.pictures import InMemory, Picture
from .tiling.run import Look, Progress, find_in_tiles

Source: TypeAlias = "ImageSource | ImageEmbedding | Raster"


@dataclass(frozen=True)
class TiledFinder:
    """Answers queries on pictures in tiles.

    Attributes:
        finder: Answers them on one tile.
        tiles: "auto", for the size that the model works at, or the size of a tile.
    """

    finder: Finder
    tiles: Tiles

    def find(self, source: Source, query: Query, progress: Progress | None = None) -> Proposals:
        """Decode everything that a query finds in a picture, without ranking it.

        Args:
            source: An image, an embedding that keeps its image, a raster, or the path of one.
            query: What to look for; its marks only choose among what it finds.
            progress: Called with the number of looks done and of those known so far.

        Raises:
            InputError: The image cannot be read, nothing says what to look for but marks, a mark
                lies outside the image, or this pipeline cannot answer the query.
        """
        if query.marks and not query.finds:
            raise InputError(
                "points and boxes alone mark one place, which needs no tiles; leave tiles out"
            )
        tile = self._size()
        picture, image = _open(source)
        query.check_fits(picture.size)
        query = self.finder.prepare(query)
        # Marks choose among the masks of the whole picture, which have other coordinates.
        unmarked = query.unmarked()

        def look(pixels: UInt8Array, stricter: float) -> Proposals:
            embedding = self.finder.segmenter.encode_pixels(pixels)
            return replace(self.finder, stricter=stricter).find(embedding, unmarked)

        found = self._run(picture, look, tile, progress, nested=False)
        return replace(found, marks=query.marks or None, image=image)

    def find_everything(
        self, source: Source, config: EverythingConfig, progress: Progress | None = None
    ) -> Proposals:
        """Find masks all over a picture, with a grid of clicks on each tile.

        Raises:
            InputError: The image cannot be read.
        """
        tile = self._size()
        picture, image = _open(source)

        def look(pixels: UInt8Array, stricter: float) -> Proposals:
            embedding = self.finder.segmenter.encode_pixels(pixels)
            return segment_everything(self.finder.segmenter, embedding, config)

        found = self._run(picture, look, tile, progress, nested=True)
        return replace(found, image=image)

    def _size(self) -> tuple[int, int]:
        return read_tiles(self.tiles, self.finder.segmenter.model.image_size)

    def _run(
        self,
        picture: Picture,
        look: Look,
        tile: tuple[int, int],
        progress: Progress | None,
        *,
        nested: bool,
    ) -> Proposals:
        config = self.finder.config.tiling
        return find_in_tiles(picture, look, tile, config=config, nested=nested, progress=progress)


def _open(source: Source) -> tuple[Picture, UInt8Array | None]:
    """Return what is looked at, and the image that results keep; None for a raster."""
    if isinstance(source, Raster):
        return source, None
    if is_raster(source):
        return Raster(cast("str", source)), None
    pixels = source.pixels() if isinstance(source, ImageEmbedding) else load_own_image(source)
    return InMemory(pixels), pixels
