"""How COCO files hold masks and annotations.

Source: Lin et al. 2014, "Microsoft COCO"; https://cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..console import printable
from .base import class_name

if TYPE_CHECKING:
    from ...pipeline.compact_mask import CompactMask
    from ...pipeline.result import Result


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


def describe_image(
    name: str, result: Result, *, polygons: bool, simplified: float = 0.0
) -> dict[str, Any]:
    """Return an image's entry with its masks, whose categories are still names."""
    height, width = result.image_size
    annotations = []
    for i, mask in enumerate(result.compact_masks):
        x0, y0, x1, y1 = mask.box
        annotations.append(
            {
                "category": class_name(result.labels[i]),
                "segmentation": encode_segmentation(mask, polygons=polygons, simplified=simplified),
                "area": mask.area,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": float(result.scores[i]),
            }
        )
    return {
        "file_name": printable(name),
        "height": height,
        "width": width,
        "annotations": annotations,
    }


def describe_annotation(
    item: Mapping[str, Any], number: int, image: int, category: int
) -> dict[str, Any]:
    """Return an annotation of :func:`describe_image` with its numbers."""
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": 0,
        **{key: item[key] for key in ("segmentation", "area", "bbox", "score")},
    }
