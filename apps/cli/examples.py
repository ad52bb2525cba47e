"""The examples of a command: what to look for and what not, and files of concepts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from ...models.errors import InputError
from ...models.foreign import read_regular
from .reference_options import (
    NEGATIVE_REFERENCE,
    REFERENCE,
    Example,
    concept_path,
    read_examples,
)

# Largest file of an example or a concept whose content is compared by later runs.
_LARGEST_FILE = 2**32

Values = Sequence[str] | None


@dataclass(frozen=True)
class Examples:
    """Images that show what to look for and what not.

    Attributes:
        positive: What to look for.
        negative: What it must not be.
        concepts: Files of examples to look for.
    """

    positive: tuple[Example, ...] = ()
    negative: tuple[Example, ...] = ()
    concepts: tuple[Path, ...] = ()

    @property
    def wanted(self) -> tuple[object, ...]:
        """The examples and concepts of what to look for."""
        return (*self.positive, *self.concepts)

    def files(self) -> list[str]:
        """Return the files that are read."""
        examples = (*self.positive, *self.negative)
        read = [path for item in examples for path in (item.image, item.mask) if path is not None]
        return [*read, *map(str, self.concepts)]

    def describe(self) -> dict[str, object]:
        """Return all that results depend on, JSON-able: files by their content."""
        return {
            "references": [_describe_example(item) for item in self.positive],
            "negative references": [_describe_example(item) for item in self.negative],
            "concepts": [_digest(path) for path in self.concepts],
        }


def read_all_examples(
    ctx: typer.Context,
    positive: tuple[Values, Values, Values, Values, Values],
    negative: tuple[Values, Values, Values, Values],
    concepts: Values,
) -> Examples:
    """Read the values of all options that show something.

    Args:
        ctx: Context of an ``OrderedCommand``.
        positive: Images, masks, boxes, points and labels of what to look for.
        negative: Images, masks, boxes and points of what it must not be.
        concepts: Names or files.

    Raises:
        InputError: Values do not belong together, or a concept does not exist.
    """
    examples = Examples(
        positive=read_examples(ctx, REFERENCE, *positive),
        negative=read_examples(ctx, NEGATIVE_REFERENCE, *negative),
        concepts=tuple(concept_path(name) for name in dict.fromkeys(concepts or ())),
    )
    for path in examples.concepts:
        if not os.path.lexists(path):  # before torch, which reads it, is imported
            raise InputError(
                f"--concept: {str(path)!r} does not exist; promptseg concept save makes it"
            )
    return examples


def _describe_example(example: Example) -> dict[str, object]:
    mask = None if example.mask is None else _digest(Path(example.mask))
    return {**asdict(example), "image": _digest(Path(example.image)), "mask": mask}


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read, which is reported on use."""
    try:
        content = read_regular(path, str(path), limit=_LARGEST_FILE)
    except InputError:
        return ""
    return hashlib.sha256(content).hexdigest()
