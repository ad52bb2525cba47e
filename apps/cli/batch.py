"""The command `promptseg batch`: many images, on this machine or a Ray cluster, into Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from ...models.errors import InputError, PromptsegError
from ..batch.require import require_ray
from ..console import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    Terminated,
    describe_error,
    exit_code,
    printable,
    say_error,
    visible,
)
from ..exports import FORMATS, GEO_FORMATS
from ..wording import count
from .batch_progress import BatchProgress, describe_speed
from .examples import Examples, read_all_examples
from .options import (
    CACHE_GB,
    Cache,
    CacheSize,
    Dtype,
    ModelOptions,
    Preset,
    Simplify,
    Strategy,
    Tiles,
    Weights,
    read_tiles_option,
)
from .query_options import (
    MinPresence,
    MinScore,
    Negative,
    NoOverlap,
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
    OrderedCommand,
    ReferenceBoxes,
    ReferenceLabels,
    ReferenceMasks,
    ReferencePoints,
    References,
)

if TYPE_CHECKING:
    from ..batch.cluster import Cluster

_MOST_SHOWN = 5


class BatchGroup(TyperGroup):
    """Takes what is no command of its own for the arguments of `run`."""

    default = "run"

    # The context is click's; some versions of typer bring their own click.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, with the default command put in where none is named."""
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else [self.default, *args])


batch_app = typer.Typer(
    cls=BatchGroup, help="Segment many images, on this machine or a Ray cluster, into Parquet."
)

Out = Annotated[
    str, typer.Option("--out", metavar="FOLDER|URI", help="Where results go; also s3:// and gs://.")
]


@batch_app.command("run", cls=OrderedCommand)
def batch_command(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A folder, a quoted pattern such as 's3://bucket/**/*.jpg', or a Parquet manifest "
            "with the columns id and uri, and any of text, negative_text, points, point_labels, "
            "boxes and min_presence.",
        ),
    ],
    out: Out,
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
    top_k: TopK = None,
    min_score: MinScore = None,
    min_presence: MinPresence = None,
    no_overlap: NoOverlap = False,
    tiles: Tiles = None,
    preset: Preset = "pocket",
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            help="Where the models run. Default: cuda for workers with GPUs, otherwise cpu.",
        ),
    ] = None,
    dtype: Dtype = "auto",
    weights: Weights = None,
    cache: Cache = None,
    cache_gb: CacheSize = CACHE_GB,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="A Ray cluster: auto, or HOST:6379. Default: this machine.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="Most workers. Default: as many as there are places for."
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float,
        typer.Option("--gpus-per-worker", min=0.0, help="GPUs of each worker, such as 1 or 0.5."),
    ] = 0.0,
    cpus_per_worker: Annotated[
        int, typer.Option("--cpus-per-worker", min=1, help="CPUs and threads of each worker.")
    ] = 1,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images that a worker gets at a time.")
    ] = 8,
    memory_gb: Annotated[
        float | None,
        typer.Option(
            "--memory-gb",
            help="Memory to reserve for each worker. Default: by the preset and --max-pixels.",
        ),
    ] = None,
    max_pixels: Annotated[
        int,
        typer.Option(
            "--max-pixels",
            min=10_000,
            help="Images with more are refused before decoding, but for TIFFs in tiles.",
        ),
    ] = 50_000_000,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            "--shard-rows",
            min=1,
            help="Images in each file of results, which is what a crash costs. Default: by their "
            "number, at most 256.",
        ),
    ] = None,
) -> None:
    """Segment many images into Parquet files; `promptseg batch export` writes other formats.

    The same command continues where an earlier run was stopped.
    """
    errors = Console(stderr=True)
    try:
        require_ray()
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
        query = read_query(text, negative, None, None, min_presence)
        ranking = RankingOptions(top_k, min_score, no_overlap)
        looked = read_tiles_option(tiles)
        chosen = device or ("cuda" if gpus_per_worker else "cpu")
        models = ModelOptions(preset, chosen, dtype, weights, strategy, cache, cache_gb)
        from ..batch.cluster import Cluster

        cluster = Cluster(
            address,
            workers,
            gpus_per_worker,
            cpus_per_worker,
            batch_size,
            memory_gb,
            shard_rows,
        )
    except PromptsegError as error:
        say_error(errors, describe_error(error))
        raise typer.Exit(EXIT_BAD_INPUT) from error
    with _stopping(errors, f"the same command continues in {out}"):
        failed = _segment(
            source, out, query, examples, ranking, looked, models, cluster, max_pixels
        )
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _segment(
    source: str,
    out: str,
    query: Any,
    examples: Examples,
    ranking: RankingOptions,
    tiles: str | tuple[int, int] | None,
    models: ModelOptions,
    cluster: Cluster,
    max_pixels: int,
) -> int:
    """Run the batch and tell its summary; return how many images failed."""
    from ...pipeline.prompters.reference.concepts import load_concept
    from ..batch.run import segment

    shown: list[Any] = [
        *map(load_concept, examples.concepts),
        *(item.load() for item in examples.positive),
    ]
    against = [item.load() for item in examples.negative]
    with BatchProgress(Console(stderr=True)) as progress:
        summary = segment(
            source,
            out,
            list(query.text) or None,
            negative_text=list(query.negative_text) or None,
            reference=shown or None,
            negative_reference=against or None,
            min_presence=query.min_presence,
            top_k=ranking.top_k,
            min_score=ranking.min_score,
            no_overlap=ranking.no_overlap or None,
            tiles=tiles,
            preset=models.preset,
            device=models.device,
            dtype=models.dtype,
            weights=None if models.weights is None else str(models.weights.absolute()),
            strategy=models.strategy,
            cache=None if models.cache is None else str(models.cache.absolute()),
            cache_gb=models.cache_gb,
            max_pixels=max_pixels,
            cluster=cluster,
            progress=progress,
        )
    console = Console()
    line = (
        f"{count(summary.images, 'image')}: {summary.with_masks} with masks, "
        f"{summary.nothing_found} with nothing found, {summary.failed} failed"
    )
    if summary.segmented:
        speed = describe_speed(summary.segmented / max(summary.seconds, 1e-9))
        line += f"; {summary.segmented} now, {speed}"
    _print(console, line)
    for name, error in summary.failures[:_MOST_SHOWN]:
        _print(console, f"{printable(name)}: {error}")
    left = summary.failed - min(len(summary.failures), _MOST_SHOWN)
    if left > 0:
        _print(console, f"... and {left} more, in the column error")
    _print(console, f"written to {printable(out)}")
    return summary.failed


@batch_app.command("export")
def export_command(
    out: Annotated[str, typer.Argument(metavar="OUT", help="The batch's folder or URI.")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help=f"One of {', '.join(FORMATS)}; voc is PASCAL VOC's. For georeferenced TIFFs also "
            f"{', '.join(GEO_FORMATS)}.",
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Folder to write, new or empty. Default: OUT-FORMAT."),
    ] = None,
    simplify: Simplify = 0.0,
) -> None:
    """Write the results of a batch in the format of another tool."""
    errors = Console(stderr=True)
    with _stopping(errors, "nothing was written"):
        require_ray()
        if to is None and "://" in out:
            raise InputError("--to is missing: name the folder to write")
        target = Path(f"{out.rstrip('/')}-{format}") if to is None else to
        from ..batch.export import export

        with BatchProgress(errors) as progress:
            done = export(out, target, format, simplify=simplify, progress=progress)
        console = Console()
        for note in done.notes:
            _print(console, note)
        failed = f", {count(done.failed, 'failed one')} left out" if done.failed else ""
        _print(console, f"{count(done.images, 'image')} written to {target}{failed}")


@contextmanager
def _stopping(errors: Console, way_on: str) -> Iterator[None]:
    """Tell errors on one line, and end with their exit codes."""
    try:
        yield
    except KeyboardInterrupt as stop:
        say_error(errors, f"stopped; {way_on}")
        code = EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED
        raise typer.Exit(code) from stop
    except (PromptsegError, OSError) as error:
        say_error(errors, describe_error(error))
        raise typer.Exit(exit_code(error)) from error


def _print(console: Console, text: str) -> None:
    console.print(visible(text), highlight=False, markup=False, soft_wrap=True)
