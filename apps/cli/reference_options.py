"""Options that show an object: pictures, and the mask, box or click that says what is meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from ...models.errors import InputError
from .query_options import read_box, read_click

if TYPE_CHECKING:
    from ...pipeline.pipeline import Pipeline
    from ...pipeline.prompters.reference.examples import EncodedReference, Reference

CONCEPT_SUFFIX = ".safetensors"
_ORDER = "promptseg.option_order"


class OrderedCommand(TyperCommand):
    """A command that knows in which order its options were given, of unlike names too."""

    # The context is click's; some versions of typer bring their own click.
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and keep the names of the parameters in their order, one for each value."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


@dataclass(frozen=True)
class Example:
    """A picture and what is meant on it; just one of mask, box and point is given.

    Attributes:
        image: Path of the picture.
        label: What masks found by it are called; None for the default.
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
        """Read the picture and the mask.

        Raises:
            InputError: They cannot be read or do not fit together; the message names the picture.
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
    """Names of the options that go together, as on the command line.

    Attributes:
        picture: Such as "--reference".
        mask: Such as "--reference-mask".
        box: Such as "--reference-box".
        point: Such as "--reference-point".
    """

    picture: str
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
    pictures: Sequence[str] | None,
    masks: Sequence[str] | None,
    boxes: Sequence[str] | None,
    points: Sequence[str] | None,
    labels: Sequence[str] | None = None,
) -> tuple[Example, ...]:
    """Give the first picture the first region, whatever its kind, the second the second, ...

    Args:
        ctx: Of an ``OrderedCommand``.
        options: What the options are called; a parameter is called as its option is.
        pictures: Values of the first option, as given.
        masks: Of the second.
        boxes: Of the third.
        points: Of the fourth.
        labels: One for all, or one for each picture.

    Raises:
        InputError: There are not as many regions as pictures, or a region cannot be read.
    """
    given = {options.mask: masks, options.box: boxes, options.point: points}
    regions = list(_in_order(ctx.meta[_ORDER], given))
    count = len(pictures or ())
    if len(regions) != count:
        raise InputError(
            f"{options.picture}: {count} pictures and {len(regions)} regions; give each picture "
            f"one {options.mask}, {options.box} or {options.point}, in the same order"
        )
    names: Sequence[str | None] = [None] if not labels else list(labels)
    if len(names) not in (1, count):
        raise InputError(
            f"{options.picture}-label: {len(names)} labels for {count} pictures; give one for "
            "all or one for each"
        )
    if len(names) == 1:
        names = list(names) * count
    examples = []
    for image, label, (option, value) in zip(pictures or (), names, regions, strict=True):
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
    """File of a concept: the path itself, or of a bare name NAME.safetensors in this folder."""
    bare = Path(name).name == name and not name.endswith(CONCEPT_SUFFIX)
    return Path(f"{name}{CONCEPT_SUFFIX}" if bare else name)


def _in_order(
    order: Sequence[str | None], given: Mapping[str, Sequence[str] | None]
) -> Iterator[tuple[str, str]]:
    """Options and values as they were given, those of other options left out."""
    parameters = {name.lstrip("-").replace("-", "_"): name for name in given}
    values = {name: iter(given[name] or ()) for name in given}
    for parameter in order:
        option = parameters.get(parameter or "")
        if option is not None:
            yield option, next(values[option])
