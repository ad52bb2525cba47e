"""What the models should answer on a scene: objects and words on their grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scenes import VOID_ID, Layer, Scene
from torch import Tensor
from torch.nn import functional as F
from vocabulary import Vocabulary, concept_of, with_general

from promptseg.models.pocket.objects import STRIDE as OBJECT_STRIDE

CELL = 4  # pixels of a scene that a cell of the mask decoder's grid spans
_ON = 0.4  # share of a cell from which it is within an object's box
TEXT_STRIDE = 16
SEEN_SHARE = 0.35  # of an object that must be seen for its word to be there


@dataclass(frozen=True, eq=False)
class ObjectTarget:
    """An object as the mask decoder should give it.

    Attributes:
        concept: Its word.
        mask: Share of each cell that it covers, (h, w).
        doubt: Share of each cell that may be it or not, (h, w).
        single: It is one object.
        layer: Number of its layer.
        named: Its concept is one that the text head is taught.
    """

    concept: str
    mask: Tensor
    doubt: Tensor
    single: bool
    layer: int
    named: bool


@dataclass(frozen=True, eq=False)
class TextTargets:
    """Words of a scene at the text head's grid.

    Attributes:
        concepts: P words, the N that are to be seen first.
        masks: Share of each cell that the first N name, (N, h, w).
        weights: How far each cell tells whether a word is there, (P, h, w) in [0, 1].
        present: 1 where a word is in the scene, 0 where not, (P,).
        present_weight: How sure that is, (P,) in [0, 1].
        weak: Words without masks, each with the cells (h, w) that have it somewhere and the
            number of its word in ``concepts``.
    """

    concepts: tuple[str, ...]
    masks: Tensor
    weights: Tensor
    present: Tensor
    present_weight: Tensor
    weak: tuple[tuple[int, Tensor], ...]


@dataclass(frozen=True, eq=False)
class ObjectTargets:
    """Which object each cell at stride 8 is part of.

    Attributes:
        owner: (h, w) number of the cell's object, -1 for none.
        boxes: (N, 4) XYXY of the objects in pixels of the model input.
    """

    owner: Tensor
    boxes: Tensor


def object_targets(masks: Tensor) -> ObjectTargets:
    """Give every cell the smallest object that covers most of it.

    Args:
        masks: Share of each cell at stride 4 that each object covers, (N, 2h, 2w).
    """
    shares = F.avg_pool2d(masks[None], OBJECT_STRIDE // CELL)[0]
    owner = torch.full(shares.shape[1:], -1, dtype=torch.long)
    boxes = torch.zeros(len(masks), 4)
    for i in masks.flatten(1).sum(1).argsort(descending=True).tolist():
        rows = torch.nonzero((masks[i] > _ON).any(1))[:, 0]
        columns = torch.nonzero((masks[i] > _ON).any(0))[:, 0]
        if not len(rows):
            continue
        edges = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        boxes[i] = torch.tensor([float(edge) * CELL for edge in edges])
        owner[shares[i] > 0.5] = i
    return ObjectTargets(owner, boxes)


class SceneTargets:
    """All targets of one scene.

    Args:
        scene: The scene.
        vocabulary: Which words are there, absent or unknown in a picture.
        unnamed: Sources whose labels are no words.
        min_area: Smallest object, as a share of the scene.
        min_visible: Share of an object that must be seen.
    """

    def __init__(
        self,
        scene: Scene,
        vocabulary: Vocabulary,
        *,
        unnamed: Sequence[str] = (),
        min_area: float = 0.0,
        min_visible: float = 0.5,
    ) -> None:
        self.scene = scene
        self.vocabulary = vocabulary
        self.unnamed = frozenset(unnamed)
        self.min_area = min_area
        self.min_visible = min_visible
        height, width = scene.ids.shape
        self.grid = height // CELL, width // CELL
        values, compact = np.unique(scene.ids, return_inverse=True)
        self._number = {int(value): i for i, value in enumerate(values)}
        self._shares = self._share(compact.reshape(height, width), len(values), CELL)
        self.visible = {
            i: float(n) for i, n in zip(values.tolist(), np.bincount(compact.ravel()), strict=True)
        }

    @staticmethod
    def _share(numbers: np.ndarray, count: int, cell: int) -> Tensor:
        """Share of each cell that each of ``count`` numbers covers, (count, h, w)."""
        height, width = numbers.shape
        rows = np.arange(height)[:, None] // cell * (width // cell)
        cells = rows + np.arange(width) // cell
        size = height // cell * (width // cell)
        counts = np.bincount((numbers * size + cells).ravel(), minlength=count * size)
        shares = counts.reshape(count, height // cell, width // cell) / cell**2
        return torch.from_numpy(shares.astype(np.float32))

    @cached_property
    def extent(self) -> tuple[int, int]:
        """Rows and columns of the text head's cells that are not all padding."""
        rows = np.flatnonzero((self.scene.owner >= 0).any(1))
        columns = np.flatnonzero((self.scene.owner >= 0).any(0))
        return int(rows[-1]) // TEXT_STRIDE + 1, int(columns[-1]) // TEXT_STRIDE + 1

    def cover(self, ids: Sequence[int]) -> Tensor:
        """Share of each cell (h, w) of the decoder's grid that the ids cover."""
        numbers = [self._number[i] for i in ids if i in self._number]
        return self._shares[numbers].sum(0)

    def weight(self) -> Tensor:
        """1 where a cell of the decoder's grid counts, 0 where it is void or padding, (h, w)."""
        return (self.cover([VOID_ID]) < 0.01).float()

    def _seen(self, ids: Sequence[int], layer: Layer) -> float:
        full = sum(layer.areas.get(i, 0.0) for i in ids)
        return sum(self.visible.get(i, 0.0) for i in ids) / full if full else 0.0

    @cached_property
    def objects(self) -> list[ObjectTarget]:
        """The objects that may be asked for."""
        found = []
        least = self.min_area * self.scene.ids.size
        for number, layer in enumerate(self.scene.layers):
            source = layer.entry.sample.source
            taught = self.vocabulary.named.get(source, frozenset())
            for thing in layer.things:
                area = sum(self.visible.get(i, 0.0) for i in thing.ids)
                if area < max(least, 1.0) or self._seen(thing.ids, layer) < self.min_visible:
                    continue
                concept = concept_of(thing.label)
                found.append(
                    ObjectTarget(
                        concept,
                        self.cover(thing.ids),
                        self.cover(thing.doubtful),
                        thing.single,
                        number,
                        source not in self.unnamed and concept in taught,
                    )
                )
        return found

    @cached_property
    def text(self) -> TextTargets:
        """The words."""
        names = [layer.entry.sample.source for layer in self.scene.layers]
        valid = np.where(self.scene.ids == VOID_ID, len(names), self.scene.owner)
        valid = np.where(valid < 0, len(names), valid)
        rows, columns = self.extent
        owned = self._share(valid, len(names) + 1, TEXT_STRIDE)[:-1, :rows, :columns]  # (L, h, w)
        known: dict[str, dict[int, float]] = {}  # word -> layer -> weight
        ids: dict[str, list[int]] = {}
        hidden: dict[str, list[int]] = {}  # ids of objects of which too little is seen
        absent: list[dict[str, float]] = []
        weak: list[tuple[str, int]] = []
        for number, (layer, source) in enumerate(zip(self.scene.layers, names, strict=True)):
            if source in self.unnamed:
                absent.append({})
                continue
            here = self.vocabulary.present(source, layer.regions)
            gone = self.vocabulary.absent(
                source, [label for label, _ in layer.regions] if layer.pasted else layer.labels
            )
            absent.append(gone)
            for word, weight in gone.items():
                known.setdefault(word, {})[number] = weight
            for word, own in here.items():
                known.setdefault(word, {})[number] = 1.0
                bucket = ids if self._seen(own, layer) >= SEEN_SHARE else hidden
                bucket.setdefault(word, []).extend(own)
            for word, _ in layer.entry.words:
                for concept in with_general(concept_of(word)):
                    if concept in self.vocabulary.named[source]:
                        weak.append((concept, number))
        shown = sorted(ids)
        weak_words = {word for word, _ in weak}
        concepts = (*shown, *sorted((set(known) | weak_words) - set(shown)))
        index = {word: i for i, word in enumerate(concepts)}
        weights = torch.zeros(len(concepts), rows, columns)
        masks = torch.zeros(len(shown), rows, columns)
        for word, i in index.items():
            for number, weight in known.get(word, {}).items():
                weights[i] += weight * owned[number]
            if word in hidden:
                weights[i] *= 1 - self._coarse(hidden[word])
            if word in ids:
                masks[i] = self._coarse(ids[word])
        marked: list[tuple[int, Tensor]] = []
        for word, number in weak:
            inside = self._weak_cells(word, number, owned[number])
            marked.append((index[word], inside > 0.5))
            if any(found for _, found in self.scene.layers[number].boxes):
                # What is labelled with boxes is nowhere else in its picture.
                weights[index[word]] += (owned[number] - inside).clamp(min=0)
        present, sure = self._presence(concepts, ids, hidden, weak_words, absent)
        return TextTargets(concepts, masks, weights.clamp(0, 1), present, sure, tuple(marked))

    def _coarse(self, ids: Sequence[int]) -> Tensor:
        rows, columns = self.extent
        return F.avg_pool2d(self.cover(ids)[None], TEXT_STRIDE // CELL)[0, :rows, :columns]

    def _weak_cells(self, word: str, number: int, owned: Tensor) -> Tensor:
        """Cells of a layer where a word without a mask may be."""
        boxes = [
            box
            for label, found in self.scene.layers[number].boxes
            if word in with_general(concept_of(label))
            for box in found
        ]
        if not boxes:
            return owned
        rows, columns = owned.shape
        y = torch.arange(rows)[:, None] * TEXT_STRIDE
        x = torch.arange(columns) * TEXT_STRIDE
        inside = torch.zeros_like(owned)
        for x0, y0, x1, y1 in boxes:
            touches = (x < x1) & (x + TEXT_STRIDE > x0) & (y < y1) & (y + TEXT_STRIDE > y0)
            inside = torch.maximum(inside, touches.float())
        return inside * owned

    def _presence(
        self,
        concepts: Sequence[str],
        ids: dict[str, list[int]],
        hidden: dict[str, list[int]],
        weak: set[str],
        absent: Sequence[dict[str, float]],
    ) -> tuple[Tensor, Tensor]:
        """Whether each word is in the scene, and how sure that is."""
        present, sure = torch.zeros(len(concepts)), torch.zeros(len(concepts))
        for i, word in enumerate(concepts):
            if word in ids:
                area = sum(self.visible.get(j, 0.0) for j in ids[word])
                present[i] = 1.0
                sure[i] = float(area >= 0.002 * self.scene.ids.size)
            elif word in weak:
                present[i] = sure[i] = 1.0
            elif word not in hidden:
                sure[i] = min((gone.get(word, 0.0) for gone in absent), default=0.0)
        return present, sure
