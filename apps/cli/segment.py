"""The command `promptseg segment`: find what words, examples, points and boxes mean in images."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ... import __version__
from ...models.errors import InputError, PromptsegError
from ...models.foreign import read_regular
from ..console import EXIT_BAD_INPUT, describe_error, say_error
from .job import Progress, RunOptions, Segment
from .options import (
    CACHE_GB,
    STRATEGIES,
    AllowUrls,
    AsJson,
    Cache,
    CacheSize,
    Device,
    Dtype,
    Formats,
    Frames,
    ModelOptions,
    Out,
    Overwrite,
    Preset,
    Resume,
    Simplify,
    Weights,
)
from .pictures import refuse_phrases
from .query_options import RankingOptions, read_query
from .reference_options import (
    NEGATIVE_REFERENCE,
    REFERENCE,
    Example,
    concept_path,
    encode_examples,
    read_examples,
)
from .runner import Runner

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.pipeline import Pipeline
    from ...pipeline.prompters.reference.examples import EncodedReference
    from ...pipeline.query import Query
    from ...pipeline.result import Result

# Largest file of an example or a concept whose content is compared by --resume.
_LARGEST_FILE = 2**32


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
    text: Annotated[
        list[str] | None,
        typer.Option("--text", "-t", help="What to look for; repeat it for several phrases."),
    ] = None,
    negative: Annotated[
        list[str] | None,
        typer.Option("--negative", help="What it must not be: masks of it are dropped."),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="IMAGE",
            help="An image that shows what to look for; repeat it for more examples. Each needs a "
            "mask, a box or a point, in the same order.",
        ),
    ] = None,
    reference_mask: Annotated[
        list[str] | None,
        typer.Option("--reference-mask", metavar="PNG", help="Mask of the object in a reference."),
    ] = None,
    reference_box: Annotated[
        list[str] | None,
        typer.Option("--reference-box", metavar="X0,Y0,X1,Y1", help="Or a box around it."),
    ] = None,
    reference_point: Annotated[
        list[str] | None,
        typer.Option("--reference-point", metavar="X,Y", help="Or a point on it."),
    ] = None,
    reference_label: Annotated[
        list[str] | None,
        typer.Option(
            "--reference-label",
            metavar="NAME",
            help="What its masks are called: one name for all, or one each.",
        ),
    ] = None,
    negative_reference: Annotated[
        list[str] | None,
        typer.Option(
            "--negative-reference", metavar="IMAGE", help="An image of what it must not be."
        ),
    ] = None,
    negative_reference_mask: Annotated[
        list[str] | None,
        typer.Option("--negative-reference-mask", metavar="PNG", help="Mask of it."),
    ] = None,
    negative_reference_box: Annotated[
        list[str] | None,
        typer.Option("--negative-reference-box", metavar="X0,Y0,X1,Y1", help="Or a box around it."),
    ] = None,
    negative_reference_point: Annotated[
        list[str] | None,
        typer.Option("--negative-reference-point", metavar="X,Y", help="Or a point on it."),
    ] = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(
            "--concept",
            metavar="NAME|FILE",
            help="A concept saved by `promptseg concept save`: its file or its name.",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            autocompletion=lambda: list(STRATEGIES),
            help="How examples are matched: prototype, bidirectional or graph. Default: the "
            "preset's choice.",
        ),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(
            "--point",
            metavar="X,Y[,LABEL]",
            help="A point on the object; with label 0, on the background.",
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X0,Y0,X1,Y1", help="A box around the object, in pixels."),
    ] = None,
    preset: Preset = "pocket",
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="At most this many masks per phrase.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", min=0.0, max=1.0, help="Lowest score of a mask.")
    ] = None,
    min_presence: Annotated[
        float | None,
        typer.Option(
            "--min-presence",
            help="How sure it must be, from 0 to 1, that what --text or an example means is in the "
            "image at all; 0 tries it anyway. Default: the preset's threshold.",
        ),
    ] = None,
    no_overlap: Annotated[
        bool, typer.Option("--no-overlap", help="Give each pixel to the best mask that covers it.")
    ] = False,
    device: Device = "cpu",
    dtype: Dtype = "auto",
    weights: Weights = None,
    cache: Cache = None,
    cache_gb: CacheSize = CACHE_GB,
    out: Out = None,
    formats: Formats = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    simplify: Simplify = 0.0,
    frames: Frames = False,
    allow_urls: AllowUrls = False,
    as_json: AsJson = False,
) -> None:
    """Find what text names, examples show, or points and boxes mark, as ranked masks."""
    try:
        examples = Examples(
            positive=read_examples(
                ctx,
                REFERENCE,
                reference,
                reference_mask,
                reference_box,
                reference_point,
                reference_label,
            ),
            negative=read_examples(
                ctx,
                NEGATIVE_REFERENCE,
                negative_reference,
                negative_reference_mask,
                negative_reference_box,
                negative_reference_point,
            ),
            concepts=tuple(concept_path(name) for name in dict.fromkeys(concept or ())),
        )
        for path in examples.concepts:
            if not os.path.lexists(path):  # before torch, which reads it, is imported
                raise InputError(
                    f"--concept: {str(path)!r} does not exist; promptseg concept save makes it"
                )
        refuse_phrases(images, text or (), "--text")
        refuse_phrases(images, negative or (), "--negative")
        query = read_query(text, negative, point, box, min_presence)
        if not (query.finds or query.marks or examples.wanted):
            raise InputError(
                "say what to look for: give --text, --reference, --concept, --point or --box"
            )
        ranking = RankingOptions(top_k, min_score, no_overlap)
        models = ModelOptions(preset, device, dtype, weights, strategy, cache, cache_gb)
        options = RunOptions(
            preset=preset,
            out=out,
            as_json=as_json,
            formats=tuple(formats or ()),
            resume=resume,
            overwrite=overwrite,
            simplify=simplify,
            frames=frames,
            allow_urls=allow_urls,
        )
    except PromptsegError as error:
        say_error(Console(stderr=True), describe_error(error))
        raise typer.Exit(EXIT_BAD_INPUT) from error
    code = Runner(_Segmenting(query, examples, ranking, models), options).run(images)
    if code:
        raise typer.Exit(code)


@dataclass(frozen=True)
class Examples:
    """Images that show what to look for and what not.

    Attributes:
        positive: What to look for.
        negative: What it must not be.
        concepts: Files of examples to look for.
    """

    positive: tuple[Example, ...] = ()
    negative: tuple[Example, ...] = ()
    concepts: tuple[Path, ...] = ()

    @property
    def wanted(self) -> tuple[object, ...]:
        """The examples and concepts of what to look for."""
        return (*self.positive, *self.concepts)


class _Segmenting:
    """Asks the same query of every image; the job of a runner."""

    progress_title = ""

    def __init__(
        self, query: Query, examples: Examples, ranking: RankingOptions, models: ModelOptions
    ) -> None:
        self.query = query
        self.examples = examples
        self.ranking = ranking
        self.models = models
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
            "references": [_describe_example(item) for item in self.examples.positive],
            "negative references": [_describe_example(item) for item in self.examples.negative],
            "concepts": [_digest(path) for path in self.examples.concepts],
        }

    def record(self) -> dict[str, object]:
        """Return what the record of every image says of the query."""
        return {"min_presence": self.query.min_presence}

    def inputs(self) -> list[str]:
        """Return the files that are read beside the images."""
        examples = (*self.examples.positive, *self.examples.negative)
        read = [path for item in examples for path in (item.image, item.mask) if path is not None]
        return [*read, *map(str, self.examples.concepts)]

    def labels(self) -> list[str]:
        """Return the phrases, and the names of masks found by example."""
        if self._labels is None:
            names = list(self.query.text)
            if self.examples.wanted:
                from ...pipeline.prompters.reference.concepts import load_concept
                from ...pipeline.prompters.reference.examples import LABEL

                names += [load_concept(path).label for path in self.examples.concepts]
                names += [item.label or LABEL for item in self.examples.positive]
            self._labels = list(dict.fromkeys(names))
        return self._labels

    def prepare(self) -> Segment:
        """Read the examples, load the pipeline, and encode the examples once for all images."""
        positive = [item.load() for item in self.examples.positive]
        negative = [item.load() for item in self.examples.negative]
        pipeline, ranking = self.models.load(), self.ranking
        references = (*self._load_concepts(pipeline), *encode_examples(pipeline, positive))
        query = self.query.with_references(references, encode_examples(pipeline, negative))

        def segment(pixels: UInt8Array, progress: Progress | None) -> Result:
            return pipeline.rank(
                pipeline.propose(pixels, query),
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


def _describe_example(example: Example) -> dict[str, object]:
    mask = None if example.mask is None else _digest(Path(example.mask))
    return {**asdict(example), "image": _digest(Path(example.image)), "mask": mask}


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read, which is reported on use."""
    try:
        content = read_regular(path, str(path), limit=_LARGEST_FILE)
    except InputError:
        return ""
    return hashlib.sha256(content).hexdigest()
