"""Encoded images: what a segmentation model keeps of a picture, and the picture itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """What an image encoder gives for one image.

    Attributes:
        image_embeddings: (1, C, h, w).
        high_res_features: Finer maps for the mask decoder, coarse to fine; empty for the
            published models.
        backbone_features: Maps that other heads on the same backbone read; empty where the
            backbone serves masks alone.
    """

    image_embeddings: Tensor
    high_res_features: tuple[Tensor, ...] = ()
    backbone_features: tuple[Tensor, ...] = ()

    def to_float32(self) -> ImageFeatures:
        """Return the same in float32, whatever arithmetic it was made in."""
        return ImageFeatures(
            image_embeddings=self.image_embeddings.float(),
            high_res_features=tuple(x.float() for x in self.high_res_features),
            backbone_features=tuple(x.float() for x in self.backbone_features),
        )


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """What the segmenter keeps of an encoded image; decode as many prompts as wanted from it.

    Attributes:
        features: The image encoder's output.
        original_size: (H, W) of the input image.
        input_size: (H', W') of the picture within the model input.
        model_id: Name of the model that made it; "" if unnamed.
        image: The RGB image itself, (H, W, 3) uint8, read-only; text grounders read it.
    """

    features: ImageFeatures
    original_size: tuple[int, int]
    input_size: tuple[int, int]
    model_id: str = ""
    image: NDArray[np.uint8] | None = None

    def pixels(self) -> NDArray[np.uint8]:
        """Return the image.

        Raises:
            ValueError: It was not kept.
        """
        if self.image is None:
            raise ValueError("text and references need an embedding that keeps its image")
        return self.image
