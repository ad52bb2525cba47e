"""The command `promptseg segment`: find what words, examples, points and boxes mean in images."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ... import __version__
from ...models.errors import InputError, PromptsegError
from ..console import EXIT_BAD_INPUT, describe_error, say_error
from .examples import Examples, read_all_examples
from .job import Progress, RunOptions, Segment
from .options import (
    CACHE_GB,
    AllowUrls,
    AsJson,
    Cache,
    CacheSize,
    Device,
    Dtype,
    Exported,
    ExportedRuntime,
    Formats,
    Frames,
    ModelOptions,
    Out,
    Overwrite,
    Preset,
    Resume,
    Simplify,
    Strategy,
    Tiles,
    Weights,
    read_tiles_option,
)
from .pictures import refuse_phrases
from .query_options import (
    Boxes,
    MinPresence,
    MinScore,
    Negative,
    NoOverlap,
    Points,
    RankingOptions,
    Text,
    TopK,
    read_query,
)
from .reference_options import (
    Concepts,
    NegativeReferenceBoxes,
    NegativeReferenceMasks,
    NegativeReferencePoints,
    NegativeReferences,
    ReferenceBoxes,
    ReferenceLabels,
    ReferenceMasks,
    ReferencePoints,
    References,
    encode_examples,
)
from .runner import Runner

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.pipeline import Pipeline
    from ...pipeline.prompters.reference.examples import EncodedReference
    from ...pipeline.query import Query
    from ...pipeline.raster import Raster
    from ...pipeline.result import Result


def segment_command(
    ctx: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FOLDER",
            help="Images to segment; folders are searched for images. Also a quoted pattern such "
            "as 'photos/**/*.jpg', - for standard input, and with --allow-urls a URL.",
        ),
    ],
    text: Text = None,
    negative: Negative = None,
    reference: References = None,
    reference_mask: ReferenceMasks = None,
    reference_box: ReferenceBoxes = None,
    reference_point: ReferencePoints = None,
    reference_label: ReferenceLabels = None,
    negative_reference: NegativeReferences = None,
    negative_reference_mask: NegativeReferenceMasks = None,
    negative_reference_box: NegativeReferenceBoxes = None,
    negative_reference_point: NegativeReferencePoints = None,
    concept: Concepts = None,
    strategy: Strategy = None,
    point: Points = None,
    box: Boxes = None,
    preset: Preset = "pocket",
    top_k: TopK = None,
    min_score: MinScore = None,
    min_presence: MinPresence = None,
    no_overlap: NoOverlap = False,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    weights: Weights = None,
    exported: Exported = None,
    runtime: ExportedRuntime = None,
    cache: Cache = None,
    cache_gb: CacheSize = CACHE_GB,
    out: Out = None,
    formats: Formats = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    simplify: Simplify = 0.0,
    frames: Frames = False,
    tiles: Tiles = None,
    allow_urls: AllowUrls = False,
    as_json: AsJson = False,
) -> None:
    """Find what text names, examples show, or points and boxes mark, as ranked masks."""
    try:
        examples = read_all_examples(
            ctx,
            (reference, reference_mask, reference_box, reference_point, reference_label),
            (
                negative_reference,
                negative_reference_mask,
                negative_reference_box,
                negative_reference_point,
            ),
            concept,
        )
        refuse_phrases(images, text or (), "--text")
        refuse_phrases(images, negative or (), "--negative")
        query = read_query(text, negative, point, box, min_presence)
        if not (query.finds or query.marks or examples.wanted):
            raise InputError(
                "say what to look for: give --text, --reference, --concept, --point or --box"
            )
        ranking = RankingOptions(top_k, min_score, no_overlap)
        models = ModelOptions(
            preset, device, dtype, weights, strategy, cache, cache_gb, exported, runtime
        )
        options = RunOptions(
            preset,
            out,
            as_json,
            tuple(formats or ()),
            resume,
            overwrite,
            simplify,
            frames,
            allow_urls,
            tiles=read_tiles_option(tiles),
        )
    except PromptsegError as error:
        say_error(Console(stderr=True), describe_error(error))
        raise typer.Exit(EXIT_BAD_INPUT) from error
    code = Runner(_Segmenting(query, examples, ranking, models, options.tiles), options).run(images)
    if code:
        raise typer.Exit(code)


class _Segmenting:
    """Asks the same query of every image; the job of a runner."""

    def __init__(
        self,
        query: Query,
        examples: Examples,
        ranking: RankingOptions,
        models: ModelOptions,
        tiles: str | tuple[int, int] | None = None,
    ) -> None:
        self.query = query
        self.examples = examples
        self.ranking = ranking
        self.models = models
        self.tiles = tiles
        self.progress_title = "" if tiles is None else "segmenting"
        self._labels: list[str] | None = None

    def settings(self) -> dict[str, object]:
        """Return everything that results depend on."""
        marks = self.query.marks
        return {
            "version": __version__,
            **self.models.describe(),
            "text": self.query.text,
            "negative_text": self.query.negative_text,
            "points": marks.points.tolist(),
            "point_labels": marks.point_labels.tolist(),
            "boxes": marks.boxes.tolist(),
            "min_presence": self.query.min_presence,
            **asdict(self.ranking),
            **({} if self.tiles is None else {"tiles": self.tiles}),
            **self.examples.describe(),
        }

    def record(self) -> dict[str, object]:
        """Return what the record of every image says of the query."""
        return {"min_presence": self.query.min_presence}

    def inputs(self) -> list[str]:
        """Return the files that are read beside the images."""
        return self.examples.files()

    def labels(self) -> list[str]:
        """Return the phrases, and the names of masks found by example."""
        if self._labels is None:
            names = list(self.query.text)
            if self.examples.wanted:
                from ...pipeline.prompters.reference.concepts import load_concept
                from ...pipeline.prompters.reference.examples import LABEL

                shown = [load_concept(path).label for path in self.examples.concepts]
                shown += [item.label or LABEL for item in self.examples.positive]
                # Beside a phrase, what has no label of its own belongs to that phrase.
                names += [name for name in shown if name != LABEL or not names]
            self._labels = list(dict.fromkeys(names))
        return self._labels

    def prepare(self) -> Segment:
        """Read the examples, load the pipeline, and encode the examples once for all images."""
        positive = [item.load() for item in self.examples.positive]
        negative = [item.load() for item in self.examples.negative]
        pipeline, ranking = self.models.load(), self.ranking
        references = (*self._load_concepts(pipeline), *encode_examples(pipeline, positive))
        query = self.query.with_references(references, encode_examples(pipeline, negative))

        def segment(picture: UInt8Array | Raster, progress: Progress | None) -> Result:
            return pipeline.rank(
                pipeline.propose(picture, query, tiles=self.tiles, progress=progress),
                top_k=ranking.top_k,
                min_score=ranking.min_score,
                no_overlap=ranking.no_overlap or None,
            )

        return segment

    def drawn(self, result: Result) -> Result:
        """Return the result as it is."""
        return result

    def _load_concepts(self, pipeline: Pipeline) -> list[EncodedReference]:
        if not self.examples.concepts:
            return []
        from ...pipeline.prompters.reference.concepts import load_concept

        prompter = pipeline.reference_prompter
        model_id = None if prompter is None else prompter.extractor.model_id
        return [load_concept(path, model_id=model_id) for path in self.examples.concepts]
