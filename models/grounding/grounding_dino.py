"""Grounding DINO: boxes of what a phrase names.

Source: Liu et al. 2023, "Grounding DINO: Marrying DINO with Grounded Pre-Training for Open-Set
Object Detection". The model is that of transformers. Its image backbone does not depend on the text
and runs once per image; each phrase is a separate caption.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..device import autocast, read_dtype
from .answers import Detections, best_boxes, corners_xyxy
from .hugging_face import check_batch_size, check_phrase, load_pretrained, text_limit

if TYPE_CHECKING:
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

# The backbone's feature maps (1, C, h, w), each with a mask (1, h, w) that is false on padding.
FeatureMaps = tuple[tuple[Tensor, Tensor], ...]

# Maps that the wrapped backbone returns instead of running; each thread has its own.
_REMEMBERED: ContextVar[FeatureMaps | None] = ContextVar("remembered", default=None)


@dataclass(frozen=True, eq=False)
class GroundingDinoView:
    """Features of one image, independent of the phrases.

    Attributes:
        features: Maps of the image backbone.
        input_size: (H', W') of the model's input.
        image_size: (H, W) of the image.
    """

    features: FeatureMaps
    input_size: tuple[int, int]
    image_size: tuple[int, int]


class _RememberingBackbone(nn.Module):
    """A backbone that can return given maps, repeated for each phrase of a batch."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    @contextmanager
    def remember(self, features: FeatureMaps) -> Iterator[None]:
        """Return these maps instead of running, within the context."""
        token = _REMEMBERED.set(features)
        try:
            yield
        finally:
            _REMEMBERED.reset(token)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """Feature maps and masks of images (B, 3, H', W')."""
        remembered = _REMEMBERED.get()
        if remembered is None:
            return self.backbone(pixel_values, pixel_mask)
        count = len(pixel_values)
        return [
            (features.expand(count, -1, -1, -1), mask.expand(count, -1, -1))
            for features, mask in remembered
        ]


class GroundingDino:
    """Finds boxes for phrases, each scored independently.

    Args:
        model: A transformers model in evaluation mode. It is modified: its backbone is wrapped,
            and its captions get the positions that they had in training.
        processor: The processor of the same checkpoint.
        dtype: Type that the model computes in; see :func:`read_dtype`.
        batch_size: Number of phrases that go through the model together, which bounds memory.
    """

    def __init__(
        self,
        model: GroundingDinoForObjectDetection,
        processor: GroundingDinoProcessor,
        *,
        dtype: str | torch.dtype = "auto",
        batch_size: int = 4,
    ) -> None:
        self.model = model
        self.processor = processor
        self.dtype = read_dtype(dtype, model.device)
        self.batch_size = check_batch_size(batch_size)
        encoder = model.model.backbone
        self.backbone = _RememberingBackbone(encoder.conv_encoder)
        encoder.conv_encoder = self.backbone
        model.model.text_backbone.register_forward_pre_hook(_place_for_text)
        model.model.encoder.register_forward_pre_hook(_place_for_fusion, with_kwargs=True)
        self._limit = min(model.config.max_text_len, text_limit(model))

    @torch.inference_mode()
    def look(self, image: NDArray[np.uint8]) -> GroundingDinoView:
        """Encode an image (H, W, 3) uint8 RGB once, for any number of phrases."""
        device = self.model.device
        inputs = self.processor.image_processor(Image.fromarray(image), return_tensors="pt")
        pixels = inputs["pixel_values"].to(device)
        with autocast(device, self.dtype):
            features = self.backbone(pixels, inputs["pixel_mask"].to(device))
        return GroundingDinoView(
            features=tuple(features),
            input_size=(pixels.shape[2], pixels.shape[3]),
            image_size=(image.shape[0], image.shape[1]),
        )

    @torch.inference_mode()
    def ground(self, phrases: Sequence[str], view: GroundingDinoView) -> list[Detections]:
        """Find the objects that each phrase names.

        A box's score is the highest score of any of the phrase's tokens for it.

        Args:
            phrases: What to look for.
            view: The result of :meth:`look`.

        Returns:
            Boxes of each phrase, in the order of the phrases.

        Raises:
            InputError: A phrase has no known word or is too long.
        """
        captions = [self._caption(phrase) for phrase in phrases]
        found = []
        for start in range(0, len(phrases), self.batch_size):
            block = slice(start, start + self.batch_size)
            found += self._ground_block(phrases[block], captions[block], view)
        return found

    def _caption(self, phrase: str) -> str:
        """The phrase as captions were in training: in lower case, ending in its only period.

        Raises:
            InputError: The phrase has no known word or is too long.
        """
        # Periods and question marks inside would split it into several phrases.
        words = phrase.lower().replace(".", " ").replace("?", " ").split()
        caption = " ".join(words) + "."
        tokenizer = self.processor.tokenizer
        tokens = tokenizer(caption)["input_ids"]
        # The first token starts every caption; the last two are the period and the end token.
        check_phrase(
            phrase, tokens[1:-2], length=len(tokens), limit=self._limit, tokenizer=tokenizer
        )
        return caption

    def _ground_block(
        self, phrases: Sequence[str], captions: list[str], view: GroundingDinoView
    ) -> list[Detections]:
        device = self.model.device
        text = self.processor.tokenizer(captions, padding=True, return_tensors="pt").to(device)
        # The model takes only the image's size from the pixels, the rest from the backbone.
        pixels = torch.zeros(1, device=device).expand(len(captions), 3, *view.input_size)
        with autocast(device, self.dtype), self.backbone.remember(view.features):
            output = self.model(
                pixel_values=pixels,
                input_ids=text["input_ids"],
                token_type_ids=text["token_type_ids"],
                attention_mask=text["attention_mask"],
            )
        boxes = corners_xyxy(output.pred_boxes, view.image_size)
        lengths = text["attention_mask"].sum(1).tolist()
        return [
            best_boxes(
                phrases[i],
                boxes[i],
                output.logits[i, :, 1 : lengths[i] - 2].amax(1).float().sigmoid().cpu().numpy(),
                view.image_size,
            )
            for i in range(len(phrases))
        ]


def _positions(sees: Tensor) -> Tensor:
    """The positions that the tokens of captions had in training.

    A phrase and its period are one block, numbered from 0; the tokens around it have position 0
    too. transformers 5.0 to 5.22 give the period position 0.

    Args:
        sees: Which token attends to which, (B, L, L) bool; the tokens around the block attend only
            to themselves.

    Returns:
        (B, L) int64.
    """
    places = torch.arange(-1, sees.shape[1] - 1, device=sees.device)
    return torch.where(sees.sum(-1) > 1, places, 0)


def _place_for_text(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Replace the position ids, the fourth input of the text model."""
    ids, sees, types, _positions_given, *others = inputs
    return ids, sees, types, _positions(sees.reshape(len(ids), ids.shape[1], -1)), *others


def _place_for_fusion(
    _: nn.Module, inputs: tuple[object, ...], named: dict[str, Any]
) -> tuple[tuple[object, ...], dict[str, Any]]:
    """Replace the position ids in the inputs of the encoder that fuses text and image."""
    positions = _positions(~named["text_self_attention_masks"])
    return inputs, {**named, "text_position_ids": positions}


def create_grounding_dino(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "auto",
    batch_size: int = 4,
) -> GroundingDino:
    """Load Grounding DINO.

    Args:
        checkpoint: A folder in the hub's layout, or the hub id of a model on this machine, such as
            "IDEA-Research/grounding-dino-tiny" or "IDEA-Research/grounding-dino-base".
        device: Device to put the model on.
        dtype: Type that it computes in: auto, fp32, bf16 or fp16.
        batch_size: Number of phrases that go through the model together.

    Raises:
        CheckpointError: The checkpoint is missing, broken or another model's.
        InputError: There is no such dtype, or the batch size is not positive.
    """
    read_dtype(dtype)
    model, processor = load_pretrained(
        checkpoint,
        model="GroundingDinoForObjectDetection",
        processor="GroundingDinoProcessor",
        model_types=("grounding-dino",),
        device=device,
    )
    return GroundingDino(
        cast("GroundingDinoForObjectDetection", model),
        cast("GroundingDinoProcessor", processor),
        dtype=dtype,
        batch_size=batch_size,
    )
