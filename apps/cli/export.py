"""`promptseg export`: a SAM as ONNX or OpenVINO models, checked against torch before it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ... import __version__
from ...models.errors import InputError, PromptsegError
from ..console import EXIT_FAILED, Bar, describe_error, exit_code, say_error, visible
from ..wording import count, describe_size

if TYPE_CHECKING:
    from ...models.exported.manifest import Format
    from ...models.sam.sam import Sam
    from ...pipeline.checks import UInt8Array
    from ...pipeline.decoding.compare import Agreement

# Pictures that come with the package: they show int8 the range of its numbers, and are compared.
_PICTURES = Path(__file__).resolve().parents[1] / "web" / "examples"

_NAMES = {"onnx": "onnxruntime", "openvino": "OpenVINO"}


class ExportError(PromptsegError):
    """What was exported does not answer as the model does."""


def export_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="sam_pocket, sam_vit_t or sam_vit_b.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")],
    format: Annotated[
        str, typer.Option("--format", metavar="NAME", help="onnx or openvino.")
    ] = "onnx",
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Let the image encoder compute in 8-bit integers."),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="Weights of the model. Default: those of `promptseg models fetch`; pocket's are "
            "installed.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an export that is in --out.")
    ] = False,
) -> None:
    """Write a model's encoder and decoder for onnxruntime or OpenVINO, and check them."""
    try:
        _export(model, out, format, int8, checkpoint, overwrite)
    except (PromptsegError, OSError, RuntimeError, MemoryError) as error:
        say_error(Console(stderr=True), describe_error(error))
        failed = isinstance(error, ExportError)
        raise typer.Exit(EXIT_FAILED if failed else exit_code(error)) from error


def _export(
    name: str, out: Path, format: str, int8: bool, checkpoint: Path | None, overwrite: bool
) -> None:
    from ...models.exported.export import export_sam
    from ...models.exported.manifest import FILES, FORMATS, MANIFEST_FILE
    from ...models.exported.runtimes import require
    from ...pipeline.files import new_files
    from ...pipeline.images import load_image
    from ...pipeline.presets.masks import load_sam

    known = {item: item for item in FORMATS}
    if format not in known:
        raise InputError(f"there is no format {format!r}; use {' or '.join(FORMATS)}")
    files = (*FILES[known[format]], MANIFEST_FILE)
    _check_place(out, files, overwrite, checkpoint)
    require("onnx", "onnxscript", "onnxruntime", "openvino")
    sam = load_sam(name, checkpoint)
    pictures = [load_image(path) for path in sorted(_PICTURES.glob("*.jpg"))]
    steps = 2 + int8 + (format == "openvino") + 1
    with new_files(out, files) as staging, Bar(steps, Console(stderr=True), "exporting") as bar:
        bar.show()
        export_sam(
            sam,
            staging,
            format=known[format],
            int8=int8,
            pictures=pictures,
            version=__version__,
            tell=lambda step: bar.advance(),
        )
        bar.advance()
        lines = _check(sam, staging, known[format], int8, pictures)
        sizes = [(staging / file).stat().st_size for file in files]
    typer.echo(
        visible(f"{name}: {count(len(files), 'file')}, {describe_size(sum(sizes))}, in {out}")
    )
    for line in lines:
        typer.echo(line)


def _check_place(out: Path, files: Sequence[str], overwrite: bool, checkpoint: Path | None) -> None:
    """Refuse to write over what is there.

    Raises:
        InputError: The folder is a file, has files and is not to be overwritten, or has the
            checkpoint under a name that would be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {str(out)!r} is not a folder; give another one")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"--out: {str(out)!r} has files already; give a new folder, or --overwrite to replace "
            "an export there"
        )
    if checkpoint is not None and checkpoint.exists():
        for path in (out / name for name in files):
            if path.exists() and path.samefile(checkpoint):
                raise InputError(
                    f"{str(checkpoint)!r} is an input, and the export would write over it; give "
                    "another --out"
                )


def _check(
    sam: Sam, folder: Path, format: Format, int8: bool, pictures: Sequence[UInt8Array]
) -> list[str]:
    """Compare what was exported with the model, in each runtime that reads it.

    Returns:
        A line for each runtime.

    Raises:
        ExportError: A float32 export differs.
    """
    from ...models.exported.manifest import RUNTIMES
    from ...models.exported.sam import load_exported
    from ...pipeline.decoding.compare import compare_segmenters
    from ...pipeline.decoding.segmenter import Segmenter

    lines = []
    for runtime in RUNTIMES if format == "onnx" else ("openvino",):
        exported = Segmenter(load_exported(folder, runtime=runtime))
        found = compare_segmenters(Segmenter(sam, dtype="fp32"), exported, pictures)
        lines.append(_describe(found, runtime, "int8" if int8 else "float32"))
        if not int8 and not found.is_exact():
            raise ExportError(
                f"nothing was kept: what {_NAMES[runtime]} computes is not what torch does "
                f"({lines[-1]}); please report it with the versions of torch, onnx and the runtime"
            )
    return lines


def _describe(found: Agreement, runtime: str, precision: str) -> str:
    return (
        f"{_NAMES[runtime]}, {precision} beside torch: logits differ by up to {found.logits:.1g} "
        f"of {found.largest_logit:.0f}, predicted IoU by {found.iou_prediction:.1g}; IoU of "
        f"{count(found.masks, 'mask')} {found.mean_iou:.4f} on average, "
        f"{found.least_iou:.4f} at least"
    )
