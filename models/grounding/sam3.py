"""SAM 3 as a detector: boxes of what a phrase names.

Source: Carion et al. 2025, "SAM 3: Segment Anything with Concepts". The model is that of
transformers 5. It predicts separately from the boxes whether the object is in the image:

    score = sigmoid(box logit) * sigmoid(presence logit)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..device import autocast, read_dtype
from .answers import Detections, best_boxes
from .hugging_face import check_phrase, load_pretrained, text_limit

if TYPE_CHECKING:
    from transformers import Sam3Model, Sam3Processor
    from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput


@dataclass(frozen=True, eq=False)
class Sam3View:
    """Features of one image, independent of the phrases.

    Attributes:
        features: Output of the image encoder.
        image_size: (H, W) of the image.
    """

    features: Sam3VisionEncoderOutput
    image_size: tuple[int, int]


class Sam3Grounder:
    """Finds boxes for phrases, one phrase after another.

    Args:
        model: A transformers model in evaluation mode.
        processor: The processor of the same checkpoint.
        dtype: Type that the model computes in; see :func:`read_dtype`.
    """

    def __init__(
        self, model: Sam3Model, processor: Sam3Processor, *, dtype: str | torch.dtype = "auto"
    ) -> None:
        self.model = model
        self.processor = processor
        self.dtype = read_dtype(dtype, model.device)
        self._limit = text_limit(model)

    @torch.inference_mode()
    def look(self, image: NDArray[np.uint8]) -> Sam3View:
        """Encode an image (H, W, 3) uint8 RGB once, for any number of phrases."""
        device = self.model.device
        inputs = self.processor.image_processor(Image.fromarray(image), return_tensors="pt")
        with autocast(device, self.dtype):
            features = self.model.get_vision_features(inputs["pixel_values"].to(device))
        return Sam3View(features=features, image_size=(image.shape[0], image.shape[1]))

    @torch.inference_mode()
    def ground(self, phrases: Sequence[str], view: Sam3View) -> list[Detections]:
        """Find the objects that each phrase names.

        Args:
            phrases: What to look for.
            view: The result of :meth:`look`.

        Returns:
            Boxes of each phrase, in the order of the phrases. Presence is the highest score.

        Raises:
            InputError: A phrase is empty or too long.
        """
        tokenizer = self.processor.tokenizer
        for phrase in phrases:
            tokens = tokenizer(phrase)["input_ids"]
            check_phrase(
                phrase, tokens[1:-1], length=len(tokens), limit=self._limit, tokenizer=tokenizer
            )
        # Masks of all queries are computed along with the boxes: a batch would need much memory.
        return [self._ground_one(phrase, view) for phrase in phrases]

    def _ground_one(self, phrase: str, view: Sam3View) -> Detections:
        device = self.model.device
        text = self.processor.tokenizer(
            [phrase], padding="max_length", max_length=self._limit, return_tensors="pt"
        ).to(device)
        with autocast(device, self.dtype):
            output = self.model(
                vision_embeds=view.features,
                input_ids=text["input_ids"],
                attention_mask=text["attention_mask"],
            )
        scores = output.pred_logits[0].float().sigmoid()
        scores = scores * output.presence_logits[0].float().sigmoid()
        height, width = view.image_size
        scale = np.array([width, height, width, height], np.float32)
        boxes = output.pred_boxes[0].float().cpu().numpy() * scale
        return best_boxes(phrase, boxes, scores.cpu().numpy(), view.image_size)


def create_sam3_grounder(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "auto",
) -> Sam3Grounder:
    """Load SAM 3.

    Args:
        checkpoint: A folder in the hub's layout, or the hub id of a model on this machine, such as
            "facebook/sam3".
        device: Device to put the model on.
        dtype: Type that it computes in: auto, fp32, bf16 or fp16.

    Raises:
        CheckpointError: The checkpoint is missing, broken or another model's, or the installed
            transformers has no SAM 3.
        InputError: There is no such dtype.
    """
    read_dtype(dtype)
    model, processor = load_pretrained(
        checkpoint,
        model="Sam3Model",
        processor="Sam3Processor",
        # The published folder holds the video model, of which this one is a part.
        model_types=("sam3", "sam3_video"),
        device=device,
    )
    return Sam3Grounder(cast("Sam3Model", model), cast("Sam3Processor", processor), dtype=dtype)
