"""Options that show an object: images, each with a mask, a box or a point that marks it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ...models.errors import InputError
from ..wording import count
from .query_options import read_box, read_click

if TYPE_CHECKING:
    from ...pipeline.pipeline import Pipeline
    from ...pipeline.prompters.reference.examples import EncodedReference, Reference

References = Annotated[
    list[str] | None,
    typer.Option(
        "--reference",
        metavar="IMAGE",
        help="An image that shows what to look for; repeat it for more examples. Each needs a "
        "mask, a box or a point, in the same order.",
    ),
]
ReferenceMasks = Annotated[
    list[str] | None,
    typer.Option("--reference-mask", metavar="PNG", help="Mask of the object in a reference."),
]
ReferenceBoxes = Annotated[
    list[str] | None,
    typer.Option("--reference-box", metavar="X0,Y0,X1,Y1", help="Or a box around it."),
]
ReferencePoints = Annotated[
    list[str] | None,
    typer.Option("--reference-point", metavar="X,Y", help="Or a point on it."),
]
ReferenceLabels = Annotated[
    list[str] | None,
    typer.Option(
        "--reference-label",
        metavar="NAME",
        help="What its masks are called: one name for all, or one each.",
    ),
]
NegativeReferences = Annotated[
    list[str] | None,
    typer.Option("--negative-reference", metavar="IMAGE", help="An image of what it must not be."),
]
NegativeReferenceMasks = Annotated[
    list[str] | None,
    typer.Option("--negative-reference-mask", metavar="PNG", help="Mask of it."),
]
NegativeReferenceBoxes = Annotated[
    list[str] | None,
    typer.Option("--negative-reference-box", metavar="X0,Y0,X1,Y1", help="Or a box around it."),
]
NegativeReferencePoints = Annotated[
    list[str] | None,
    typer.Option("--negative-reference-point", metavar="X,Y", help="Or a point on it."),
]
Concepts = Annotated[
    list[str] | None,
    typer.Option(
        "--concept",
        metavar="NAME|FILE",
        help="A concept saved by `promptseg concept save`: its file or its name.",
    ),
]

CONCEPT_SUFFIX = ".safetensors"
_ORDER = "promptseg.option_order"


class OrderedCommand(TyperCommand):
    """A command that knows in which order its options were given, across different options."""

    # The context is click's; some versions of typer bring their own click.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and keep the names of the parameters in order, one per value."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


@dataclass(frozen=True)
class Example:
    """An image and the object on it, marked by exactly one of mask, box and point.

    Attributes:
        image: Path of the image.
        label: What its masks are called; None for the default.
        mask: Path of the mask.
        box: XYXY in pixels.
        point: (x, y) in pixels.
    """

    image: str
    label: str | None = None
    mask: str | None = None
    box: tuple[float, float, float, float] | None = None
    point: tuple[float, float] | None = None

    def load(self) -> Reference:
        """Read the image and the mask.

        Raises:
            InputError: They cannot be read or do not fit together; the message names the image.
        """
        from ...pipeline.prompters.reference.examples import LABEL, Reference

        try:
            return Reference(
                self.image,
                None if self.mask is None else Path(self.mask),
                box=self.box,
                point=self.point,
                label=LABEL if self.label is None else self.label,
            )
        except InputError as error:
            if repr(self.image) in str(error):
                raise
            raise InputError(f"the reference {self.image!r}: {error}") from error


@dataclass(frozen=True)
class RegionOptions:
    """Names of the options that belong together, as on the command line.

    Attributes:
        image: Such as "--reference".
        mask: Such as "--reference-mask".
        box: Such as "--reference-box".
        point: Such as "--reference-point".
    """

    image: str
    mask: str
    box: str
    point: str


REFERENCE = RegionOptions("--reference", "--reference-mask", "--reference-box", "--reference-point")
NEGATIVE_REFERENCE = RegionOptions(
    "--negative-reference",
    "--negative-reference-mask",
    "--negative-reference-box",
    "--negative-reference-point",
)
CONCEPT = RegionOptions("--reference", "--mask", "--box", "--point")


def read_examples(
    ctx: typer.Context,
    options: RegionOptions,
    images: Sequence[str] | None,
    masks: Sequence[str] | None,
    boxes: Sequence[str] | None,
    points: Sequence[str] | None,
    labels: Sequence[str] | None = None,
) -> tuple[Example, ...]:
    """Pair images with regions in the order given, whatever the kind of region.

    Args:
        ctx: Context of an ``OrderedCommand``.
        options: Names of the options; each parameter is named like its option.
        images: Values of the first option, as given.
        masks: Values of the second.
        boxes: Values of the third.
        points: Values of the fourth.
        labels: One for all, or one for each image.

    Raises:
        InputError: The numbers of regions and images differ, or a region cannot be read.
    """
    given = {options.mask: masks, options.box: boxes, options.point: points}
    regions = list(_in_order(ctx.meta[_ORDER], given))
    number = len(images or ())
    if len(regions) != number:
        raise InputError(
            f"{options.image}: {count(number, 'image')} and {count(len(regions), 'region')}; give "
            f"each image one {options.mask}, {options.box} or {options.point}, in the same order"
        )
    names: Sequence[str | None] = [None] if not labels else list(labels)
    if len(names) not in (1, number):
        raise InputError(
            f"{options.image}-label: {count(len(names), 'label')} for {count(number, 'image')}; "
            "give one for all or one for each"
        )
    if len(names) == 1:
        names = list(names) * number
    examples = []
    for image, label, (option, value) in zip(images or (), names, regions, strict=True):
        if option == options.mask:
            examples.append(Example(image, label, mask=value))
        elif option == options.box:
            examples.append(Example(image, label, box=read_box(option, value)))
        else:
            examples.append(Example(image, label, point=read_click(option, value)))
    return tuple(examples)


def encode_examples(
    pipeline: Pipeline, references: Sequence[Reference]
) -> tuple[EncodedReference, ...]:
    """Encode references, those of one label together, once for all images.

    Raises:
        InputError: A box or a point shows no object, or the pipeline takes no references.
    """
    by_label: dict[str, list[Reference]] = {}
    for reference in references:
        by_label.setdefault(reference.label, []).append(reference)
    return tuple(pipeline.encode_reference(group) for group in by_label.values())


def concept_path(name: str) -> Path:
    """Path of a concept's file: as given, or NAME.safetensors for a bare name."""
    bare = Path(name).name == name and not name.endswith(CONCEPT_SUFFIX)
    return Path(f"{name}{CONCEPT_SUFFIX}" if bare else name)


def _in_order(
    order: Sequence[str | None], given: Mapping[str, Sequence[str] | None]
) -> Iterator[tuple[str, str]]:
    """Yield these options with their values in the order they were given."""
    parameters = {name.lstrip("-").replace("-", "_"): name for name in given}
    values = {name: iter(given[name] or ()) for name in given}
    for parameter in order:
        option = parameters.get(parameter or "")
        if option is not None:
            yield option, next(values[option])
