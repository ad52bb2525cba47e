"""The command `promptseg everything`: masks all over an image, without a query."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..models.errors import InputError, PromptsegError
from .console import Bar, describe_error, exit_code, load_pipeline, printable, say_error

logger = logging.getLogger(__name__)


def everything_command(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image to segment.")],
    points_per_side: Annotated[
        int | None,
        typer.Option(
            "--points-per-side",
            min=1,
            help="Clicks along each side of the grid: more find smaller things and take longer. "
            "Without it: the preset's.",
        ),
    ] = None,
    min_area: Annotated[
        int | None,
        typer.Option(
            "--min-area",
            min=0,
            help="Fill holes and remove islands of fewer pixels. Without it: the preset's.",
        ),
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="Which set of models.")] = "pocket",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:0, mps ...")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for result.json, the overlay and one PNG a mask. Without it: "
            "promptseg-output/IMAGE.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print only JSON, on one line; files are written only with --out."
        ),
    ] = False,
) -> None:
    """Find masks all over an image, best first, without saying what to look for."""
    errors = Console(stderr=True)
    try:
        if out is not None and out.exists() and not out.is_dir():
            raise InputError(f"--out: {str(out)!r} is a file; give a folder")
        from ..pipeline.images import load_image

        # Before the models: a wrong path is told at once.
        pixels = load_image(image)
        pipeline = load_pipeline(preset, device)
        with Bar(0, errors, "clicking") as bar:
            bar.show()
            started = time.perf_counter()
            result = pipeline.everything(
                pixels,
                points_per_side=points_per_side,
                min_mask_region_area=min_area,
                progress=bar.update,
            )
            seconds = time.perf_counter() - started
        from ..pipeline.everything import LABEL
        from .outputs import file_names, output_folders, write_outputs
        from .report import describe_result

        writes = out is not None or not as_json
        (folder,) = output_folders([image], out)
        record: dict[str, Any] = {
            "image": printable(image),
            "preset": preset,
            "seconds": round(seconds, 3),
            "files": file_names(folder, result) if writes else None,
            **result.to_dict(),
        }
        if writes:
            # Drawn by their numbers alone, which hide less of a picture full of masks.
            unnamed = replace(result, labels=[""] * len(result))
            write_outputs(folder, pixels, unnamed, record)
    except (PromptsegError, OSError, RuntimeError, MemoryError) as error:
        logger.debug("failed on %s", image, exc_info=True)
        text = describe_error(error)
        say_error(errors, text)
        if as_json:
            typer.echo(json.dumps({"image": printable(image), "error": printable(text)}))
        raise typer.Exit(exit_code(error)) from error
    if as_json:
        typer.echo(json.dumps(record, allow_nan=False))
        return
    console = Console()
    console.print(describe_result(printable(image), result, [LABEL]))
    closing = f"{seconds:.2f} s; written to {printable(str(folder))}{os.sep}"
    console.print(closing, style="dim", highlight=False, markup=False, soft_wrap=True)
