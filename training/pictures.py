"""The training pictures: their regions, their objects one by one, and words without masks.

Beside what ``promptseg.apps.evaluation.index_folder`` reads, a region may have ``boxes_xyxy``, one
box an object, by which a class region is split into objects. ``weak.jsonl`` beside the index lists
pictures without masks: their words, and boxes for some.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptseg.apps.evaluation.index_folder import VOID, Region, Sample, read_index
from promptseg.pipeline.images import load_image

Box = tuple[float, float, float, float]
MIN_OWN_SHARE = 0.3  # of a box's part of a region that must be the box's alone


@dataclass(frozen=True)
class Entry:
    """A picture of the data folder.

    Attributes:
        sample: Files, source and regions. A picture without masks has no regions.
        boxes: For each region its objects' boxes XYXY in pixels, where they are known.
        words: What a picture without masks shows, each with its boxes; () where none is known.
    """

    sample: Sample
    boxes: tuple[tuple[Box, ...], ...]
    words: tuple[tuple[str, tuple[Box, ...]], ...] = ()

    @property
    def weak(self) -> bool:
        """There are words, but no masks."""
        return bool(self.words)


@dataclass(frozen=True)
class Thing:
    """What a prompt may mean.

    Attributes:
        label: As in the data.
        ids: Values in the mask that are it.
        doubtful: Values that may be it as well as another object of its region.
        single: It is one object, not a region in which several may have merged.
    """

    label: str
    ids: tuple[int, ...]
    doubtful: tuple[int, ...]
    single: bool


@dataclass(frozen=True, eq=False)
class Picture:
    """A loaded picture.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        ids: (H, W) uint8; 0 is unlabelled, 255 void. Where boxes split a region, its objects have
            ids of their own.
        regions: Labels with all their ids.
        things: What prompts may mean.
    """

    pixels: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    regions: tuple[tuple[str, tuple[int, ...]], ...]
    things: tuple[Thing, ...]


def read_entries(folder: Path, split: str) -> list[Entry]:
    """All pictures of a split with masks, in the order of the index."""
    samples = read_index(folder, split)
    lines = (folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == split]
    return [
        Entry(sample, tuple(_boxes(region.get("boxes_xyxy", [])) for region in row["regions"]))
        for sample, row in zip(samples, rows, strict=True)
    ]


def read_weak(folder: Path, split: str) -> list[Entry]:
    """All pictures of a split without masks; none if there is no ``weak.jsonl``."""
    path = folder / "weak.jsonl"
    if not path.is_file():
        return []
    entries = []
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        if row["split"] != split:
            continue
        image = folder / row["image"]
        boxes = row.get("boxes", [])
        words = tuple(
            (word, _boxes([b["box_xyxy"] for b in boxes if b["label"] == word]))
            for word in row["words"]
        )
        entries.append(Entry(Sample(image, image, row["source"], split, ()), (), words))
    return entries


def _boxes(rows: list[list[Any]]) -> tuple[Box, ...]:
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in rows)


def load_picture(entry: Entry) -> Picture:
    """Read the files of an entry and split its regions into objects."""
    pixels = load_image(entry.sample.image_path)
    if entry.weak:
        return Picture(pixels, np.zeros(pixels.shape[:2], np.uint8), (), ())
    ids = entry.sample.load_ids().copy()
    used = {i for region in entry.sample.regions for i in region.ids}
    free = iter([i for i in range(1, VOID) if i not in used])
    uses = Counter(i for region in entry.sample.regions for i in region.ids)
    regions: list[tuple[str, tuple[int, ...]]] = []
    things: list[Thing] = []
    for region, boxes in zip(entry.sample.regions, entry.boxes, strict=True):
        found, all_ids = _things_of(region, boxes, ids, uses, free)
        things += found
        regions.append((region.label, all_ids))
    return Picture(pixels, ids, tuple(regions), tuple(things))


def _things_of(
    region: Region,
    boxes: tuple[Box, ...],
    ids: NDArray[np.uint8],
    uses: Counter[int],
    free: Any,
) -> tuple[list[Thing], tuple[int, ...]]:
    """The objects of a region, and all its ids; writes the ids of those that boxes split off."""
    label, own = region.label, region.ids
    alone = all(uses[i] == 1 for i in own)
    if region.instances and alone:
        return [Thing(label, (i,), (), True) for i in own], own
    if region.instances or len(boxes) == 1:
        return [Thing(label, own, (), True)], own
    if not boxes or not alone:
        return [Thing(label, own, (), False)], own
    inside = np.isin(ids, own)
    cover = np.zeros(ids.shape, np.uint8)
    for box in boxes:
        cover[_slices(box, ids.shape)] += 1
    numbers: list[int] = []
    for box in boxes:
        part = np.zeros_like(inside)
        part[_slices(box, ids.shape)] = True
        part &= inside
        alone_part = part & (cover == 1)
        number = next(free, None)
        if number is None or alone_part.sum() < MIN_OWN_SHARE * max(1, part.sum()):
            continue
        ids[alone_part] = number
        numbers.append(number)
    # What is left of the region lies in several boxes or in none: it may be any object's.
    things = [Thing(label, (number,), own, True) for number in numbers]
    return things or [Thing(label, own, (), False)], (*own, *numbers)


def _slices(box: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    x0, y0, x1, y1 = box
    return (
        slice(max(0, round(y0)), min(shape[0], round(y1) + 1)),
        slice(max(0, round(x0)), min(shape[1], round(x1) + 1)),
    )
