"""One answer for a picture of any size, from looks at the whole and at overlapping tiles.

A look at a tile sees what is small in the picture, a look at the whole what is larger than a tile.
Objects that several tiles see are joined (:mod:`~promptseg.pipeline.tiling.joining`). Each object
is then looked at once more, in the middle of a window of its own, where no edge cuts it. What is
not found again is dropped.

Many looks have many chances to be wrong: a gate that lets 7% of absent phrases pass in one look
lets most of them pass in one of forty. So every look has to be surer than a single one, by log-odds
that grow with the number of looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...models.errors import InputError, PromptsegError
from ..checks import BoolArray, UInt8Array
from ..compact_mask import CompactMask
from ..masks import Box, cut
from ..proposals import Proposals
from ..result import RejectedMask
from ..unseen import UnseenTile
from .joining import Joined, Sighting, agreement, drop_copies, is_cut, join
from .layout import lay_tiles, window_around
from .pictures import Picture

# What finds masks in pixels (h, w, 3), with a gate that is so many log-odds stricter.
Look = Callable[[UInt8Array, float], Proposals]
# Called with the number of looks done and the number of looks known so far.
Progress = Callable[[int, int], None]

_AGREE = 0.5
# Side of the window in which an object is looked at again, in the object's own; the least and the
# most of it, in tiles.
_REACH = 1.5
_LEAST_TILES = 1.0
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
        wanted = self._again(join(Sighting.join(size, found), nested=self.nested))
        unwanted = join(Sighting.join(size, against), nested=self.nested).found
        if len(self.tiles) > 1:
            whole = self._whole()
            wanted = self._with_large(wanted, whole)
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
        return _placed(_where_valid(seen, valid), tile, self.picture.size)

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
        return _enlarged(_where_valid(seen, valid), size)

    def _again(self, seen: Joined) -> Proposals:
        """Look again at each object, in the middle of a window of its own."""
        found, size = seen.found, self.picture.size
        if self.nested:  # every part of the picture was searched, and most copies are whole
            return found.part(np.flatnonzero(~seen.cut | seen.joined).tolist())
        if len(self.tiles) == 1:
            return found
        boxes = [mask.box for mask in found.masks]
        # Beginning with the largest, whose windows show smaller ones as well.
        left = sorted(range(len(boxes)), key=lambda i: -self._scale(boxes[i]))
        left = [i for i in left if self._scale(boxes[i]) <= _MOST_TILES]
        known = set(range(len(found))) - set(left)
        self.looks += len(left)
        closer: list[Proposals] = []
        while left:
            scale = max(_LEAST_TILES, self._scale(boxes[left[0]]))
            sides = round(self.tile[0] * scale), round(self.tile[1] * scale)
            window = window_around(boxes[left[0]], size, sides)
            around = [i for i in left if i == left[0] or self._shares(window, boxes[i], scale)]
            left = [i for i in left if i not in around]
            self.looks -= len(around) - 1
            near = self._see(window, stricter=0.0)
            if near is None:
                known.update(around)
                continue
            same = _same(near, found, around)
            for i in around:
                grown = _around([boxes[i], *(near.masks[k].box for k in same[i])])
                if (
                    any(is_cut(near.masks[k].box, window, size) for k in same[i])
                    and grown != boxes[i]
                    and self._scale(grown) <= _MOST_TILES
                ):
                    boxes[i] = grown  # more of it than was known: once more, in a larger window
                    left.append(i)
                    self.looks += 1
                elif same[i]:
                    label = found.labels[i]
                    others = [
                        k
                        for k, mask in enumerate(near.masks)
                        if near.labels[k] == label and not is_cut(mask.box, window, size)
                    ]
                    closer.append(near.part(sorted({*same[i], *others})))
                elif self.confirm:
                    self.rejected.append(_unconfirmed(found.labels[i], found.prompt_scores[i]))
                else:
                    known.add(i)
        seen_again = Proposals.join(size, closer)
        best = np.argsort(-seen_again.iou_predictions, kind="stable").tolist()
        kept = [seen_again.part(best), found.part(sorted(known))]
        return drop_copies(Proposals.join(size, kept))

    def _shares(self, window: Box, box: Box, scale: float) -> bool:
        """Return whether a box can be looked at in the window of a larger one."""
        large = 2 * max(_LEAST_TILES, self._scale(box)) >= scale
        return large and _shows(window, box, self.picture.size)

    def _scale(self, box: Box) -> float:
        """Return the side, in tiles, of a window that a box fills for the most part."""
        sides = (box[2] - box[0]) / self.tile[1], (box[3] - box[1]) / self.tile[0]
        return _REACH * max(sides)

    def _with_large(self, found: Proposals, whole: Proposals) -> Proposals:
        """Add the objects that are larger than a tile, in place of their pieces."""
        chosen: list[int] = []
        pieces: set[int] = set()
        for k, mask in enumerate(whole.masks):
            if not self._outgrows(mask, 1.0):
                continue
            inside = [] if self.nested else _inside(found, mask, whole.labels[k])
            large = [i for i in inside if self._outgrows(found.masks[i])]
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


def _shows(window: Box, box: Box, size: tuple[int, int]) -> bool:
    """Return whether a box lies in a window and none of its edges cuts it."""
    inside = window[0] <= box[0] and window[1] <= box[1] and box[2] <= window[2]
    return inside and box[3] <= window[3] and not is_cut(box, window, size)


def _around(boxes: Sequence[Box]) -> Box:
    """Return the box around boxes."""
    corners = np.array(boxes)
    x0, y0 = corners[:, :2].min(0).tolist()
    x1, y1 = corners[:, 2:].max(0).tolist()
    return x0, y0, x1, y1


def _same(near: Proposals, found: Proposals, around: Sequence[int]) -> dict[int, list[int]]:
    """Return, by the number of an object, the masks of a closer look that show it."""
    return {
        i: [
            k
            for k, mask in enumerate(near.masks)
            if near.labels[k] == found.labels[i] and agreement(mask, found.masks[i]) >= _AGREE
        ]
        for i in around
    }


def _unconfirmed(label: str, prompt_score: float) -> RejectedMask:
    return RejectedMask(label, "not found again from closer", float(prompt_score))


def _inside(found: Proposals, mask: CompactMask, label: str) -> list[int]:
    """Return the numbers of the masks of a label that agree with a mask."""
    own = [i for i, name in enumerate(found.labels) if name == label]
    return [i for i in own if agreement(found.masks[i], mask) >= _AGREE]


def _placed(seen: Proposals, tile: Box, size: tuple[int, int]) -> Proposals:
    """Return what was found in a tile as masks of the picture (H, W)."""
    return replace(
        seen,
        image_size=size,
        masks=tuple(mask.placed(tile[0], tile[1], size) for mask in seen.masks),
        negatives=None if seen.negatives is None else _placed(seen.negatives, tile, size),
        rejected=(),
        image=None,
    )


def _enlarged(seen: Proposals, size: tuple[int, int]) -> Proposals:
    """Return what was found in a reduced picture as masks of the picture (H, W)."""
    return replace(
        seen,
        image_size=size,
        masks=tuple(mask.enlarged(size) for mask in seen.masks),
        negatives=None if seen.negatives is None else _enlarged(seen.negatives, size),
        rejected=(),
        image=None,
    )


def _where_valid(seen: Proposals, valid: BoolArray | None) -> Proposals:
    """Take the pixels that do not count out of the masks; empty ones are dropped."""
    if valid is None:
        return seen
    masks = tuple(
        CompactMask.within(mask.part() & cut(valid, mask.box), mask.box, mask.size)
        for mask in seen.masks
    )
    negatives = seen.negatives
    return replace(
        seen,
        masks=masks,
        negatives=None if negatives is None else _where_valid(negatives, valid),
    ).part([i for i, mask in enumerate(masks) if mask.area])


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
