"""The orchestration: query -> prompts -> masks -> ranking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from ..models.embedding import ImageEmbedding
from ..models.errors import InputError
from .checks import Numbers
from .config import PipelineConfig
from .decoding.clicks import decode_marked
from .decoding.closer import CloserLooks
from .decoding.everything import EverythingConfig, ProgressCallback, segment_everything
from .decoding.segmenter import Segmenter
from .finding import Finder
from .images import ImageSource, load_own_image
from .prompters.mark_prompts import mark_prompts
from .prompters.reference.examples import (
    EncodedReference,
    ReferenceQuery,
    read_references,
)
from .prompters.reference.prompter import ReferencePrompter
from .prompters.text.prompter import TextPrompter
from .proposals import Proposals
from .query import Phrases, Query
from .raster import Raster
from .result import Result
from .scoring.ranking import RankingConfig, rank
from .tiled import TiledFinder
from .tiling.layout import Tiles


class Pipeline:
    """Finds what a query names, shows or marks in an image, as ranked masks.

    Args:
        segmenter: Encodes images and decodes prompts.
        text_prompter: Turns phrases into prompts; None for a pipeline that takes no text.
        reference_prompter: Finds what references show; None for a pipeline that takes none.
        config: Settings of all stages.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        text_prompter: TextPrompter[Any] | None = None,
        reference_prompter: ReferencePrompter | None = None,
        config: PipelineConfig | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.text_prompter = text_prompter
        self.reference_prompter = reference_prompter
        self.config = config or PipelineConfig()
        decode = partial(decode_marked, segmenter, refine=self.config.refine_clicks)
        self._closer_looks = CloserLooks(segmenter, decode)

    def __call__(
        self,
        image: ImageSource | ImageEmbedding | Raster,
        text: Phrases = None,
        *,
        negative_text: Phrases = None,
        reference: ReferenceQuery | None = None,
        negative_reference: ReferenceQuery | None = None,
        points: Numbers | None = None,
        point_labels: Numbers | None = None,
        boxes: Numbers | None = None,
        min_presence: float | None = None,
        top_k: int | None = None,
        min_score: float | None = None,
        no_overlap: bool | None = None,
        tiles: Tiles | None = None,
    ) -> Result:
        """Segment one image.

        Text finds what the phrases name, a reference what it shows; a phrase and an example of
        the same thing are combined into one answer (see
        :mod:`~promptseg.pipeline.scoring.fusion`). Points and boxes alone segment what they mark;
        a single click gives up to three masks (whole, part, subpart). With text or a reference,
        points and boxes only choose among the masks found: those marked by a foreground point or
        a box are kept.

        Args:
            image: Anything that :func:`~promptseg.pipeline.images.load_image` reads, or an
                embedding from :meth:`encode_image`, which saves encoding it for each query; with
                tiles also a :class:`~promptseg.pipeline.raster.Raster`.
            text: Phrases to look for; :class:`~promptseg.pipeline.query.Query` describes this and
                the next seven arguments in full.
            negative_text: Phrases whose masks are not wanted.
            reference: Examples of what to look for.
            negative_reference: Examples of what not to find.
            points: (x, y) in pixels of the image.
            point_labels: 1 foreground, 0 background.
            boxes: XYXY in pixels of the image.
            min_presence: Minimum presence of what text and references mean; 0 finds it anyway.
            top_k: Maximum number of masks for each phrase.
            min_score: Minimum score of a mask.
            no_overlap: Whether each pixel goes to the best of the masks that cover it.
            tiles: "auto", or (height, width) in pixels: also look at overlapping tiles of the
                image, which finds what is small in it. The path of a TIFF is then read tile by
                tile, for which rasterio must be installed.

        Returns:
            Masks at the image's size, best first; it may be empty.

        Raises:
            InputError: The image cannot be read, or the query is invalid.
        """
        ranking = self._ranking(top_k, min_score, no_overlap)
        query = Query(
            text,
            negative_text=negative_text,
            reference=reference,
            negative_reference=negative_reference,
            points=points,
            point_labels=point_labels,
            boxes=boxes,
            min_presence=min_presence,
        )
        return rank(self.propose(image, query, tiles=tiles), ranking)

    def encode_image(self, image: ImageSource) -> ImageEmbedding:
        """Encode an image once, for any number of queries.

        Raises:
            InputError: The image cannot be read.
        """
        return self.segmenter.encode_image(image)

    def encode_images(
        self, images: Iterable[ImageSource], *, batch_size: int | None = None
    ) -> Iterator[ImageEmbedding]:
        """Encode images in turn, several at a time: see :meth:`Segmenter.encode_images`."""
        return self.segmenter.encode_images(images, batch_size=batch_size)

    def propose(
        self,
        image: ImageSource | ImageEmbedding | Raster,
        query: Query,
        *,
        tiles: Tiles | None = None,
        progress: ProgressCallback | None = None,
    ) -> Proposals:
        """Decode everything that a query finds, without ranking it.

        :meth:`rank` then chooses among the masks; ranking them again with other thresholds decodes
        nothing again.

        Args:
            image: As for :meth:`__call__`.
            query: What to look for.
            tiles: As for :meth:`__call__`.
            progress: With tiles, called with the number of looks done and of those known so far.

        Raises:
            InputError: The image cannot be read, a mark lies outside it, or this pipeline cannot
                answer the query.
        """
        if tiles is not None:
            return self._tiled(tiles).find(image, query, progress)
        image = _untiled(image)
        # The whole query is checked before anything is encoded.
        if isinstance(image, ImageEmbedding):
            self.segmenter.check(image)
            query.check_fits(image.original_size)
        else:
            image = load_own_image(image)
            query.check_fits((image.shape[0], image.shape[1]))
        if not query.finds:
            mark_prompts(query.marks)
        finder = self._finder()
        query = finder.prepare(query)
        embedding = (
            image if isinstance(image, ImageEmbedding) else self.segmenter.encode_pixels(image)
        )
        return finder.find(embedding, query)

    def rank(
        self,
        proposals: Proposals,
        *,
        top_k: int | None = None,
        min_score: float | None = None,
        no_overlap: bool | None = None,
    ) -> Result:
        """Rank proposals with the pipeline's own settings.

        :func:`~promptseg.pipeline.scoring.ranking.rank` takes every setting of the ranking.

        Args:
            proposals: What :meth:`propose` returned.
            top_k: As for :meth:`__call__`.
            min_score: As for :meth:`__call__`.
            no_overlap: As for :meth:`__call__`.

        Raises:
            InputError: A value is out of its range.
        """
        return rank(proposals, self._ranking(top_k, min_score, no_overlap))

    def encode_reference(self, reference: ReferenceQuery) -> EncodedReference:
        """Encode examples of one thing once, for any number of images.

        Args:
            reference: One or several examples, all with the same label.

        Returns:
            A value that :meth:`__call__` takes for ``reference``.

        Raises:
            InputError: The labels differ, SAM finds no object at a box or a point, or this
                pipeline has no reference prompter.
        """
        encoded = self._finder().encode(read_references(reference))
        if len(encoded) != 1:
            labels = ", ".join(repr(item.label) for item in encoded)
            raise InputError(
                f"encode references of one label at a time, got {labels or 'no reference'}"
            )
        return encoded[0]

    def everything(
        self,
        image: ImageSource | ImageEmbedding | Raster,
        *,
        points_per_side: int | None = None,
        min_mask_region_area: int | None = None,
        config: EverythingConfig | None = None,
        progress: ProgressCallback | None = None,
        tiles: Tiles | None = None,
    ) -> Result:
        """Segment everything that clicks on a grid find, without a query.

        Args:
            image: As for :meth:`__call__`.
            points_per_side: Clicks along each side of the grid; by default the config's.
            min_mask_region_area: Holes of fewer pixels are filled and islands of fewer pixels
                removed; by default the config's.
            config: All settings; by default the preset's.
            progress: Called with the number of points done and the total; with tiles, with the
                number of looks.
            tiles: As for :meth:`__call__`; every tile has a grid of its own.

        Returns:
            Masks at the image's size, best first; see
            :func:`~promptseg.pipeline.decoding.everything.segment_everything`.

        Raises:
            InputError: The image cannot be read, or a value is out of its range.
        """
        proposals = self.propose_everything(
            image,
            points_per_side=points_per_side,
            min_mask_region_area=min_mask_region_area,
            config=config,
            progress=progress,
            tiles=tiles,
        )
        weight = self.config.ranking.stability_weight
        return rank(proposals, RankingConfig(stability_weight=weight))

    def propose_everything(
        self,
        image: ImageSource | ImageEmbedding | Raster,
        *,
        points_per_side: int | None = None,
        min_mask_region_area: int | None = None,
        config: EverythingConfig | None = None,
        progress: ProgressCallback | None = None,
        tiles: Tiles | None = None,
    ) -> Proposals:
        """Do what :meth:`everything` does, except for the ranking; same arguments."""
        config = config or self.config.everything
        if points_per_side is not None:
            config = replace(config, points_per_side=points_per_side)
        if min_mask_region_area is not None:
            config = replace(config, min_mask_region_area=min_mask_region_area)
        if tiles is not None:
            return self._tiled(tiles).find_everything(image, config, progress)
        image = _untiled(image)
        if isinstance(image, ImageEmbedding):
            self.segmenter.check(image)
        return segment_everything(self.segmenter, image, config, progress=progress)

    def _ranking(
        self, top_k: int | None, min_score: float | None, no_overlap: bool | None
    ) -> RankingConfig:
        """Return the pipeline's ranking settings with the given values replaced."""
        own = self.config.ranking
        return replace(
            own,
            top_k=own.top_k if top_k is None else top_k,
            min_score=own.min_score if min_score is None else min_score,
            no_overlap=own.no_overlap if no_overlap is None else no_overlap,
        )

    def _finder(self) -> Finder:
        return Finder(
            self.segmenter,
            self.text_prompter,
            self.reference_prompter,
            self.config,
            self._closer_looks,
        )

    def _tiled(self, tiles: Tiles) -> TiledFinder:
        return TiledFinder(self._finder(), tiles)


def _untiled(image: ImageSource | ImageEmbedding | Raster) -> ImageSource | ImageEmbedding:
    if isinstance(image, Raster):
        raise InputError("a raster is read tile by tile; say how large tiles are: tiles='auto'")
    return image
