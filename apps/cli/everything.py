"""The command `promptseg everything`: masks of all that is in an image, without a query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ... import __version__
from ...models.errors import PromptsegError
from ..console import EXIT_BAD_INPUT, describe_error, say_error
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
    Tiles,
    Weights,
    read_tiles_option,
)
from .runner import Runner

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.raster import Raster
    from ...pipeline.result import Result


def everything_command(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FOLDER",
            help="Images to segment; folders are searched for images. Also a quoted pattern such "
            "as 'photos/**/*.jpg', - for standard input, and with --allow-urls a URL.",
        ),
    ],
    points_per_side: Annotated[
        int | None,
        typer.Option(
            "--points-per-side",
            min=1,
            help="Points along each side of the grid: more points find smaller things and take "
            "longer. Default: the preset's.",
        ),
    ] = None,
    crop_layers: Annotated[
        int | None,
        typer.Option(
            "--crop-layers",
            min=0,
            help="Also look at 4 crops of the image with 1, at 20 with 2: finds smaller things and "
            "takes that many times longer. Default: the preset's.",
        ),
    ] = None,
    min_area: Annotated[
        int | None,
        typer.Option(
            "--min-area",
            min=0,
            help="Fill holes and remove islands of fewer pixels. Default: the preset's.",
        ),
    ] = None,
    preset: Preset = "pocket",
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
    """Find masks of everything in images, best first, without saying what to look for."""
    try:
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
        models = ModelOptions(
            preset, device, dtype, weights, None, cache, cache_gb, exported, runtime
        )
    except PromptsegError as error:
        say_error(Console(stderr=True), describe_error(error))
        raise typer.Exit(EXIT_BAD_INPUT) from error
    job = _Everything(models, points_per_side, crop_layers, min_area, options.tiles)
    code = Runner(job, options).run(images)
    if code:
        raise typer.Exit(code)


@dataclass
class _Everything:
    """Looks all over every image; the job of a runner. None leaves a value to the preset."""

    models: ModelOptions
    points_per_side: int | None
    crop_layers: int | None
    min_area: int | None
    tiles: str | tuple[int, int] | None = None

    progress_title = "segmenting"

    def settings(self) -> dict[str, object]:
        """Return everything that results depend on."""
        return {
            "version": __version__,
            "everything": True,
            **self.models.describe(),
            "points_per_side": self.points_per_side,
            "crop_layers": self.crop_layers,
            "min_area": self.min_area,
            **({} if self.tiles is None else {"tiles": self.tiles}),
        }

    def record(self) -> dict[str, object]:
        """Return what the record of every image says of the query: nothing."""
        return {}

    def inputs(self) -> list[str]:
        """Return the files that are read beside the images."""
        return []

    def labels(self) -> list[str]:
        """Return what every mask is called."""
        from ...pipeline.decoding.everything import LABEL

        return [LABEL]

    def prepare(self) -> Segment:
        """Load the pipeline."""
        pipeline = self.models.load()
        config = None
        if self.crop_layers is not None:
            config = replace(pipeline.config.everything, crop_n_layers=self.crop_layers)

        def segment(picture: UInt8Array | Raster, progress: Progress | None) -> Result:
            return pipeline.everything(
                picture,
                points_per_side=self.points_per_side,
                min_mask_region_area=self.min_area,
                config=config,
                progress=progress,
                tiles=self.tiles,
            )

        return segment

    def drawn(self, result: Result) -> Result:
        """Return the result without labels: numbers alone hide less of an image full of masks."""
        return replace(result, labels=[""] * len(result))
