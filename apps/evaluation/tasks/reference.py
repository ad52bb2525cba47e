"""References: a class shown on one picture, to be found on another."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ....models.errors import InputError
from ....pipeline.checks import UInt8Array
from ....pipeline.pipeline import Pipeline
from ....pipeline.prompters.reference.examples import EncodedReference, Reference
from ..metrics import balanced_weights, boundary_f, mask_iou, matthews
from ..pictures import BoolMask, Collection, Picture, Truth, large
from ..siblings import may_name_the_same
from .base import Row, Settings, Shown, Task, lowest_iou, mean, open_picture, union

# References per query, whose masks are in memory together; examples whose features are cached.
_AT_ONCE = 16
_KEPT = 256


@dataclass(frozen=True)
class Example:
    """A class on a picture."""

    picture: str
    label: str


@dataclass(frozen=True)
class Pair:
    """Examples of one class on one or more pictures, to be found on a target picture or not.

    Attributes:
        examples: The examples; the first ones do not depend on how many are asked for.
        present: Whether the target picture has the class.
    """

    examples: tuple[Example, ...]
    present: bool

    @property
    def label(self) -> str:
        """The class."""
        return self.examples[0].label


class ReferenceTask(Task):
    """One row per pair of pictures: all ordered pairs of a class within a source, or some of them.

    Each target gets as many pairs with an example of a class that it lacks, drawn from the same
    source. With several examples per pair, further ones are added to the pair's first.

    Attributes:
        pairs: The pairs by the target's name; targets whose masks cannot be read have none.

    Raises:
        InputError: The pipeline takes no references.
    """

    name: ClassVar[str] = "reference"

    def __init__(self, pipe: Pipeline, collection: Collection, settings: Settings) -> None:
        super().__init__(pipe, collection, settings)
        if pipe.reference_prompter is None:
            raise InputError("this pipeline has no reference prompter to measure")
        self.pictures: Mapping[str, Picture] = {p.name: p for p in collection.pictures}
        self.pairs = _make_pairs(collection.pictures, settings.pairs, settings.shots)
        self._encoded: dict[Example, EncodedReference] = {}
        self._readable: dict[str, bool] = {}

    def measure(self, picture: Picture) -> list[Row]:
        """Look on a picture for everything that it is paired with and that can be read."""
        pairs = self.pairs.get(picture.name, [])
        if picture.name in self.pairs and not pairs:
            return []
        image, truth = open_picture(picture)
        pairs = [p for p in pairs if all(self._opens(item.picture) for item in p.examples)]
        masks = self._find(image, [pair.examples for pair in pairs])
        return [judge(pair, found, truth) for pair, found in zip(pairs, masks, strict=True)]

    def encode(self, examples: Sequence[Example]) -> EncodedReference:
        """One reference made of all examples; each example is encoded once."""
        first, *further = [self._encode(item) for item in examples]
        shots = (*first.shots, *(shot for item in further for shot in item.shots))
        return replace(first, shots=shots)

    def _find(self, image: UInt8Array, asked: Sequence[tuple[Example, ...]]) -> list[BoolMask]:
        """Masks (N, H, W) for each pair's examples; those of different labels stay separate."""
        masks: list[BoolMask] = []
        for start in range(0, len(asked), _AT_ONCE):
            references = [self.encode(examples) for examples in asked[start : start + _AT_ONCE]]
            found = self.pipe(image, reference=references)
            labels = np.array(found.labels, object)
            masks += [found.masks[labels == item.label] for item in references]
        return masks

    def _encode(self, example: Example) -> EncodedReference:
        """The example's features, cached for the next targets."""
        encoded = self._encoded.pop(example, None)
        if encoded is None:
            image, mask = self._read(example)
            label = f"{example.picture} {example.label}"
            encoded = self.pipe.encode_reference(Reference(image, mask, label=label))
        self._encoded[example] = encoded  # the last one used is the last in the dict
        if len(self._encoded) > _KEPT:
            del self._encoded[next(iter(self._encoded))]
        return encoded

    def _opens(self, name: str) -> bool:
        """Whether a picture can be read; each is tried once."""
        if name not in self._readable:
            try:
                open_picture(self.pictures[name])
                self._readable[name] = True
            except InputError:
                self._readable[name] = False
        return self._readable[name]

    def _read(self, example: Example) -> tuple[UInt8Array, BoolMask]:
        image, truth = open_picture(self.pictures[example.picture])
        return image, next(t.mask for t in truth.classes if t.label == example.label)

    def depends_on(self) -> dict[str, str]:
        """The pairs, which depend on all pictures."""
        listed = [
            [target, [item.picture for item in pair.examples], pair.label, pair.present]
            for target, pairs in self.pairs.items()
            for pair in pairs
        ]
        return {"pairs": hashlib.sha256(json.dumps(listed).encode()).hexdigest()}

    def figures(self, rows: Sequence[Row]) -> dict[str, float]:
        """Figures of the masks where the class is present, and of the decisions."""
        present = [row for row in rows if row["present"]]
        absent = [row for row in rows if not row["present"]]
        figures: dict[str, float] = {}
        if present:
            by_class: dict[tuple[str, str], list[float]] = defaultdict(list)
            for row in present:
                by_class[row["source"], row["label"]].append(row["iou"])
            figures |= {
                "pairs": len(present),
                "mIoU": mean(row["iou"] for row in present),
                "mIoU of classes": mean(mean(ious) for ious in by_class.values()),
                "boundary F": mean(row["boundary"] for row in present),
                "found if present": mean(row["found"] for row in present),
            }
        if absent:
            figures["absent"] = len(absent)
            figures["empty if absent"] = mean(not row["found"] for row in absent)
        if present and absent:
            both = [*present, *absent]
            truth = [row["present"] for row in both]
            decisions = [row["found"] for row in both]
            figures["IL_MCC"] = matthews(truth, decisions, balanced_weights(truth))
        return figures

    def worst(self, rows: Sequence[Row], count: int) -> list[Row]:
        """Half of them classes that were missed, half classes that were found though absent."""
        false = [row for row in rows if not row["present"] and row["found"]]
        missed = lowest_iou((row for row in rows if row["present"]), count)
        taken = min(len(false), max(count - len(missed), count // 2))
        return missed[: count - taken] + false[:taken]

    def show(self, picture: Picture, rows: Sequence[Row]) -> list[Shown]:
        """Find what these rows' references show again."""
        image, truth = open_picture(picture)
        classes = {target.label: target.mask for target in truth.classes}
        asked = [tuple(Example(name, row["label"]) for name in row["references"]) for row in rows]
        shown = []
        for row, examples, masks in zip(rows, asked, self._find(image, asked), strict=True):
            label, found = row["label"], union(masks)
            if row["present"]:
                outcome = f"IoU {row['iou']:.2f}" if row["found"] else "not found"
                caption, target = f"{label}  {outcome}", classes[label]
            else:
                caption, target = f"{label} is absent", None
            shown.append(Shown(caption, image, found, target, example=self._read(examples[0])))
        return shown


def judge(pair: Pair, masks: BoolMask, truth: Truth) -> Row:
    """The row of a pair.

    Args:
        pair: What was asked.
        masks: (N, H, W), what was found; N may be 0.
        truth: True masks of the target.
    """
    row: Row = {
        "label": pair.label,
        "references": [item.picture for item in pair.examples],
        "present": pair.present,
        "found": len(masks) > 0,
    }
    if pair.present:
        target = next(item for item in truth.classes if item.label == pair.label)
        joined = union(masks)
        row["area"] = target.area
        row["iou"] = mask_iou(joined, target.mask, truth.valid)
        row["boundary"] = boundary_f(joined, target.mask, truth.valid)
    return row


def _make_pairs(pictures: Iterable[Picture], most: int | None, shots: int) -> dict[str, list[Pair]]:
    """Pairs by target: those of each class, and as many of classes that the target lacks.

    Args:
        pictures: All pictures.
        most: At most this many pairs per class; None for all.
        shots: Examples per pair, or as many as the class has on pictures other than the target.
    """
    shows: dict[str, dict[str, list[str]]] = defaultdict(dict)  # source -> label -> pictures
    examples: dict[str, dict[str, list[str]]] = defaultdict(dict)
    readable = []
    for picture in pictures:
        try:
            classes = large(picture.load_truth().classes)
        except InputError:
            continue  # measuring it says why
        readable.append(picture)
        for region in classes:
            shows[picture.source].setdefault(region.label, []).append(picture.name)
            if not region.mask.all():  # else there is no background to tell it from
                examples[picture.source].setdefault(region.label, []).append(picture.name)
    pairs: dict[str, list[Pair]] = {picture.name: [] for picture in readable}
    for source, by_label in examples.items():
        for label, names in sorted(by_label.items()):
            drawn = _draw_ordered(names, shows[source][label], most, f"{source}/{label}")
            for name, target in drawn:
                chosen = _draw_further(name, names, target, shots)
                pairs[target].append(Pair(tuple(Example(n, label) for n in chosen), present=True))
    for picture in readable:
        found = pairs[picture.name]
        by_label = examples[picture.source]
        lacking = sorted(
            label
            for label in by_label
            if not any(may_name_the_same(label, name) for name in picture.labels)
        )
        if lacking:
            rng = np.random.default_rng(list(picture.name.encode()))
            drawn = [_draw_absent(by_label, lacking, rng) for _ in range(len(found))]
            for name, label in drawn:
                chosen = _draw_further(name, by_label[label], picture.name, shots)
                found.append(Pair(tuple(Example(n, label) for n in chosen), present=False))
    return pairs


def _draw_ordered(
    names: Sequence[str], targets: Sequence[str], most: int | None, seed: str
) -> list[tuple[str, str]]:
    """All pairs of an example and another picture, or a reproducible draw of them."""
    count = len(names) * len(targets)
    if most is None or most >= count:
        numbers = np.arange(count)
    else:
        # A few more, because pairs of a picture with itself are dropped.
        rng = np.random.default_rng(list(seed.encode()))
        numbers = rng.choice(count, min(count, most + len(names)), replace=False)
    pairs = [(names[i // len(targets)], targets[i % len(targets)]) for i in numbers]
    return sorted([pair for pair in pairs if pair[0] != pair[1]][:most])


def _draw_absent(
    by_label: Mapping[str, Sequence[str]], lacking: Sequence[str], rng: np.random.Generator
) -> tuple[str, str]:
    """A picture and the class that it is an example of."""
    label = str(rng.choice(lacking))
    return str(rng.choice(by_label[label])), label


def _draw_further(first: str, names: Sequence[str], target: str, count: int) -> list[str]:
    """An example's picture and further ones, drawn reproducibly: `count` if there are as many."""
    others = [name for name in names if name not in (first, target)]
    rng = np.random.default_rng(list(f"{first} {target}".encode()))
    return [first, *(others[i] for i in rng.permutation(len(others))[: count - 1])]
