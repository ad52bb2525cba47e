"""Runs a SAM: encodes images and decodes prompts to masks, in blocks of bounded memory.

Pre- and post-processing are the model's own. For SAM they are those of the official SamPredictor,
to the pixel: the long side is resized to the model's size, colours are normalised, the right and
the bottom are padded; logits are upscaled to the padded input, cropped, upscaled to the image and
thresholded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from ...models.device import autocast, check_support, read_dtype
from ...models.embedding import ImageEmbedding
from ...models.errors import InputError, PromptsegError
from ...models.sam.sam import PromptableModel, Sam
from ..cache.encoded import encode_cached, encoded_images
from ..cache.store import EmbeddingCache
from ..checks import Float32Array, Numbers, UInt8Array
from ..images import ImageSource, load_own_image
from ..masks import masks_to_boxes
from .encoding import encode_arrays
from .prompt_tensors import cut, read_prompts
from .prompts import LowResMasks, MaskCandidates
from .upscaling import (
    STABILITY_OFFSET,
    UpscaledMask,
    stability_score,
    upscale_blocks,
    upscale_compact,
)

# Prompts decoded at a time by default. On a CPU more of them do not fit into its caches, and
# what they need is handed back to the system and cleared again at every step.
_ON_CPU = 3
_ON_OTHERS = 32
_IMAGES = 8  # encoded at a time by default, not on a CPU


class Segmenter:
    """Encodes images and decodes prompts with a SAM; keeps no image.

    Args:
        model: The SAM, which is put in evaluation mode and stays on its device.
        batch_size: Prompts decoded at a time; bounds memory and does not change results. None
            takes 3 on a CPU and 32 on other devices.
        model_id: Name that is stored in embeddings, so that those of other models are refused; by
            default the model's own.
        dtype: Precision of the model's computations, by autocast: "fp32", "bf16", "fp16", or
            "auto" (see :func:`~promptseg.models.device.best_dtype`). Results stay float32.
        cache: Keeps encoded images on disk; None for none.
        cast_weights: Whether to convert the layers of a :class:`~promptseg.models.sam.sam.Sam`'s
            image encoder to ``dtype`` for good. Results are the same; it takes less memory and
            time, and the model is of no use in another precision afterwards.

    Raises:
        InputError: ``batch_size`` is not positive, ``dtype`` is unknown or not supported by the
            device, the model's weights are not float32, or the model cannot be cached.
    """

    def __init__(
        self,
        model: PromptableModel,
        *,
        batch_size: int | None = None,
        model_id: str | None = None,
        dtype: str | torch.dtype = "auto",
        cache: EmbeddingCache | None = None,
        cast_weights: bool = False,
    ) -> None:
        if batch_size is None:
            batch_size = _ON_CPU if model.device.type == "cpu" else _ON_OTHERS
        if batch_size < 1:
            raise InputError(f"batch_size must be 1 or more, got {batch_size}")
        self.dtype = read_dtype(dtype, model.device)
        check_support(model.device, self.dtype)
        _check_weights(model)
        model.eval()
        if cast_weights and isinstance(model, Sam):
            model.cast_weights(self.dtype)
        self.model = model
        self.batch_size = batch_size
        self.model_id = model.model_id if model_id is None else model_id
        self._kept = (
            None if cache is None else encoded_images(cache, model, self.model_id, self.dtype)
        )
        self._process = os.getpid()

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    def encode_image(self, image: ImageSource) -> ImageEmbedding:
        """Run the image encoder.

        Args:
            image: Anything that :func:`~promptseg.pipeline.images.load_image` reads.

        Returns:
            An embedding, from which any number of prompts can be decoded.

        Raises:
            InputError: The image cannot be read.
        """
        return self.encode_pixels(load_own_image(image))

    def encode_images(
        self, images: Iterable[ImageSource], *, batch_size: int | None = None
    ) -> Iterator[ImageEmbedding]:
        """Encode images one after the other, several at a time; answers are those of one by one.

        Only images of the same shape as the model's input are encoded together: SAM's are all
        square, pocket's have the proportions of the image.

        Args:
            images: Anything that :meth:`encode_image` takes, read as they are needed.
            batch_size: Most images in memory at a time. None takes 1 on a CPU, where more are not
                faster (``benchmarks/speed.py --pocket``), and 8 on other devices.

        Raises:
            InputError: ``batch_size`` is not positive, or an image cannot be read.
        """
        if batch_size is None:
            batch_size = 1 if self.device.type == "cpu" else _IMAGES
        if batch_size < 1:
            raise InputError(f"batch_size must be 1 or more, got {batch_size}")
        return self._encode_in_batches(iter(images), batch_size)

    def _encode_in_batches(
        self, images: Iterator[ImageSource], batch_size: int
    ) -> Iterator[ImageEmbedding]:
        while block := [load_own_image(image) for image in islice(images, batch_size)]:
            yield from self._embed(block)

    def encode_pixels(self, array: UInt8Array) -> ImageEmbedding:
        """Encode pixels (H, W, 3) uint8 RGB that must not be written to afterwards."""
        (embedding,) = self._embed([array])
        return embedding

    def _embed(self, arrays: Sequence[UInt8Array]) -> list[ImageEmbedding]:
        self._check_process()
        encode = partial(encode_arrays, self.model, dtype=self.dtype)
        found = []
        for array, encoded in zip(arrays, encode_cached(self._kept, arrays, encode), strict=True):
            read_only = array.view()
            read_only.flags.writeable = False
            found.append(
                ImageEmbedding(
                    features=encoded.features,
                    original_size=(array.shape[0], array.shape[1]),
                    input_size=encoded.input_size,
                    model_id=self.model_id,
                    image=read_only,
                )
            )
        return found

    def decode(
        self,
        embedding: ImageEmbedding,
        *,
        point_coords: Numbers | None = None,
        point_labels: Numbers | None = None,
        boxes: Numbers | None = None,
        mask_input: Numbers | None = None,
        multimask_output: bool = True,
    ) -> MaskCandidates:
        """Decode B prompts, each any combination of points, a box and a mask.

        Args:
            embedding: What :meth:`encode_image` returned.
            point_coords: (B, N, 2) in pixels of the image, (x, y).
            point_labels: (B, N): 1 foreground, 0 background, -1 padding, whose coordinates are
                ignored.
            boxes: (B, 4) XYXY in pixels of the image.
            mask_input: (B, 1, h, w) logits, such as the ``low_res_logits`` of an earlier call.
            multimask_output: Whether to decode three masks for a prompt (whole, part, subpart)
                instead of one.

        Returns:
            Masks at the image's size with their scores.

        Raises:
            InputError: Nothing is given, shapes disagree, a number is not finite, a label is
                unknown, a box's corners are in the wrong order, or a prompt lies outside the
                image.
        """
        low_res = self.decode_low_res(
            embedding,
            point_coords=point_coords,
            point_labels=point_labels,
            boxes=boxes,
            mask_input=mask_input,
            multimask_output=multimask_output,
        )
        return self.upscale(embedding, low_res)

    def check(self, embedding: ImageEmbedding) -> None:
        """Refuse an image that another model encoded; models without a name are not compared.

        Raises:
            InputError: The models' names differ.
        """
        if embedding.model_id and self.model_id and embedding.model_id != self.model_id:
            raise InputError(
                f"the embedding was made by {embedding.model_id!r}, this segmenter runs "
                f"{self.model_id!r}; encode the image with it"
            )

    @torch.no_grad()
    def decode_low_res(
        self,
        embedding: ImageEmbedding,
        *,
        point_coords: Numbers | None = None,
        point_labels: Numbers | None = None,
        boxes: Numbers | None = None,
        mask_input: Numbers | None = None,
        multimask_output: bool = True,
    ) -> LowResMasks:
        """Decode like :meth:`decode`, without the masks at the image's size, which are costly."""
        self.check(embedding)
        self._check_process()
        prompts = read_prompts(self.model, embedding, point_coords, point_labels, boxes, mask_input)
        channels = self.model.num_multimask_outputs if multimask_output else 1
        shape = (prompts.count, channels)
        iou_predictions = np.empty(shape, np.float32)
        low_res_logits = np.empty((*shape, *self.model.mask_input_size), np.float32)
        for start in range(0, prompts.count, self.batch_size):
            block = slice(start, start + self.batch_size)
            with autocast(self.device, self.dtype):
                logits, ious = self.model.decode(
                    embedding.features,
                    point_coords=cut(prompts.point_coords, block),
                    point_labels=cut(prompts.point_labels, block),
                    boxes=cut(prompts.boxes, block),
                    mask_input=cut(prompts.mask_input, block),
                    multimask_output=multimask_output,
                )
            low_res_logits[block] = logits.float().cpu().numpy()
            iou_predictions[block] = ious.float().cpu().numpy()
        return LowResMasks(low_res_logits, iou_predictions)

    @torch.no_grad()
    def upscale(
        self,
        embedding: ImageEmbedding,
        low_res: LowResMasks,
        *,
        stability_offset: float = STABILITY_OFFSET,
    ) -> MaskCandidates:
        """Upscale decoded masks to the image's size, and score their stability."""
        shape = low_res.iou_predictions.shape
        masks = np.empty((*shape, *embedding.original_size), np.bool_)
        stability_scores = np.empty(shape, np.float32)
        # Views with one entry per mask.
        flat_masks = masks.reshape(-1, *embedding.original_size)
        flat_scores = stability_scores.reshape(-1)
        logits = low_res.logits.reshape(-1, *low_res.logits.shape[-2:])
        threshold = self.model.mask_threshold
        for part, upscaled in upscale_blocks(self.model, logits, embedding):
            flat_masks[part] = (upscaled > threshold).cpu().numpy()
            scores = stability_score(upscaled, threshold, stability_offset)
            flat_scores[part] = scores.cpu().numpy()
        return MaskCandidates(
            masks=masks,
            iou_predictions=low_res.iou_predictions,
            low_res_logits=low_res.logits,
            stability_scores=stability_scores,
        )

    def upscale_compact(
        self,
        embedding: ImageEmbedding,
        logits: Float32Array,
        *,
        stability_offset: float = STABILITY_OFFSET,
        min_stability: float = 0.0,
    ) -> Iterator[UpscaledMask]:
        """Yield decoded masks (M, h, w) as :meth:`upscale` makes them, as run lengths.

        Of masks less stable than ``min_stability`` only the score is of use.
        """
        return upscale_compact(self.model, logits, embedding, stability_offset, min_stability)

    def low_res_boxes(self, embedding: ImageEmbedding, low_res: LowResMasks) -> Float32Array:
        """Return tight boxes (B, 4) of each prompt's first mask, XYXY in pixels of the image.

        Their resolution is a cell of the logits; all 0 for an empty mask.
        """
        step = self.model.image_size / np.array(self.model.mask_input_size[::-1])
        size = np.array(embedding.original_size[::-1])
        scale = step * size / np.array(embedding.input_size[::-1])
        boxes = masks_to_boxes(low_res.logits[:, 0] > self.model.mask_threshold)
        edges = boxes.reshape(-1, 2, 2) * scale
        scaled: Float32Array = np.minimum(edges, size).reshape(-1, 4).astype(np.float32)
        return scaled

    def to_mask_input(self, logits: NDArray[np.float32], embedding: ImageEmbedding) -> Float32Array:
        """Resample logits that span the image to the model's mask input.

        Args:
            logits: (B, h, w), of any resolution.
            embedding: The encoded image.

        Returns:
            (B, 1, *mask_input_size); beyond the image the border is repeated.
        """
        height, width = self.model.mask_input_size
        inner = self.mask_input_extent(embedding)
        x = F.interpolate(
            torch.from_numpy(logits).unsqueeze(1), inner, mode="bilinear", align_corners=False
        )
        x = F.pad(x, (0, width - inner[1], 0, height - inner[0]), mode="replicate")
        return x.numpy()

    def mask_input_extent(self, embedding: ImageEmbedding) -> tuple[int, int]:
        """Return the size (h, w) of the image within the mask input; the rest is padding."""
        height, width = self.model.mask_input_size
        return (
            max(1, round(height * embedding.input_size[0] / self.model.image_size)),
            max(1, round(width * embedding.input_size[1] / self.model.image_size)),
        )

    def _check_process(self) -> None:
        """Refuse to hang: PyTorch's threads do not survive a fork."""
        if os.getpid() != self._process and torch.get_num_threads() > 1:
            raise PromptsegError(
                "this pipeline was loaded before the process was forked, and PyTorch's threads do "
                "not survive a fork: load it in the new process, start processes by 'spawn', or "
                "call torch.set_num_threads(1) first"
            )


def _check_weights(model: PromptableModel) -> None:
    """Refuse weights in half precision: the arithmetic is chosen by ``dtype`` alone."""
    if not isinstance(model, nn.Module):
        return
    others = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if others:
        name = str(others.pop()).removeprefix("torch.")
        raise InputError(
            f"the model's weights are {name}; give it with float32 weights (model.float()) and "
            f"choose the arithmetic by dtype={name!r}"
        )
