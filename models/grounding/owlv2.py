"""OWLv2: boxes of what a phrase names.

Source: Minderer et al. 2023, "Scaling Open-Vocabulary Object Detection". The model is that of
transformers. Its image encoder and its boxes do not depend on the text and are computed once per
image; a phrase is a single vector that is compared with every box.
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
from torch import Tensor

from ..device import autocast, read_dtype
from .answers import Detections, best_boxes, corners_xyxy
from .hugging_face import check_batch_size, check_phrase, load_pretrained, text_limit

if TYPE_CHECKING:
    from transformers import Owlv2ForObjectDetection, Owlv2Processor


@dataclass(frozen=True, eq=False)
class Owlv2View:
    """Features and boxes of one image, independent of the phrases.

    Attributes:
        features: (1, Q, C), a vector for each of the Q boxes.
        boxes_xyxy: (Q, 4) in pixels of the image, which they may overhang.
        image_size: (H, W) of the image.
    """

    features: Tensor
    boxes_xyxy: NDArray[np.float32]
    image_size: tuple[int, int]


class Owlv2:
    """Finds boxes for phrases, each scored independently.

    Phrases are used as they are, without "a photo of a" in front.

    Args:
        model: A transformers model in evaluation mode.
        processor: The processor of the same checkpoint.
        dtype: Type that the model computes in; see :func:`read_dtype`.
        batch_size: Number of phrases that go through the model together, which bounds memory.
    """

    def __init__(
        self,
        model: Owlv2ForObjectDetection,
        processor: Owlv2Processor,
        *,
        dtype: str | torch.dtype = "auto",
        batch_size: int = 16,
    ) -> None:
        self.model = model
        self.processor = processor
        self.dtype = read_dtype(dtype, model.device)
        self.batch_size = check_batch_size(batch_size)
        self._limit = text_limit(model)

    @torch.inference_mode()
    def look(self, image: NDArray[np.uint8]) -> Owlv2View:
        """Encode an image (H, W, 3) uint8 RGB once, for any number of phrases."""
        device = self.model.device
        inputs = self.processor.image_processor(Image.fromarray(image), return_tensors="pt")
        with autocast(device, self.dtype):
            feature_map = self.model.image_embedder(inputs["pixel_values"].to(device))[0].float()
        # The small heads stay in full precision: bf16 would round boxes to 1/256 of the frame.
        features = feature_map.flatten(1, 2)
        boxes = self.model.box_predictor(features, feature_map)
        # The processor pads the image to a square at the right or the bottom.
        side = max(image.shape[:2])
        return Owlv2View(
            features=features,
            boxes_xyxy=corners_xyxy(boxes[0], (side, side)),
            image_size=(image.shape[0], image.shape[1]),
        )

    @torch.inference_mode()
    def ground(self, phrases: Sequence[str], view: Owlv2View) -> list[Detections]:
        """Find the objects that each phrase names.

        Args:
            phrases: What to look for.
            view: The result of :meth:`look`.

        Returns:
            Boxes of each phrase, in the order of the phrases.

        Raises:
            InputError: A phrase is empty or too long.
        """
        for phrase in phrases:
            tokens = self.processor.tokenizer(phrase)["input_ids"]
            check_phrase(
                phrase,
                tokens[1:-1],
                length=len(tokens),
                limit=self._limit,
                tokenizer=self.processor.tokenizer,
            )
        found = []
        for start in range(0, len(phrases), self.batch_size):
            block = list(phrases[start : start + self.batch_size])
            scores = self._score(block, view)
            found += [
                best_boxes(block[i], view.boxes_xyxy, scores[i], view.image_size)
                for i in range(len(block))
            ]
        return found

    def _score(self, phrases: list[str], view: Owlv2View) -> NDArray[np.float32]:
        """Scores (P, Q) of every box for every phrase."""
        device = self.model.device
        text = self.processor.tokenizer(
            phrases, padding="max_length", max_length=self._limit, return_tensors="pt"
        ).to(device)
        owlv2 = self.model.owlv2
        with autocast(device, self.dtype):
            pooled = owlv2.text_model(
                input_ids=text["input_ids"], attention_mask=text["attention_mask"]
            ).pooler_output
            embeddings = owlv2.text_projection(pooled).float()
        embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
        logits = self.model.class_predictor(view.features, embeddings[None])[0]
        scores: NDArray[np.float32] = logits[0].T.sigmoid().cpu().numpy()
        return scores


def create_owlv2(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "auto",
    batch_size: int = 16,
) -> Owlv2:
    """Load OWLv2.

    Args:
        checkpoint: A folder in the hub's layout, or the hub id of a model on this machine, such as
            "google/owlv2-base-patch16-ensemble" or "google/owlv2-large-patch14-ensemble".
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
        model="Owlv2ForObjectDetection",
        processor="Owlv2Processor",
        model_types=("owlv2",),
        device=device,
    )
    return Owlv2(
        cast("Owlv2ForObjectDetection", model),
        cast("Owlv2Processor", processor),
        dtype=dtype,
        batch_size=batch_size,
    )
