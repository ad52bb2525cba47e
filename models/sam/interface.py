"""What the pipeline asks of a model that makes masks for prompts, whichever it is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .sam import ImageFeatures


class PromptableModel(Protocol):
    """A model that encodes an image once and decodes masks for prompts on it.

    The model input is a frame of its own: the picture, scaled, lies at its top left. Prompts come
    in pixels of that frame, logits span a square of ``image_size`` pixels of it.
    """

    @property
    def model_id(self) -> str:
        """Name of the model; "" if it has none."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    @property
    def image_size(self) -> int:
        """Side of the square that the logits span, in pixels of the model input."""
        ...

    @property
    def mask_input_size(self) -> tuple[int, int]:
        """Size (H, W) of ``mask_input`` and of the low-resolution logits."""
        ...

    @property
    def mask_threshold(self) -> float:
        """Logits above it are mask."""
        ...

    @property
    def num_multimask_outputs(self) -> int:
        """Masks of an ambiguous prompt."""
        ...

    def eval(self) -> object:
        """Switch to evaluation mode."""
        ...

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        """Turn an image (H, W, 3) uint8 RGB into what :meth:`encode_image` takes.

        Returns:
            Pixel values (1, 3, H'', W'') and the size (H', W') of the picture within them.
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
            features: Of :meth:`encode_image`.
            point_coords: (B, N, 2) in pixels of the model input, (x, y).
            point_labels: (B, N): 1 foreground, 0 background, -1 padding.
            boxes: (B, 4) XYXY in pixels of the model input.
            mask_input: (B, 1, *mask_input_size) logits.
            multimask_output: ``num_multimask_outputs`` masks for a prompt instead of one.

        Returns:
            Low-resolution logits (B, M, *mask_input_size) and predicted IoU (B, M).
        """
        ...

    def postprocess_masks(
        self, logits: Tensor, *, input_size: tuple[int, int], original_size: tuple[int, int]
    ) -> Tensor:
        """Bring low-resolution logits to the image's size.

        Args:
            logits: (M, 1, *mask_input_size).
            input_size: (H', W') of :meth:`preprocess`.
            original_size: (H, W) of the image.

        Returns:
            (M, 1, H, W).
        """
        ...
