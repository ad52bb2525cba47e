"""One mask for each object that several tiles see.

Two masks of neighbouring tiles are of the same object if they agree where both tiles look: they
share at least half of the smaller one there. What becomes of them depends on which of them the
edges of the tiles cut, which a mask within 20 pixels of an edge is taken to be (as in the automatic
mask generation of Kirillov et al. 2023, "Segment Anything", appendix B):

- both: each goes on in the other's tile, and they are joined;
- one: it is a part of the other, which stays;
- none: both tiles see all of it, and the better one stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from ..checks import BoolArray
from ..compact_mask import CompactMask
from ..masks import Box
from ..proposals import Proposals

# A mask whose pixels come within so many of an edge of its tile is likely cut off there.
EDGE = 20
_AGREE = 0.5


@dataclass(frozen=True, eq=False)
class Sighting:
    """Masks of an image, each from one tile.

    Attributes:
        found: N masks with their scores.
        tiles: N tiles.
    """

    found: Proposals
    tiles: tuple[Box, ...]

    def __post_init__(self) -> None:
        if len(self.tiles) != len(self.found):
            raise ValueError(f"{len(self.found)} masks need a tile each, got {len(self.tiles)}")

    @classmethod
    def join(cls, size: tuple[int, int], parts: Iterable[tuple[Proposals, Box]]) -> Sighting:
        """Return what several looks found, each in a tile, with masks of the image (H, W)."""
        kept = list(parts)
        tiles = [tile for found, tile in kept for _ in range(len(found))]
        return cls(Proposals.join(size, [found for found, _ in kept]), tuple(tiles))

    def part(self, numbers: Sequence[int]) -> Sighting:
        """Return some of the masks."""
        return Sighting(self.found.part(numbers), tuple(self.tiles[i] for i in numbers))


@dataclass(frozen=True, eq=False)
class Joined:
    """Objects: N masks, of one tile or joined over several.

    Attributes:
        found: The masks with their scores, the means of their parts' by area.
        cut: (N,) bool, whether an edge of a tile cuts it, or cut a part of it before it was joined.
        joined: (N,) bool, whether it was joined.
    """

    found: Proposals
    cut: BoolArray
    joined: BoolArray


def is_cut(box: Box, tile: Box, size: tuple[int, int]) -> bool:
    """Return whether an edge of a tile that is none of the image's (H, W) cuts a mask, by its box.

    Args:
        box: The mask's tight box.
        tile: The tile.
        size: (H, W) of the image.
    """
    height, width = size
    inner = tile[0] > 0, tile[1] > 0, tile[2] < width, tile[3] < height
    near = edge_of(tile)
    return any(cuts and abs(box[i] - tile[i]) <= near[i % 2] for i, cuts in enumerate(inner))


def edge_of(tile: Box) -> tuple[int, int]:
    """Return within how many pixels, along x and y, something is at the edge of a tile."""
    return min(EDGE, (tile[2] - tile[0]) // 16), min(EDGE, (tile[3] - tile[1]) // 16)


def join(seen: Sighting, *, nested: bool = False) -> Joined:
    """Join what neighbouring tiles see of one object; labels are joined separately.

    Args:
        seen: What the tiles see.
        nested: Whether masks of one tile may lie within each other, as those of everything mode;
            masks then agree if they share half of what both together cover.
    """
    found, size = seen.found, seen.found.image_size
    parents = list(range(len(found)))
    dropped: set[int] = set()
    joined: list[tuple[int, int]] = []
    copies: list[tuple[int, int]] = []

    def root(i: int) -> int:
        while parents[i] != i:
            parents[i] = i = parents[parents[i]]
        return i

    for i, j in _meeting(found.masks, found.labels):
        if seen.tiles[i] == seen.tiles[j]:
            continue
        first, second = _meet(seen, i, j, nested)
        if first and second:
            joined.append((i, j))
        elif first or second:
            copies.append((i, j) if first else (j, i))
        elif first is not None:
            better = found.prompt_scores[i] * found.iou_predictions[i]
            worse = found.prompt_scores[j] * found.iou_predictions[j]
            copies.append((j, i) if better >= worse else (i, j))
    for i, j in joined:
        parents[root(i)] = root(j)
    pieces = {i for pair in joined for i in pair}
    cuts = [
        is_cut(mask.box, tile, size) for mask, tile in zip(found.masks, seen.tiles, strict=True)
    ]
    for copy, kept in copies:
        # Of an object that some tile shows whole, no pieces are needed.
        if kept not in dropped and not (copy in pieces and cuts[kept]):
            dropped.add(copy)
    groups: dict[int, list[int]] = {}
    for i in range(len(found)):
        if i not in dropped:
            groups.setdefault(root(i), []).append(i)
    cut = [any(cuts[i] for i in group) for group in groups.values()]
    several = [len(group) > 1 for group in groups.values()]
    return Joined(
        _merge(found, list(groups.values())),
        np.array(cut, np.bool_),
        np.array(several, np.bool_),
    )


def drop_copies(found: Proposals, *, nested: bool = False) -> Proposals:
    """Drop masks that agree with an earlier one of their label."""
    dropped: set[int] = set()
    for i, j in _meeting(found.masks, found.labels):
        if i in dropped or j in dropped:
            continue
        if agreement(found.masks[i], found.masks[j], nested=nested) >= _AGREE:
            dropped.add(j)
    return found.part([i for i in range(len(found)) if i not in dropped])


def agreement(one: CompactMask, other: CompactMask, *, nested: bool = False) -> float:
    """Return the pixels that two masks share, as a share of the smaller one.

    Where masks may lie within each other, as a share of what both together cover.
    """
    both = int(one.shares([other])[0])
    of = one.area + other.area - both if nested else min(one.area, other.area)
    return both / max(1, of)


def _meeting(masks: Sequence[CompactMask], labels: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of masks of one label whose boxes meet, in order."""
    boxes = shapely.box(*np.array([mask.box for mask in masks], np.float64).reshape(-1, 4).T)
    first, second = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    pairs = sorted(zip(first.tolist(), second.tolist(), strict=True))
    return [(i, j) for i, j in pairs if i < j and labels[i] == labels[j]]


def _meet(seen: Sighting, i: int, j: int, nested: bool) -> tuple[bool, bool] | tuple[None, None]:
    """Return whether each of two masks is cut off inside the other's tile; None if they differ."""
    one, other = seen.tiles[i], seen.tiles[j]
    shared = (
        max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])
    )  # fmt: skip
    first, second = (seen.found.masks[k].window(shared) for k in (i, j))
    both = np.count_nonzero(first & second)
    least = min(np.count_nonzero(first), np.count_nonzero(second))
    union = np.count_nonzero(first | second)
    if not both or both < _AGREE * (union if nested else least):
        return None, None
    return _ends(first, shared, one, other), _ends(second, shared, other, one)


def _ends(part: BoolArray, shared: Box, own: Box, other: Box) -> bool:
    """Return whether a mask reaches an edge of its tile inside the other tile.

    Args:
        part: The mask where both tiles look.
        shared: That place.
        own: The mask's tile.
        other: The other tile.
    """
    x, y = edge_of(own)
    bands: list[NDArray[np.bool_]] = []
    if own[0] > other[0]:
        bands.append(part[:, :x])
    if own[1] > other[1]:
        bands.append(part[:y])
    if own[2] < other[2]:
        bands.append(part[:, -x:])
    if own[3] < other[3]:
        bands.append(part[-y:])
    return any(bool(band.any()) for band in bands)


def _merge(found: Proposals, groups: Sequence[Sequence[int]]) -> Proposals:
    """Return one mask for each group of masks."""
    firsts = found.part([group[0] for group in groups])
    masks = tuple(CompactMask.union([found.masks[i] for i in group]) for group in groups)

    def mean(scores: NDArray[np.float32]) -> NDArray[np.float32]:
        means = [
            np.average(scores[list(group)], weights=[max(1, found.masks[i].area) for i in group])
            for group in groups
        ]
        return np.array(means, np.float32)

    return replace(
        firsts,
        masks=masks,
        iou_predictions=mean(found.iou_predictions),
        stability_scores=mean(found.stability_scores),
        prompt_scores=mean(found.prompt_scores),
        calibrated=None if found.calibrated is None else mean(found.calibrated),
    )
