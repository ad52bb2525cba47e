"""How COCO files hold masks and annotations; shared by the exporter and the evaluation's reader.

Source: Lin et al. 2014, "Microsoft COCO"; https://cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...models.errors import InputError
from ...pipeline.masks import mask_to_rle

if TYPE_CHECKING:
    from ...pipeline.checks import BoolArray


def is_panoptic(annotation: Mapping[str, object]) -> bool:
    """Return whether an annotation is of the panoptic layout: one per image, with its segments."""
    return "segments_info" in annotation


def encode_segmentation(mask: BoolArray, *, polygons: bool) -> object:
    """Return an (H, W) mask as compressed run lengths or as polygons along the pixels' edges.

    An empty mask, which has no polygon, is always given as run lengths.
    """
    if polygons and mask.any():
        from .outlines import edge_polygons

        return [polygon.ravel().tolist() for polygon in edge_polygons(mask)]
    return mask_to_rle(mask)


def decode_segmentation(shape: object, size: tuple[int, int]) -> BoolArray:
    """Return the (H, W) mask of polygons or run lengths, as pycocotools draws it.

    Args:
        shape: Polygons [[x, y, x, y, ...], ...], or run lengths {"size", "counts"} with the counts
            as a list or as COCO's compressed text.
        size: (H, W) of the picture.

    Raises:
        InputError: It is neither, or differs in size.
    """
    from pycocotools import mask as coco_mask

    try:
        if isinstance(shape, list):
            polygons = [[float(value) for value in polygon] for polygon in shape]
            if not polygons or any(len(p) < 6 or len(p) % 2 for p in polygons):
                raise InputError("a polygon needs three or more points x, y")
            rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
        elif isinstance(shape, dict):
            if list(shape["size"]) != list(size):
                raise InputError(f"run lengths of size {shape['size']} for a picture of {size}")
            rle = shape
            if isinstance(shape["counts"], list):
                if sum(shape["counts"]) != size[0] * size[1]:
                    raise InputError("the run lengths do not add up to the picture's size")
                rle = coco_mask.frPyObjects(shape, *size)
        else:
            raise InputError(f"a segmentation is a list or an object, not {shape!r}")
        mask: BoolArray = coco_mask.decode(rle).astype(np.bool_)
    except InputError:
        raise
    except Exception as error:  # pycocotools raises plain Exception as well
        raise InputError(f"not a segmentation in COCO's layout: {error}") from error
    return mask
