"""`promptseg concept save | show`: examples of a thing, encoded once and saved in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ...models.errors import InputError, PromptsegError
from ..console import describe_error, exit_code, say_error, visible
from ..wording import count
from .options import Device, Dtype, ModelOptions, Preset, Weights
from .reference_options import (
    CONCEPT,
    CONCEPT_SUFFIX,
    OrderedCommand,
    concept_path,
    encode_examples,
    read_examples,
)

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.prompters.reference.concepts import Concept

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Also replace a file that is no concept of promptseg's.")
]

concept_app = typer.Typer(
    help="Concepts: examples of a thing, saved in a file.", no_args_is_help=True
)


@concept_app.command("save", cls=OrderedCommand)
def save_command(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What the concept's masks are called.")
    ],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="IMAGE",
            help="An image that shows it; repeat it for more examples. Each needs a mask, a box or "
            "a point, in the same order.",
        ),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option("--mask", metavar="PNG", help="Mask of the object in a reference."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Or a box around it."),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option("--point", metavar="X,Y", help="Or a point on it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Default: NAME.safetensors in this folder."),
    ] = None,
    overwrite: Overwrite = False,
    preset: Preset = "pocket",
    device: Device = "cpu",
    dtype: Dtype = "auto",
    weights: Weights = None,
) -> None:
    """Encode examples of one thing and save them, for `promptseg segment --concept NAME`."""
    from ...pipeline.prompters.reference.concepts import is_concept

    try:
        label = name.strip()
        path = _output_path(label, out)
        if not overwrite and not is_concept(path):
            _check_free("--out", path)
        examples = read_examples(ctx, CONCEPT, reference, mask, box, point, [label])
        if not examples:
            raise InputError(
                "show what the concept is: give --reference IMAGE with --mask, --box or --point"
            )
        models = ModelOptions(preset, device, dtype, weights)
        # Before the models, so that a wrong path is reported at once.
        loaded = [example.load() for example in examples]
        pipeline = models.load()
        from ...pipeline.prompters.reference.concepts import draw_preview, save_concept

        (encoded,) = encode_examples(pipeline, loaded)
        previews = [
            draw_preview(item.image, shot.mask.full())
            for item, shot in zip(loaded, encoded.shots, strict=True)
            if shot.mask is not None
        ]
        save_concept(path, encoded, previews)
    except (PromptsegError, OSError, RuntimeError, MemoryError) as error:
        say_error(Console(stderr=True), describe_error(error))
        raise typer.Exit(exit_code(error)) from error
    typer.echo(
        visible(f"{label}: {count(len(loaded), 'example')} by {encoded.model_id}, in {path}")
    )


@concept_app.command("show")
def show_command(
    concept: Annotated[str, typer.Argument(metavar="NAME|FILE", help="File or name of a concept.")],
    preview: Annotated[
        Path | None,
        typer.Option(
            "--preview", metavar="PNG", help="Write the example images side by side to this file."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Show what a concept file contains."""
    from ...pipeline.prompters.reference.concepts import open_concept

    path = concept_path(concept)
    try:
        if preview is not None and not overwrite:
            _check_free("--preview", preview)
        found = open_concept(path)
        lines = _describe(found, path.stat().st_size)
        if preview is not None:
            _write_preview(preview, found.previews)
    except (PromptsegError, OSError) as error:
        say_error(Console(stderr=True), describe_error(error))
        raise typer.Exit(exit_code(error)) from error
    for line in lines:
        typer.echo(visible(line))


def _output_path(label: str, out: Path | None) -> Path:
    if not label:
        raise InputError("the concept's name is empty; name what the examples show")
    if out is None and Path(label).name != label:
        raise InputError(f"{label!r} cannot be a file's name; give a file with --out")
    path = Path(f"{label}{CONCEPT_SUFFIX}") if out is None else out
    if path.suffix != CONCEPT_SUFFIX:
        raise InputError(f"--out: {str(path)!r} must end in {CONCEPT_SUFFIX}")
    if path.is_dir():
        raise InputError(f"--out: {str(path)!r} is a folder; give a file")
    return path


def _check_free(option: str, path: Path) -> None:
    if path.exists():
        raise InputError(
            f"{option}: {str(path)!r} is there already; name another file, or replace it with "
            "--overwrite"
        )


def _describe(concept: Concept, size: int) -> list[str]:
    encoded = concept.encoded
    lines = [
        f"{encoded.label}: {count(len(encoded.shots), 'example')} by {encoded.model_id}, "
        f"{size / 1e3:.0f} kB, written by promptseg {concept.version}"
    ]
    for i, shot in enumerate(encoded.shots, start=1):
        height, width = shot.picture.image_size
        rows, columns = shot.features.grid_size
        lines.append(
            f"  {i}: {width} x {height} pixels, {columns} x {rows} cells"
            f"{'' if shot.whole is None else ' of a part of it'}, "
            f"{float(shot.coverage.mean()):.1%} of them the object"
        )
    return lines


def _write_preview(path: Path, previews: tuple[UInt8Array, ...]) -> None:
    import io

    from PIL import Image

    from ...pipeline.files import write_whole

    if not previews:
        raise InputError("this concept file has no preview")
    width = sum(picture.shape[1] for picture in previews)
    sheet = Image.new("RGB", (width, max(picture.shape[0] for picture in previews)))
    x = 0
    for picture in previews:
        sheet.paste(Image.fromarray(picture), (x, 0))
        x += picture.shape[1]
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    write_whole(path, stream.getvalue())
