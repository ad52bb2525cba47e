"""Annotated photographs in the ``index.jsonl`` layout, which training and evaluation read.

A data folder holds ``index.jsonl``, one JSON object per line::

    {"image": "images/a.webp", "mask": "masks/a.png", "source": "voc", "split": "train",
     "licence": "...", "regions": [{"label": "dog", "ids": [12], "instances": false}, ...]}

The mask is a PNG of uint8 region ids; 0 is background or unlabelled, 255 is void and counts
neither for nor against a prediction. A region is the union of its ids. With ``instances`` each
id is an object of its own, unless an id also belongs to another region: then the region is one
object made of parts (a person made of garments).
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...models.errors import InputError
from ...models.foreign import decode_json, read_regular
from .pictures import Collection, Skipped, Target, Truth, check_masks

VOID = 255
_LARGEST_INDEX = 2**30
_LARGEST_MASK = 2**28
# Of formats that keep every value.
_MASK_FORMATS = ("PNG", "BMP", "GIF", "PPM", "TIFF")

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
_FilePath = Annotated[str, msgspec.Meta(min_length=1, max_length=4000, pattern=r"\A[^\0]+\Z")]
_Id = Annotated[int, msgspec.Meta(ge=0, le=255)]


class _RegionEntry(msgspec.Struct):
    """A region as a line has it."""

    label: _Name
    ids: Annotated[list[_Id], msgspec.Meta(max_length=256)]
    instances: bool | int
    thing: bool | int | None = None


class _Line(msgspec.Struct):
    """A line of the index."""

    image: _FilePath
    mask: _FilePath
    source: _Name
    split: _Name
    regions: Annotated[list[_RegionEntry], msgspec.Meta(max_length=1000)]


@dataclass(frozen=True)
class Region:
    """A labelled part of a picture.

    Attributes:
        label: Class name.
        ids: Values in the mask file.
        instances: Each id is one object.
        thing: False for stuff such as sky and grass, True for things, None if unknown.
    """

    label: str
    ids: tuple[int, ...]
    instances: bool
    thing: bool | None


@dataclass(frozen=True)
class Sample:
    """One picture with its regions."""

    image_path: Path
    mask_path: Path
    source: str
    split: str
    regions: tuple[Region, ...]

    @property
    def name(self) -> str:
        """Source and file name, unique in a data folder."""
        return f"{self.source}/{self.image_path.stem}"

    @property
    def size(self) -> None:
        """The index does not say; the mask file does."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The photograph and the mask file."""
        return self.image_path, self.mask_path

    @property
    def labels(self) -> frozenset[str]:
        """All labels of its regions, stuff and small things included."""
        return frozenset(region.label for region in self.regions)

    def load_ids(self) -> NDArray[np.uint8]:
        """The mask file, (H, W) uint8.

        Raises:
            InputError: It cannot be read, or does not hold one byte per pixel.
        """
        name = f"the mask {str(self.mask_path)!r}"
        content = read_regular(self.mask_path, name, limit=_LARGEST_MASK)
        try:
            with Image.open(io.BytesIO(content), formats=_MASK_FORMATS) as mask:
                ids = np.asarray(mask)
        except MemoryError:
            raise
        except Exception as error:  # a decoder may raise anything on damaged data
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{name} cannot be read: {reason}") from error
        if ids.dtype != np.uint8 or ids.ndim != 2:
            raise InputError(
                f"{name} must hold uint8 ids of shape (H, W), not {ids.dtype} of shape {ids.shape}"
            )
        return ids

    def load_truth(self) -> Truth:
        """Read the masks; see :class:`~promptseg.apps.evaluation.pictures.Truth`."""
        ids = self.load_ids()
        classes: dict[str, set[int]] = defaultdict(set)
        for region in self.regions:
            if region.thing is not False:
                classes[region.label].update(region.ids)
        objects = self.objects()
        check_masks(self.name, (ids.shape[0], ids.shape[1]), len(objects) + len(classes))
        return Truth(
            valid=ids != VOID,
            objects=tuple(Target(label, np.isin(ids, i), single) for label, i, single in objects),
            classes=tuple(Target(label, np.isin(ids, list(i))) for label, i in classes.items()),
        )

    def objects(self) -> list[tuple[str, tuple[int, ...], bool]]:
        """What a box or a click can mean: labels, ids, and whether that is surely one object."""
        uses = Counter(i for region in self.regions for i in region.ids)
        found: list[tuple[str, tuple[int, ...], bool]] = []
        for region in self.regions:
            if region.instances and all(uses[i] == 1 for i in region.ids):
                found += [(region.label, (i,), True) for i in region.ids]
            else:
                found.append((region.label, region.ids, region.instances))
        return found


def read_index(folder: str | Path, split: str | None = None) -> list[Sample]:
    """Read the samples of a data folder, of one split or of all.

    Raises:
        InputError: There is no readable index, a line of it is wrong, or there is no sample of
            that split.
    """
    path = Path(folder) / "index.jsonl"
    return _of_split(_read_all(path), split, path)


def read_index_collection(folder: str | Path, split: str) -> Collection:
    """Read the samples of one split, with the labels of all of them; wrong lines are skipped.

    Raises:
        InputError: There is no readable index, no line that can be read, or no sample of that
            split.
    """
    path = Path(folder) / "index.jsonl"
    skipped = Skipped()
    samples = _read_all(path, skipped)
    chosen = tuple(_of_split(samples, split, path))
    return Collection(chosen, _vocabulary(samples), skipped=skipped)


def _read_all(path: Path, skipped: Skipped | None = None) -> list[Sample]:
    """Read all lines; a wrong one is skipped where there is something to count it."""
    if not path.exists():
        raise InputError(f"{path.parent} has no index.jsonl; give a data folder")
    content = read_regular(path, repr(str(path)), limit=_LARGEST_INDEX)
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    samples = []
    first: InputError | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            samples.append(_read_line(path, number, line))
        except InputError as error:
            if skipped is None:
                raise
            first = first or error
            skipped.add(error)
    if first is not None and not samples:
        raise first
    return samples


def _of_split(samples: list[Sample], split: str | None, path: Path) -> list[Sample]:
    chosen = [sample for sample in samples if split in (None, sample.split)]
    if not chosen:
        splits = ", ".join(sorted({sample.split for sample in samples}))
        there = f"there are {splits}" if splits else "the index is empty"
        raise InputError(f"{path}: no sample of split {split!r}; {there}")
    return chosen


def _vocabulary(samples: Iterable[Sample]) -> dict[str, tuple[str, ...]]:
    """Labels of things, or of what may be a thing, by source."""
    labels: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        labels[sample.source] |= {r.label for r in sample.regions if r.thing is not False}
    return {source: tuple(sorted(names)) for source, names in labels.items()}


def _read_line(path: Path, number: int, line: str) -> Sample:
    row = decode_json(line, _Line, f"{path}, line {number}")
    regions = tuple(
        Region(r.label, tuple(r.ids), bool(r.instances), None if r.thing is None else bool(r.thing))
        for r in row.regions
    )
    image, mask = (path.parent / name for name in (row.image, row.mask))
    return Sample(image, mask, row.source, row.split, regions)
