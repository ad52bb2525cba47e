"""Photographs with region masks: the ``index.jsonl`` layout that training and evaluation read.

A data folder holds ``index.jsonl``, one JSON object a line::

    {"image": "images/a.webp", "mask": "masks/a.png", "source": "voc", "split": "train",
     "licence": "...", "regions": [{"label": "dog", "ids": [12], "instances": false}, ...]}

The mask is a PNG of uint8 region ids; 0 is background or unlabelled, 255 is void and counts
neither for nor against a prediction. A region is the union of its ids. With ``instances`` each
id is one object of its own, unless an id also belongs to another region: then the region is one
object made of parts (a person of garments).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..models.errors import InputError

VOID = 255


@dataclass(frozen=True)
class Region:
    """A labelled part of a picture.

    Attributes:
        label: Class name.
        ids: Values in the mask file.
        instances: Each id is one object.
        thing: False for stuff such as sky and grass, True for things, None where unknown.
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

    def load_ids(self) -> NDArray[np.uint8]:
        """The mask file, (H, W) uint8."""
        with Image.open(self.mask_path) as mask:
            return np.asarray(mask)

    def objects(self) -> list[tuple[str, tuple[int, ...]]]:
        """What a box or a click can mean: labels with the ids of one object or class region."""
        uses = Counter(i for region in self.regions for i in region.ids)
        found: list[tuple[str, tuple[int, ...]]] = []
        for region in self.regions:
            if region.instances and all(uses[i] == 1 for i in region.ids):
                found += [(region.label, (i,)) for i in region.ids]
            else:
                found.append((region.label, region.ids))
        return found


def read_index(folder: str | Path, split: str | None = None) -> list[Sample]:
    """Read the samples of a data folder, of one split or of all.

    Raises:
        InputError: There is no readable index, or no sample of that split.
    """
    folder = Path(folder)
    path = folder / "index.jsonl"
    if not path.is_file():
        raise InputError(f"{folder}: expected a data folder with index.jsonl, found none")
    samples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            regions = tuple(
                Region(r["label"], tuple(r["ids"]), bool(r["instances"]), r.get("thing"))
                for r in row["regions"]
            )
            sample = Sample(
                folder / row["image"], folder / row["mask"], row["source"], row["split"], regions
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}, line {number}: not a sample of the layout: {error!r}"
            ) from error
        if split in (None, sample.split):
            samples.append(sample)
    if not samples:
        raise InputError(f"{path}: no sample of split {split!r}")
    return samples
