"""The command `promptseg segment`: what words, examples, points and boxes mean in images."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..models.errors import InputError, PromptsegError
from .console import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    Bar,
    describe_error,
    exit_code,
    load_pipeline,
    printable,
    say_error,
)
from .query import Query, read_query
from .reference_options import (
    NEGATIVE_REFERENCE,
    REFERENCE,
    Example,
    concept_path,
    encode_examples,
    read_examples,
)

if TYPE_CHECKING:
    from ..pipeline.pipeline import Pipeline
    from ..pipeline.reference import EncodedReference, Reference

logger = logging.getLogger(__name__)


def segment_command(
    ctx: typer.Context,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Images to segment.")],
    text: Annotated[
        list[str] | None,
        typer.Option("--text", "-t", help="What to look for; repeat it for several phrases."),
    ] = None,
    negative: Annotated[
        list[str] | None,
        typer.Option("--negative", help="What it must not be: masks that fall on it are dropped."),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="IMAGE",
            help="A picture that shows what to look for; several are examples of the same thing. "
            "Each needs a region, in the same order.",
        ),
    ] = None,
    reference_mask: Annotated[
        list[str] | None,
        typer.Option("--reference-mask", metavar="PNG", help="The object on a reference."),
    ] = None,
    reference_box: Annotated[
        list[str] | None,
        typer.Option("--reference-box", metavar="X0,Y0,X1,Y1", help="A box around it instead."),
    ] = None,
    reference_point: Annotated[
        list[str] | None,
        typer.Option("--reference-point", metavar="X,Y", help="A click on it instead."),
    ] = None,
    reference_label: Annotated[
        list[str] | None,
        typer.Option("--reference-label", metavar="NAME", help="One for all, or one for each."),
    ] = None,
    negative_reference: Annotated[
        list[str] | None,
        typer.Option(
            "--negative-reference", metavar="IMAGE", help="A picture of what it must not be."
        ),
    ] = None,
    negative_reference_mask: Annotated[
        list[str] | None, typer.Option("--negative-reference-mask", metavar="PNG")
    ] = None,
    negative_reference_box: Annotated[
        list[str] | None, typer.Option("--negative-reference-box", metavar="X0,Y0,X1,Y1")
    ] = None,
    negative_reference_point: Annotated[
        list[str] | None, typer.Option("--negative-reference-point", metavar="X,Y")
    ] = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(
            "--concept",
            metavar="NAME|FILE",
            help="A concept that `promptseg concept save` wrote: FILE, or NAME.safetensors here.",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="How examples are matched: prototype, bidirectional or graph. Without it: the "
            "preset's.",
        ),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option("--point", metavar="X,Y[,LABEL]", help="A click; label 0 is background."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X0,Y0,X1,Y1", help="A box around an object, in pixels."),
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="Which set of models.")] = "pocket",
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="Most masks for each phrase.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", min=0.0, max=1.0, help="Least score of a mask.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:0, mps ...")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for result.json, the overlay and one PNG a mask; several images get a "
            "folder each within it. Without it: promptseg-output/IMAGE.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print only JSON, one line an image; files are written only with --out.",
        ),
    ] = False,
) -> None:
    """Find what the text names, examples show or points and boxes mark, as ranked masks."""
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
        query = read_query(
            text, negative, point, box, top_k, min_score, shown=bool(examples.wanted)
        )
        if out is not None and out.exists() and not out.is_dir():
            raise InputError(f"--out: {str(out)!r} is a file; give a folder")
    except InputError as error:
        say_error(Console(stderr=True), describe_error(error))
        raise typer.Exit(EXIT_BAD_INPUT) from error
    runner = _Runner(
        query,
        examples,
        preset,
        device,
        strategy,
        writes=out is not None or not as_json,
        as_json=as_json,
    )
    code = runner.run(images, out)
    if code:
        raise typer.Exit(code)


@dataclass(frozen=True)
class Examples:
    """Pictures that show what to look for and what not.

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
        """All that shows what to look for."""
        return (*self.positive, *self.concepts)


@dataclass(frozen=True, eq=False)
class _Ready:
    """A pipeline with the examples that it encoded, once for all images."""

    pipeline: Pipeline
    references: tuple[EncodedReference, ...]
    negatives: tuple[EncodedReference, ...]


class _Runner:
    """Segments images one by one and reports each; loads the pipeline when first needed."""

    def __init__(
        self,
        query: Query,
        examples: Examples,
        preset: str,
        device: str,
        strategy: str | None,
        *,
        writes: bool,
        as_json: bool,
    ) -> None:
        self.query = query
        self.examples = examples
        self.preset = preset
        self.device = device
        self.strategy = strategy
        self.writes = writes
        self.as_json = as_json
        self.console = Console()
        self.errors = Console(stderr=True)
        self.ready: _Ready | None = None

    def run(self, images: Sequence[str], out: Path | None) -> int:
        """Segment all images and return the exit code."""
        from .outputs import output_folders

        failed: list[Exception] = []
        folders = output_folders(images, out)
        several = len(images) > 1
        with Bar(len(images), self.errors if several else None) as bar:
            for image, folder in zip(images, folders, strict=True):
                bar.show()
                try:
                    report = self._segment(image, folder)
                except _SetupError as error:
                    bar.hide()
                    say_error(self.errors, describe_error(error.cause))
                    return exit_code(error.cause)
                except (PromptsegError, OSError, RuntimeError, MemoryError) as error:
                    logger.debug("failed on %s", image, exc_info=True)
                    failed.append(error)
                    bar.hide()
                    self._report_failure(image, error)
                else:
                    bar.hide()
                    report()
                bar.advance()
        if not failed:
            return 0
        if several:
            say_error(self.errors, f"{len(failed)} of {len(images)} images failed")
            return EXIT_FAILED
        return exit_code(failed[0])

    def _segment(self, path: str, folder: Path) -> Callable[[], None]:
        """Segment one image, write its files, and return what prints the report."""
        from ..pipeline.images import load_image

        # Before the models: a wrong path is told at once.
        image = load_image(path)
        ready, query = self._get_ready(), self.query
        started = time.perf_counter()
        result = ready.pipeline(
            image,
            text=list(query.text) or None,
            negative_text=list(query.negative_text) or None,
            reference=ready.references or None,
            negative_reference=ready.negatives or None,
            points=list(query.points) or None,
            point_labels=list(query.point_labels) or None,
            boxes=list(query.boxes) or None,
            top_k=query.top_k,
            min_score=query.min_score,
        )
        seconds = time.perf_counter() - started
        from .outputs import file_names, write_outputs
        from .report import describe_result

        record: dict[str, Any] = {
            "image": printable(path),
            "preset": self.preset,
            "seconds": round(seconds, 3),
            "files": file_names(folder, result) if self.writes else None,
            **result.to_dict(),
        }
        if self.writes:
            write_outputs(folder, image, result, record)
        if self.as_json:
            line = json.dumps(record, allow_nan=False)
            return lambda: typer.echo(line)
        asked = (*query.text, *(item.label for item in ready.references))
        report = describe_result(printable(path), result, list(dict.fromkeys(asked)))
        closing = f"{seconds:.2f} s; written to {printable(str(folder))}{os.sep}"

        def show() -> None:
            self.console.print(report)
            self.console.print(closing, style="dim", highlight=False, markup=False, soft_wrap=True)

        return show

    def _get_ready(self) -> _Ready:
        if self.ready is None:
            try:
                self.ready = self._prepare()
            except (PromptsegError, OSError) as error:
                raise _SetupError(error) from error
        return self.ready

    def _prepare(self) -> _Ready:
        """Read the examples, load the pipeline, and encode them."""
        positive: list[Reference] = [item.load() for item in self.examples.positive]
        negative: list[Reference] = [item.load() for item in self.examples.negative]
        pipeline = load_pipeline(self.preset, self.device, self.strategy)
        return _Ready(
            pipeline,
            (*self._load_concepts(pipeline), *encode_examples(pipeline, positive)),
            encode_examples(pipeline, negative),
        )

    def _load_concepts(self, pipeline: Pipeline) -> list[EncodedReference]:
        if not self.examples.concepts:
            return []
        from ..pipeline.concepts import load_concept

        prompter = pipeline.reference_prompter
        model_id = None if prompter is None else prompter.extractor.model_id
        return [load_concept(path, model_id=model_id) for path in self.examples.concepts]

    def _report_failure(self, image: str, error: Exception) -> None:
        text = describe_error(error)
        if repr(image) not in text:
            text = f"{image!r}: {text}"
        say_error(self.errors, text)
        if self.as_json:
            typer.echo(json.dumps({"image": printable(image), "error": printable(text)}))


class _SetupError(Exception):
    """The models or the examples cannot be loaded: no image can be segmented."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause
