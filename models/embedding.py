"""Encoded images: the features that models compute from an image, and the image itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .errors import InputError


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """The output of an image encoder for one image, or for a batch of them.

    Attributes:
        image_embeddings: (1, C, h, w); (B, C, h, w) for a batch, as all maps.
        high_res_features: Finer maps for the mask decoder, coarse to fine; empty for SAM.
        backbone_features: Maps that other heads on the same backbone read; empty if the backbone
            serves masks only.
    """

    image_embeddings: Tensor
    high_res_features: tuple[Tensor, ...] = ()
    backbone_features: tuple[Tensor, ...] = ()

    def to_float32(self) -> ImageFeatures:
        """Return the same features in float32."""
        return ImageFeatures(
            image_embeddings=self.image_embeddings.float(),
            high_res_features=tuple(x.float() for x in self.high_res_features),
            backbone_features=tuple(x.float() for x in self.backbone_features),
        )

    def split(self) -> list[ImageFeatures]:
        """Return the features of each image of a batch, in memory of its own."""
        if len(self.image_embeddings) == 1:
            return [self]
        return [
            ImageFeatures(
                image_embeddings=self.image_embeddings[i, None].clone(),
                high_res_features=tuple(x[i, None].clone() for x in self.high_res_features),
                backbone_features=tuple(x[i, None].clone() for x in self.backbone_features),
            )
            for i in range(len(self.image_embeddings))
        ]


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """An encoded image, from which any number of prompts can be decoded.

    Attributes:
        features: Output of the image encoder.
        original_size: (H, W) of the input image.
        input_size: (H', W') of the image within the model input, without padding.
        model_id: Name of the model that encoded the image; "" if unnamed.
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
            InputError: The embedding does not keep it.
        """
        if self.image is None:
            raise InputError("text and references need an embedding that keeps its image")
        return self.image
