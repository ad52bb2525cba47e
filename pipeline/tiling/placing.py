"""What was found in a part of a picture, or in a reduced one, as masks of the picture."""

from __future__ import annotations

from dataclasses import replace

from ..checks import BoolArray
from ..compact_mask import CompactMask
from ..masks import Box, cut
from ..proposals import Proposals


def placed(seen: Proposals, tile: Box, size: tuple[int, int]) -> Proposals:
    """Return what was found in a tile as masks of the picture (H, W)."""
    return replace(
        seen,
        image_size=size,
        masks=tuple(mask.placed(tile[0], tile[1], size) for mask in seen.masks),
        negatives=None if seen.negatives is None else placed(seen.negatives, tile, size),
        rejected=(),
        image=None,
    )


def enlarged(seen: Proposals, size: tuple[int, int]) -> Proposals:
    """Return what was found in a reduced picture as masks of the picture (H, W)."""
    return replace(
        seen,
        image_size=size,
        masks=tuple(mask.enlarged(size) for mask in seen.masks),
        negatives=None if seen.negatives is None else enlarged(seen.negatives, size),
        rejected=(),
        image=None,
    )


def where_valid(seen: Proposals, valid: BoolArray | None) -> Proposals:
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
        negatives=None if negatives is None else where_valid(negatives, valid),
    ).part([i for i, mask in enumerate(masks) if mask.area])
