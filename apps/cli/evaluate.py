"""The command `promptseg eval`: measure a preset on annotated images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ... import __version__
from ...models.errors import InputError, PromptsegError
from ..console import Bar, describe_error, exit_code, say_error, visible
from ..wording import count
from .options import Device, Dtype, ModelOptions, Preset, Weights

if TYPE_CHECKING:
    from ..evaluation.pictures import Collection, Skipped

FAILURES = 24
_DEFAULT_SPLIT = "dev"


def eval_command(
    data: Annotated[
        Path,
        typer.Option(
            "--data", help="Folder with index.jsonl, or a COCO instances or panoptic JSON."
        ),
    ],
    task: Annotated[
        str,
        typer.Option(
            "--task", help="What to ask for: text, points, boxes, reference or everything."
        ),
    ] = "boxes",
    split: Annotated[
        str | None, typer.Option("--split", help="Which split of a folder. Default: dev.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", help="Only images of this source; repeat it for several."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder of a COCO file's photographs.")
    ] = None,
    panoptic: Annotated[
        Path | None, typer.Option("--panoptic", help="Folder of a COCO file's panoptic PNGs.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="Measure only the first N images."),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            "--pairs", min=1, metavar="N", help="At most N pairs of images per class. Default: all."
        ),
    ] = None,
    shots: Annotated[int, typer.Option("--shots", min=1, help="Examples given together.")] = 1,
    by_class: Annotated[
        bool, typer.Option("--by-class", help="Also print a table by class.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write the figures to this file. A run resumes from FILE.rows.jsonl."
        ),
    ] = None,
    failures: Annotated[
        Path | None,
        typer.Option("--failures", help=f"Write a PNG of the {FAILURES} worst cases to this file."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write one HTML page: figures, what scores are worth, the worst cases.",
        ),
    ] = None,
    preset: Preset = "pocket",
    device: Device = "cpu",
    dtype: Dtype = "auto",
    weights: Weights = None,
) -> None:
    """Measure a preset on images with annotated masks."""
    errors = Console(stderr=True)
    try:
        _check_outputs(out, failures, report)
        models = ModelOptions(preset, device, dtype, weights)
        collection = _choose(_read(data, split, images, panoptic), source, limit, data)
        from ...models.device import read_dtype
        from ..evaluation.run import (
            evaluate,
            figures_by_class,
            figures_by_source,
            get_task,
            show_worst,
            weights_fingerprint,
        )
        from ..evaluation.tasks.base import Settings
        from .report import classes_table, figures_table

        make_task = get_task(task)
        pipeline = models.load()
        measured = make_task(pipeline, collection, Settings(pairs=pairs, shots=shots))
        about = {
            "preset": preset,
            "weights": weights_fingerprint(),
            "data": _data_fingerprint(data),
            "split": split or _DEFAULT_SPLIT if data.is_dir() else "",
            "device": device,
        }
        # Only where they are given, so that rows measured before they could be are still read.
        arithmetic = str(read_dtype(dtype, device)).removeprefix("torch.")
        if arithmetic != "float32":
            about["dtype"] = arithmetic
        if weights is not None:
            about["weights folder"] = str(weights)
        store = None if out is None else out.with_name(out.name + ".rows.jsonl")
        with Bar(len(collection.pictures), errors, "measuring") as bar:
            bar.show()
            rows = evaluate(measured, store=store, about=about, advance=bar.advance)
        by_source = figures_by_source(measured, rows)
        classes = figures_by_class(measured, rows)
        settings = {
            "task": task,
            **about,
            "source": source,
            "limit": limit,
            "pairs": pairs,
            "shots": shots,
        }
        if out is not None:
            _write_figures(out, by_source, classes, settings)
        title = f"{preset}, {task}, {about['split'] or data.stem}"
        looked_at = failures is not None or report is not None
        worst = show_worst(measured, rows, FAILURES) if looked_at else []
        if failures is not None:
            from ..evaluation.contact_sheet import draw_sheet, save_sheet

            save_sheet(failures, draw_sheet(title, worst))
        if report is not None:
            from ..evaluation.html_report import write_report

            write_report(
                report,
                title,
                settings=settings | {"data": f"{data}, SHA-256 {about['data']}"},
                by_source=by_source,
                by_class=classes,
                scored=measured.scored(rows),
                shown=worst,
                skipped=collection.skipped.count,
            )
    except (PromptsegError, OSError) as error:
        say_error(errors, describe_error(error))
        raise typer.Exit(exit_code(error)) from error
    _tell_skipped(errors, collection.skipped)
    console = Console()
    console.print(figures_table(title, by_source))
    if by_class:
        console.print(classes_table(f"{title}, by class", classes))


def _tell_skipped(console: Console, skipped: Skipped) -> None:
    """Print what was left out, and how much."""
    if not skipped.count:
        return
    more = ["..."] if skipped.count > len(skipped.named) else []
    what = count(skipped.count, "entry or image", "entries or images")
    for line in (*skipped.named, *more, f"{what} of the data could not be read and did not count"):
        console.print(visible(f"skipped: {line}"), highlight=False, markup=False, soft_wrap=True)


def _check_outputs(out: Path | None, failures: Path | None, report: Path | None) -> None:
    for option, path, ending, kind in (
        ("--json", out, "", ""),
        ("--failures", failures, ".png", "a PNG"),
        ("--report", report, ".html", "an HTML"),
    ):
        if path is None:
            continue
        if path.is_dir():
            raise InputError(f"{option}: {str(path)!r} is a folder; give a file")
        if ending and path.suffix.lower() != ending:
            raise InputError(f"{option}: {str(path)!r} does not end in {ending}; name {kind} file")


def _read(data: Path, split: str | None, images: Path | None, panoptic: Path | None) -> Collection:
    """Read a folder's index or a COCO file; no picture is opened yet."""
    if data.is_dir():
        for option, value in (("--images", images), ("--panoptic", panoptic)):
            if value is not None:
                raise InputError(
                    f"{option} is for COCO files; the index of {str(data)!r} has paths"
                )
        from ..evaluation.index_folder import read_index_collection

        return read_index_collection(data, split or _DEFAULT_SPLIT)
    if split is not None:
        raise InputError("--split is for folders with index.jsonl; a COCO file is one split itself")
    from ..evaluation.coco_dataset import read_coco

    return read_coco(data, images, panoptic)


def _choose(
    collection: Collection, sources: Sequence[str] | None, limit: int | None, data: Path
) -> Collection:
    """Return the first images of these sources, checked to have all their files."""
    from ..evaluation.pictures import check_pictures

    pictures = [p for p in collection.pictures if not sources or p.source in sources][:limit]
    if not pictures:
        there = ", ".join(sorted({picture.source for picture in collection.pictures}))
        raise InputError(
            f"--source: no picture of {', '.join(sources or ())} in {str(data)!r}; "
            f"there are {there}"
        )
    where = "the paths of index.jsonl" if data.is_dir() else "the folders (--images, --panoptic)"
    check_pictures(pictures, f"check {where}")
    return replace(collection, pictures=tuple(pictures))


def _data_fingerprint(data: Path) -> str:
    """SHA-256 of the file that describes the images."""
    path = data / "index.jsonl" if data.is_dir() else data
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_figures(
    out: Path,
    by_source: Mapping[str, Mapping[str, float]],
    by_class: Mapping[str, Mapping[str, float]],
    settings: Mapping[str, object],
) -> None:
    from ...pipeline.files import write_text

    content = {
        "figures": by_source.get("all", {}),
        "by_source": {name: group for name, group in by_source.items() if name != "all"},
        "by_class": by_class,
        "settings": settings,
        "version": __version__,
    }
    write_text(out, json.dumps(content, indent=2, allow_nan=False) + "\n")
