"""The command line: `promptseg segment photo.jpg -t cat`, `promptseg models list`.

Exit codes: 0 done (finding nothing is an answer), 1 an image failed, 2 bad input.
Heavy imports happen inside functions, so that --help and --version answer at once.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from .. import __version__
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
from .eval_command import eval_command
from .everything_command import everything_command
from .models_command import models_app
from .query import Query, read_query

if TYPE_CHECKING:
    from ..pipeline.pipeline import Pipeline

logger = logging.getLogger(__name__)

app = typer.Typer(
    help="Type what you want and get ranked masks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(models_app, name="models")


def main() -> None:
    """Run the command line; the console script's entry."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"promptseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Type what you want and get ranked masks."""


@app.command()
def segment(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Images to segment.")],
    text: Annotated[
        list[str] | None,
        typer.Option("--text", "-t", help="What to look for; repeat it for several phrases."),
    ] = None,
    negative: Annotated[
        list[str] | None,
        typer.Option("--negative", help="What it must not be: masks that fall on it are dropped."),
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
    """Find what the text names (or points and boxes mark) in images, as ranked masks."""
    try:
        query = read_query(text, negative, point, box, top_k, min_score)
        if out is not None and out.exists() and not out.is_dir():
            raise InputError(f"--out: {str(out)!r} is a file; give a folder")
    except InputError as error:
        say_error(Console(stderr=True), describe_error(error))
        raise typer.Exit(EXIT_BAD_INPUT) from error
    runner = _Runner(query, preset, device, writes=out is not None or not as_json, as_json=as_json)
    code = runner.run(images, out)
    if code:
        raise typer.Exit(code)


app.command("eval")(eval_command)
app.command("everything")(everything_command)


class _Runner:
    """Segments images one by one and reports each; loads the pipeline when first needed."""

    def __init__(
        self, query: Query, preset: str, device: str, *, writes: bool, as_json: bool
    ) -> None:
        self.query = query
        self.preset = preset
        self.device = device
        self.writes = writes
        self.as_json = as_json
        self.console = Console()
        self.errors = Console(stderr=True)
        self.pipeline: Pipeline | None = None

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
        pipeline = self._get_pipeline()
        query = self.query
        started = time.perf_counter()
        result = pipeline(
            image,
            text=list(query.text) or None,
            negative_text=list(query.negative_text) or None,
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
        report = describe_result(printable(path), result, query.text)
        closing = f"{seconds:.2f} s; written to {printable(str(folder))}{os.sep}"

        def show() -> None:
            self.console.print(report)
            self.console.print(closing, style="dim", highlight=False, markup=False, soft_wrap=True)

        return show

    def _get_pipeline(self) -> Pipeline:
        if self.pipeline is None:
            try:
                self.pipeline = load_pipeline(self.preset, self.device)
            except (PromptsegError, OSError) as error:
                raise _SetupError(error) from error
        return self.pipeline

    def _report_failure(self, image: str, error: Exception) -> None:
        text = describe_error(error)
        if repr(image) not in text:
            text = f"{image!r}: {text}"
        say_error(self.errors, text)
        if self.as_json:
            typer.echo(json.dumps({"image": printable(image), "error": printable(text)}))


class _SetupError(Exception):
    """The models cannot be loaded: no image can be segmented."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


if __name__ == "__main__":
    main()
