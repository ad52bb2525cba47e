"""The Segment Anything model: image encoder, prompt encoder and mask decoder together.

Source: Kirillov et al. 2023, "Segment Anything".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..device import cast_layers
from ..embedding import ImageFeatures
from ..preprocess import longest_side_size, to_pixel_values
from .mask_decoder import MaskDecoder
from .prompt_encoder import PromptEncoder

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class PromptableModel(Protocol):
    """A model that encodes an image once and decodes masks for prompts on it.

    The scaled image is at the top left of the model input. Prompts are in pixels of the model
    input, and logits span a square of ``image_size`` pixels of it.
    """

    @property
    def model_id(self) -> str:
        """Name of the model; "" if unnamed."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    @property
    def image_size(self) -> int:
        """Side in pixels of the square of the model input that the logits span."""
        ...

    @property
    def mask_input_size(self) -> tuple[int, int]:
        """Size (H, W) of ``mask_input`` and of the low-resolution logits."""
        ...

    @property
    def mask_threshold(self) -> float:
        """Logits above it belong to the mask."""
        ...

    @property
    def num_multimask_outputs(self) -> int:
        """Number of masks for an ambiguous prompt."""
        ...

    def eval(self) -> object:
        """Switch to evaluation mode."""
        ...

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        """Turn an image (H, W, 3) uint8 RGB into the input of :meth:`encode_image`.

        Returns:
            Pixel values (1, 3, H'', W'') and the size (H', W') of the image within them.
        """
        ...

    def encode_image(self, pixel_values: Tensor) -> ImageFeatures:
        """Encode one normalised image."""
        ...

    def decode(
        self,
        features: ImageFeatures,
        *,
        point_coords: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts on one encoded image.

        Args:
            features: The result of :meth:`encode_image`.
            point_coords: (B, N, 2) in pixels of the model input, (x, y).
            point_labels: (B, N): 1 foreground, 0 background, -1 padding.
            boxes: (B, 4) XYXY in pixels of the model input.
            mask_input: (B, 1, *mask_input_size) logits.
            multimask_output: Return ``num_multimask_outputs`` masks per prompt instead of one.

        Returns:
            Low-resolution logits (B, M, *mask_input_size) and predicted IoU (B, M).
        """
        ...

    def postprocess_masks(
        self,
        logits: Tensor,
        *,
        input_size: tuple[int, int],
        original_size: tuple[int, int],
        columns: tuple[int, int] | None = None,
    ) -> Tensor:
        """Upscale low-resolution logits to the image's size.

        Args:
            logits: (M, 1, *mask_input_size).
            input_size: (H', W') from :meth:`preprocess`.
            original_size: (H, W) of the image.
            columns: The first of the image's columns that are wanted, and the one past the last;
                None for all.

        Returns:
            (M, 1, H, W), or (M, 1, H, n) of n columns.
        """
        ...


def resize(x: Tensor, size: tuple[int, int], columns: tuple[int, int] | None = None) -> Tensor:
    """Resize maps by bilinear interpolation.

    Args:
        x: (M, 1, h, w).
        size: (H, W) to resize to.
        columns: The first of the columns that are wanted, and the one past the last; None for all.

    Returns:
        (M, 1, H, W), or (M, 1, H, n) of n columns.
    """
    if columns is None:
        return F.interpolate(x, size, mode="bilinear", align_corners=False)
    wide = F.interpolate(x, (x.shape[-2], size[1]), mode="bilinear", align_corners=False)
    part = wide[..., columns[0] : columns[1]]
    return F.interpolate(part, (size[0], part.shape[-1]), mode="bilinear", align_corners=False)


class Sam(nn.Module):
    """Decodes masks for prompts on an image.

    Args:
        image_encoder: Maps (1, 3, H', W') to an embedding (1, C, h, w).
        prompt_encoder: Embeds points, boxes and masks.
        mask_decoder: Decodes masks and predicted IoU.
        image_size: Long side of the model input in pixels.
        pixel_mean: Mean of R, G, B in 0..255.
        pixel_std: Standard deviation of R, G, B in 0..255.
        pad_to_square: Whether the input is padded to a square, at the right and the bottom.

    Attributes:
        model_id: Name that the model was created by; "" if unnamed.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    model_id: str
    mask_threshold = 0.0

    def __init__(
        self,
        *,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        image_size: int,
        pixel_mean: Sequence[float] = PIXEL_MEAN,
        pixel_std: Sequence[float] = PIXEL_STD,
        pad_to_square: bool = True,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.image_size = image_size
        self.model_id = ""
        self.pad_to_square = pad_to_square
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    def cast_weights(self, dtype: torch.dtype) -> None:
        """Convert the image encoder's layers for good, for use under autocast in ``dtype`` only."""
        cast_layers(self.image_encoder, dtype)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.pixel_mean.device

    @property
    def mask_input_size(self) -> tuple[int, int]:
        """Size (H, W) of ``mask_input`` and of the low-resolution logits."""
        return self.prompt_encoder.mask_input_size

    @property
    def num_multimask_outputs(self) -> int:
        """Number of masks for an ambiguous prompt, besides the single one."""
        return self.mask_decoder.num_mask_tokens - 1

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        """Scale, normalise and pad an image: see :meth:`PromptableModel.preprocess`."""
        size = longest_side_size(image.shape[:2], self.image_size)
        if self.pad_to_square:
            pad_to = (self.image_size, self.image_size)
        else:
            pad_to = (-(-size[0] // 32) * 32, -(-size[1] // 32) * 32)
        values = to_pixel_values(
            image, size, mean=self.pixel_mean, std=self.pixel_std, pad_to=pad_to
        )
        return values, size

    def encode_image(self, pixel_values: Tensor) -> ImageFeatures:
        """Encode normalised images of one shape (B, 3, H', W')."""
        return ImageFeatures(image_embeddings=self.image_encoder(pixel_values))

    def decode(
        self,
        features: ImageFeatures,
        *,
        point_coords: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts: see :meth:`PromptableModel.decode`.

        Raises:
            ValueError: Only one of coordinates and labels is given.
        """
        points = self.pair_points(point_coords, point_labels)
        sparse, dense = self.prompt_encoder(points, boxes, mask_input)
        if mask_input is None:  # one learnt embedding for all prompts
            dense = dense[:1]
        masks, iou_predictions = self.mask_decoder(
            image_embeddings=features.image_embeddings,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        return masks, iou_predictions

    def postprocess_masks(
        self,
        logits: Tensor,
        *,
        input_size: tuple[int, int],
        original_size: tuple[int, int],
        columns: tuple[int, int] | None = None,
    ) -> Tensor:
        """Upscale logits to the image's size: see :func:`upscale_logits`."""
        return upscale_logits(
            logits,
            image_size=self.image_size,
            input_size=input_size,
            original_size=original_size,
            columns=columns,
        )

    @staticmethod
    def pair_points(
        point_coords: Tensor | None, point_labels: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """Return coordinates and labels as a pair; ValueError if only one of them is given."""
        if point_coords is None and point_labels is None:
            return None
        if point_coords is None or point_labels is None:
            raise ValueError("point_coords and point_labels come together: give both or neither")
        return point_coords, point_labels


def upscale_logits(
    logits: Tensor,
    *,
    image_size: int,
    input_size: tuple[int, int],
    original_size: tuple[int, int],
    columns: tuple[int, int] | None = None,
) -> Tensor:
    """Upscale low-resolution logits to the image's size, as the official code does.

    They are upscaled to the padded input, cropped to the image and upscaled again.

    Args:
        logits: (M, 1, h, w).
        image_size: Side in pixels of the padded input.
        input_size: (H', W') of the image within the model input.
        original_size: (H, W) of the image.
        columns: The first of the image's columns that are wanted, and the one past the last; None
            for all.

    Returns:
        (M, 1, H, W), or (M, 1, H, n) of n columns.
    """
    scale = image_size // logits.shape[-1]
    # Of the padding, only the first row and column have a part in what is within the image.
    height, width = (-(-side // scale) + 1 for side in input_size)
    x = logits[..., :height, :width]
    within = (scale * x.shape[-2], scale * x.shape[-1])
    x = F.interpolate(x, within, mode="bilinear", align_corners=False)
    return resize(x[..., : input_size[0], : input_size[1]], original_size, columns)
