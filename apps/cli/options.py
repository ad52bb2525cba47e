"""Options that commands share: where files go, in which formats, and how networks run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..exports import FORMATS

Preset = Annotated[str, typer.Option("--preset", help="Which set of models.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:0, mps ...")]
Dtype = Annotated[
    str, typer.Option("--dtype", help="What networks compute in: fp32, bf16 or fp16.")
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="DIR",
        help="Folder of the preset's weights. Without it: PROMPTSEG_WEIGHTS, then the hub's cache.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for result.json, the overlay and one PNG a mask; several images get a "
        "folder each within it. Without it: promptseg-output/IMAGE.",
    ),
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Write this format instead, into a folder of its name, one for all images; repeat it "
        f"for several: {', '.join(FORMATS)}.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with an interrupted run: skip images that are done."),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print only JSON, one line an image; files are written only with --out or --format.",
    ),
]
