"""The command `promptseg eval`: measure a preset on pictures with region masks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..models.errors import InputError, PromptsegError
from .console import Bar, describe_error, exit_code, load_pipeline, say_error, weights_fingerprint


def eval_command(
    data: Annotated[Path, typer.Option("--data", help="Folder with index.jsonl.")],
    task: Annotated[str, typer.Option("--task", help="boxes, points or text.")] = "boxes",
    split: Annotated[str, typer.Option("--split", help="Which split of the data.")] = "dev",
    source: Annotated[
        list[str] | None, typer.Option("--source", help="Only these sources; repeat it.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="Which set of models.")] = "pocket",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Most pictures.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:0, mps ...")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option("--json", help="Write the figures here; a run goes on from OUT.rows.jsonl."),
    ] = None,
) -> None:
    """Measure a preset on pictures with region masks."""
    errors = Console(stderr=True)
    try:
        from .datasets import read_index

        if out is not None and out.is_dir():
            raise InputError(f"--json: {str(out)!r} is a folder; give a file")
        samples = read_index(data, split)
        if source:
            samples = [sample for sample in samples if sample.source in source]
        samples = samples[:limit]
        if not samples:
            raise InputError(f"--source: no picture of {', '.join(source or ())} in {str(data)!r}")
        pipeline = load_pipeline(preset, device)
        from .evaluate import evaluate, summarise
        from .outputs import write_text
        from .report import figures_table

        store = None if out is None else out.with_name(out.name + ".rows.jsonl")
        with Bar(len(samples), errors, "measuring") as bar:
            bar.show()
            about = {
                "preset": preset,
                "weights": weights_fingerprint(),
                "data": hashlib.sha256((data / "index.jsonl").read_bytes()).hexdigest(),
                "split": split,
                "device": device,
            }
            rows = evaluate(pipeline, samples, task, store=store, about=about, advance=bar.advance)
        figures = summarise(task, rows)
        if out is not None:
            write_text(out, json.dumps(figures, indent=2, allow_nan=False) + "\n")
    except (PromptsegError, OSError) as error:
        say_error(errors, describe_error(error))
        raise typer.Exit(exit_code(error)) from error
    Console().print(figures_table(f"{preset}, {task}, {split}", figures))
