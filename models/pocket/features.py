"""Pocket features: the last two maps of the backbone that also serves masks and text.

Each map's vectors are normalised to length 1 before they are concatenated, so that neither
outweighs the other. An image that was encoded for masks needs no second pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..embedding import ImageEmbedding
from ..features.dense import DenseFeatures
from ..preprocess import longest_side_size, to_pixel_values
from .backbone import PIXEL_MEAN, PIXEL_STD, SIZE_MULTIPLE, EfficientNetLite2

STRIDE = 16  # pixels of the input that a cell spans


class PocketFeatures:
    """Dense features of the pocket backbone.

    Args:
        backbone: The backbone, in evaluation mode.
        input_size: Long side in pixels that :meth:`extract` resizes images to.
        model_id: Name of the backbone.
    """

    def __init__(
        self, backbone: EfficientNetLite2, *, input_size: int = 512, model_id: str = "pocket"
    ) -> None:
        self.backbone = backbone
        self.input_size = input_size
        self.model_id = model_id

    @torch.inference_mode()
    def extract(self, image: NDArray[np.uint8]) -> DenseFeatures:
        """Features of an image (H, W, 3) uint8 RGB."""
        device = next(self.backbone.parameters()).device
        image_size = (image.shape[0], image.shape[1])
        size = longest_side_size(image_size, self.input_size)
        pixels = to_pixel_values(
            image,
            size,
            mean=torch.tensor(PIXEL_MEAN, device=device).view(3, 1, 1),
            std=torch.tensor(PIXEL_STD, device=device).view(3, 1, 1),
            pad_to=(_round_up(size[0]), _round_up(size[1])),
        )
        maps = self.backbone(pixels.contiguous(memory_format=torch.channels_last))
        return self.from_maps(maps, image_size=image_size, input_size=size)

    def extract_encoded(self, embedding: ImageEmbedding) -> DenseFeatures:
        """Features of an encoded image, from the backbone's maps if its encoder left them.

        Raises:
            ValueError: The embedding keeps neither the maps nor its image.
        """
        maps = embedding.features.backbone_features
        if not maps:
            return self.extract(embedding.pixels())
        return self.from_maps(
            maps, image_size=embedding.original_size, input_size=embedding.input_size
        )

    @torch.inference_mode()
    def from_maps(
        self,
        maps: Sequence[Tensor],
        *,
        image_size: tuple[int, int],
        input_size: tuple[int, int],
    ) -> DenseFeatures:
        """Features of an image from the backbone's maps.

        Args:
            maps: Maps that the backbone returned for the image; the last two are used.
            image_size: (H, W) of the image.
            input_size: (H', W') of the image in the backbone's input, without padding.
        """
        rows, columns = -(-input_size[0] // STRIDE), -(-input_size[1] // STRIDE)
        parts = [F.normalize(m[0, :, :rows, :columns].float(), dim=0) for m in maps[-2:]]
        return DenseFeatures(
            tokens=torch.cat(parts).permute(1, 2, 0).contiguous(),
            image_size=image_size,
            input_size=input_size,
            cell_size=(
                STRIDE * image_size[0] / input_size[0],
                STRIDE * image_size[1] / input_size[1],
            ),
            model_id=self.model_id,
        )


def _round_up(side: int) -> int:
    return -(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE
