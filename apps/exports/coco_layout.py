"""How COCO files hold masks and annotations.

Source: Lin et al. 2014, "Microsoft COCO"; https://cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...pipeline.compact_mask import CompactMask


def is_panoptic(annotation: object) -> bool:
    """Return whether an annotation is of the panoptic layout: one per image, with its segments."""
    return isinstance(annotation, Mapping) and "segments_info" in annotation


def encode_segmentation(mask: CompactMask, *, polygons: bool, simplified: float = 0.0) -> object:
    """Return a mask as compressed run lengths or as polygons along the pixels' edges.

    An empty mask, which has no polygon, is always given as run lengths. The polygons may deviate by
    ``simplified`` pixels.
    """
    if polygons and mask.area:
        from .outlines import edge_polygons
        from .simplify import simplify

        return [simplify(polygon, simplified).ravel().tolist() for polygon in edge_polygons(mask)]
    return mask.to_rle()
