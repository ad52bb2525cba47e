"""One answer for a picture of any size, from looks at the whole and at overlapping tiles.

A look at a tile sees what is small in the picture, a look at the whole what is larger than a tile.
Objects that several tiles see are joined (:mod:`~promptseg.pipeline.tiling.joining`). Each object
is then looked at twice more, in the middle of windows of its own, where no edge cuts it: the mask
of the better predicted IoU stays. What is not found again is dropped.

Many looks have many chances to be wrong: a gate that lets 7% of absent phrases pass in one look
lets most of them pass in one of forty. So every look has to be surer than a single one, by log-odds
that grow with the number of looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...models.errors import InputError, PromptsegError
from ..checks import UInt8Array
from ..compact_mask import CompactMask
from ..masks import Box
from ..proposals import Proposals
from ..result import RejectedMask
from ..unseen import UnseenTile
from .closer import Closer, box_around, pick, same_objects, shows
from .joining import Joined, Sighting, agreement, drop_copies, is_cut, join
from .layout import lay_tiles, window_around
from .pictures import Picture
from .placing import enlarged, placed, where_valid

# What finds masks in pixels (h, w, 3), with a gate that is so many log-odds stricter.
Look = Callable[[UInt8Array, float], Proposals]
# Called with the number of looks done and the number of looks known so far.
Progress = Callable[[int, int], None]

_AGREE = 0.5
# Each side of the windows in which an object is looked at again, in the object's own; the least and
# the most of it, in tiles. The first shows little else, which would make the object smaller and
# draw masks to itself, and is just so large that its edges do not seem to cut the object. The
# second, around what the first shows, has what belongs to the object but was not known to.
_REACH = 1.15
_WIDER = 1.4
_LEAST_TILES = 0.75
_MOST_TILES = 4.0
# An object that is longer than so much of a tile's side does not fit into the tile.
_FITS = 0.9
# IoU from which a joined mask and the one of the whole picture are the same.
_SAME = 0.9


@dataclass(frozen=True)
class TilingConfig:
    """How surely tiles must see what is looked for.

    Attributes:
        stricter_by_look: Log-odds that the gate is raised by, for each doubling of the looks.
        confirm: Whether an object that is not found again from closer is dropped.

    Raises:
        InputError: It is negative or not finite.
    """

    stricter_by_look: float = 1.0
    confirm: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.stricter_by_look < math.inf:
            raise InputError(f"stricter_by_look must be 0 or more, not {self.stricter_by_look!r}")

    def stricter(self, looks: int) -> float:
        """Return the log-odds that the gate is raised by for so many looks."""
        return self.stricter_by_look * math.log2(looks)


def find_in_tiles(
    picture: Picture,
    look: Look,
    tile: tuple[int, int],
    *,
    config: TilingConfig,
    nested: bool = False,
    progress: Progress | None = None,
) -> Proposals:
    """Find masks all over a picture.

    Args:
        picture: What to look at.
        look: Finds masks in a part of it.
        tile: (h, w) of a tile.
        config: How much stricter the gate is.
        nested: Whether masks may lie within each other; see
            :func:`~promptseg.pipeline.tiling.joining.join`.
        progress: Called after each look.

    Returns:
        Masks of the picture, each object once; `rejected` has, for each phrase without a mask, the
        look that came closest, and `unseen` the tiles that could not be looked at.

    Raises:
        InputError: No tile could be looked at.
    """
    return _Run(picture, look, tile, config, nested, progress)()


class _Run:
    """Looks at one picture."""

    def __init__(
        self,
        picture: Picture,
        look: Look,
        tile: tuple[int, int],
        config: TilingConfig,
        nested: bool,
        progress: Progress | None,
    ) -> None:
        self.picture = picture
        self.look = look
        self.tile = tile
        self.nested = nested
        self.progress = progress
        self.tiles = lay_tiles(picture.size, tile)
        self.looks = len(self.tiles) + (len(self.tiles) > 1)
        self.stricter = config.stricter(self.looks)
        self.confirm = config.confirm
        self.done = 0
        self.rejected: list[RejectedMask] = []
        self.unseen: list[UnseenTile] = []

    def __call__(self) -> Proposals:
        size = self.picture.size
        found: list[tuple[Proposals, Box]] = []
        against: list[tuple[Proposals, Box]] = []
        for tile in self.tiles:
            seen = self._see(tile)
            if seen is None:
                continue
            found.append((seen, tile))
            if seen.negatives is not None:
                against.append((seen.negatives, tile))
        if len(self.unseen) == len(self.tiles):
            raise InputError(self.unseen[0].reason)
        wanted, sure = self._again(join(Sighting.join(size, found), nested=self.nested))
        unwanted = join(Sighting.join(size, against), nested=self.nested).found
        if len(self.tiles) > 1:
            whole = self._whole()
            wanted = self._with_large(wanted, whole, sure)
            if whole.negatives is not None:
                unwanted = self._with_large(unwanted, whole.negatives)
        return replace(
            wanted,
            negatives=unwanted if against else None,
            rejected=(*wanted.rejected, *_closest(self.rejected, wanted.labels, self.done)),
            distinct=self.nested,
            unseen=tuple(self.unseen),
        )

    def _see(self, tile: Box, *, stricter: float | None = None) -> Proposals | None:
        """Return what is found in a tile, as masks of the picture; None if there is no look."""
        by = self.stricter if stricter is None else stricter
        try:
            pixels, valid = self.picture.read(tile)
            seen = None if valid is not None and not valid.any() else self.look(pixels, by)
        except (PromptsegError, OSError, RuntimeError, MemoryError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self.unseen.append(UnseenTile(tile, reason))
            seen = None
        self._advance()
        if seen is None:
            return None
        self.rejected += seen.rejected
        return placed(where_valid(seen, valid), tile, self.picture.size)

    def _whole(self) -> Proposals:
        """Return what is found in the whole picture, seen in the size of a tile."""
        size = self.picture.size
        nothing = Proposals.none(size)
        try:
            pixels, valid = self.picture.overview(max(self.tile))
            seen = self.look(pixels, self.stricter)
        except (PromptsegError, OSError, RuntimeError, MemoryError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self.unseen.append(UnseenTile((0, 0, size[1], size[0]), reason))
            return nothing
        finally:
            self._advance()
        self.rejected += seen.rejected
        return enlarged(where_valid(seen, valid), size)

    def _again(self, seen: Joined) -> tuple[Proposals, int]:
        """Look again at each object, in the middle of windows of its own.

        Returns:
            The objects, and how many of them, which are the first, were seen whole in that way.
        """
        found, size = seen.found, self.picture.size
        if self.nested:  # every part of the picture was searched, and most copies are whole
            return found.part(np.flatnonzero(~seen.cut | seen.joined).tolist()), 0
        if len(self.tiles) == 1:
            return found, 0
        near = self._closer(found, {i: mask.box for i, mask in enumerate(found.masks)}, _REACH)
        least = self._sides((0, 0, 0, 0), _WIDER)  # the same in both looks at what is small
        again = {
            i: box
            for i, (box, cut) in near.best().items()
            if cut or self._sides(box, _WIDER) != least
        }
        wider = self._closer(found, again, _WIDER)
        # Of some things only their surroundings tell what they are.
        missed = {i: found.masks[i].box for i in near.missed}
        last = self._closer(found, missed, _WIDER, least=1.0)
        for i in last.missed if self.confirm else ():
            self.rejected.append(_unconfirmed(found.labels[i], found.prompt_scores[i]))
        looks = [*near.shown, *wider.shown, *last.shown]
        masks = Proposals.join(size, [look.masks for look in looks])
        cut = np.array([cut for look in looks for cut in look.cut], np.bool_)
        order = np.lexsort((-masks.iou_predictions, cut)).tolist()
        whole = len(order) - int(np.count_nonzero(cut))
        sure = drop_copies(masks.part(order[:whole]))
        known = sorted([*near.unseen, *last.unseen, *(() if self.confirm else last.missed)])
        others = [masks.part(order[whole:]), found.part(known)]
        return drop_copies(Proposals.join(size, [sure, *others])), len(sure)

    def _closer(
        self,
        found: Proposals,
        boxes: Mapping[int, Box],
        reach: float,
        least: float = _LEAST_TILES,
    ) -> Closer:
        """Look at objects in windows around their boxes.

        Args:
            found: The objects.
            boxes: Where they are, by their numbers.
            reach: Sides of a window, in those of its box.
            least: The least of them, in tiles.
        """
        size = self.picture.size
        boxes = dict(boxes)
        scales = {i: self._scale(box, reach) for i, box in boxes.items()}
        # Beginning with the largest, whose windows show smaller ones as well.
        left = sorted(boxes, key=lambda i: -scales[i])
        seen = Closer(unseen=[i for i in left if scales[i] > _MOST_TILES])
        left = left[len(seen.unseen) :]
        shown: set[int] = set()
        self.looks += len(left)
        while left:
            first = left[0]
            window = window_around(boxes[first], size, self._sides(boxes[first], reach, least))
            smallest = max(least, scales[first]) / 2  # smaller ones are shown better alone
            around = [
                i
                for i in left
                if i == first
                or (max(least, scales[i]) >= smallest and shows(window, boxes[i], size))
            ]
            left = [i for i in left if i not in around]
            self.looks -= len(around) - 1
            near = self._see(window, stricter=0.0)
            if near is None:
                seen.unseen += [i for i in around if i not in shown]
                continue
            cut = [is_cut(mask.box, window, size) for mask in near.masks]
            for i, same in same_objects(near, found, around).items():
                if not same:
                    seen.missed += [] if i in shown else [i]
                    continue
                shown.add(i)
                seen.shown.append(pick(near, cut, i, found.labels[i], same))
                grown = box_around([boxes[i], *(near.masks[k].box for k in same)])
                scale = self._scale(grown, reach)
                if any(cut[k] for k in same) and grown != boxes[i] and scale <= _MOST_TILES:
                    boxes[i], scales[i] = grown, scale
                    left.append(i)  # more of it than was known: once more, in a larger window
                    self.looks += 1
        return seen

    def _scale(self, box: Box, reach: float) -> float:
        """Return the longer side, in tiles, of the window in which a box is looked at again."""
        sides = (box[2] - box[0]) / self.tile[1], (box[3] - box[1]) / self.tile[0]
        return reach * max(sides)

    def _sides(self, box: Box, reach: float, least: float = _LEAST_TILES) -> tuple[int, int]:
        """Return (h, w) of the window in which a box is looked at again."""
        height, width = reach * (box[3] - box[1]), reach * (box[2] - box[0])
        return (
            round(max(least * self.tile[0], height)),
            round(max(least * self.tile[1], width)),
        )

    def _with_large(self, found: Proposals, whole: Proposals, sure: int = 0) -> Proposals:
        """Add the objects that are larger than a tile, in place of their pieces.

        Args:
            found: The objects.
            whole: What is found in the whole picture.
            sure: How many of the first objects are no pieces.
        """
        chosen: list[int] = []
        pieces: set[int] = set()
        for k, mask in enumerate(whole.masks):
            if not self._outgrows(mask, 1.0):
                continue
            inside = [] if self.nested else _inside(found, mask, whole.labels[k])
            large = [i for i in inside if i >= sure and self._outgrows(found.masks[i])]
            # What tiles see whole, or what was joined to all of it, is finer.
            fine = len(large) < len(inside) or any(
                agreement(mask, found.masks[i], nested=True) >= _SAME for i in large
            )
            if not fine:
                chosen.append(k)
                pieces.update(inside)
        kept = found.part([i for i in range(len(found)) if i not in pieces])
        joined = Proposals.join(found.image_size, [whole.part(chosen), kept])
        return drop_copies(joined, nested=True) if self.nested else joined

    def _outgrows(self, mask: CompactMask, share: float = _FITS) -> bool:
        """Return whether a mask is longer than so much of a tile's side."""
        x0, y0, x1, y1 = mask.box
        return x1 - x0 > self.tile[1] * share or y1 - y0 > self.tile[0] * share

    def _advance(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.looks)


def _unconfirmed(label: str, prompt_score: float) -> RejectedMask:
    return RejectedMask(label, "not found again from closer", float(prompt_score))


def _inside(found: Proposals, mask: CompactMask, label: str) -> list[int]:
    """Return the numbers of the masks of a label that agree with a mask."""
    own = [i for i, name in enumerate(found.labels) if name == label]
    return [i for i in own if agreement(found.masks[i], mask) >= _AGREE]


def _closest(
    rejected: Sequence[RejectedMask], labels: Sequence[str], looks: int
) -> list[RejectedMask]:
    """Return, for each phrase without a mask, what was closest to one in any look."""
    best: dict[str, RejectedMask] = {}
    for item in rejected:
        known = best.get(item.label)
        if item.label not in labels and (known is None or _strength(item) > _strength(known)):
            best[item.label] = item
    return [
        replace(
            item,
            reason=f"{item.reason} (the closest of {looks} looks)",
            box_xyxy=None,
            compact_mask=None,
        )
        for item in best.values()
    ]


def _strength(item: RejectedMask) -> float:
    return item.prompt_score if item.presence is None else item.presence
