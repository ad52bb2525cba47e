"""A SAM that runs from an exported folder, with promptseg's own pre- and post-processing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..device import read_dtype
from ..embedding import ImageFeatures
from ..foreign import hash_file
from ..pocket.drawing import decode_in_passes, draw_boxes, keep_inside
from ..preprocess import longest_side_size, resize
from ..sam.sam import Sam, upscale_logits
from .graphs import BOX_LABELS, DECODER_INPUTS, ENCODER_INPUT, PADDING_LABEL
from .manifest import FILES, Manifest, choose_runtime, read_manifest
from .runtimes import Run, open_model


class ExportedSam:
    """A promptable model whose two networks run outside torch, for a ``Segmenter``.

    Args:
        manifest: What the networks are.
        encode: Runs the encoder, with all its outputs.
        decode: Runs the decoder; gives predicted IoU and low-resolution logits.
        fingerprint: Returns what tells the networks and what runs them from all others.

    Attributes:
        model_id: Name of the model.
        image_size: Long side of the model input in pixels.
        mask_input_size: (h, w) of ``mask_input`` and of the low-resolution logits.
        mask_threshold: Logits above it belong to the mask.
        num_multimask_outputs: Number of masks for an ambiguous prompt.
        device: The CPU.
    """

    device = torch.device("cpu")

    def __init__(
        self, manifest: Manifest, *, encode: Run, decode: Run, fingerprint: Callable[[], str]
    ) -> None:
        self.manifest = manifest
        self.fingerprint = fingerprint
        self.model_id = manifest.model
        self.image_size = manifest.image_size
        self.mask_input_size = manifest.mask_input_size
        self.mask_threshold = manifest.mask_threshold
        self.num_multimask_outputs = manifest.num_multimask_outputs
        self._encode = encode
        self._decode = decode

    def eval(self) -> ExportedSam:
        """Return the model, which has no other mode."""
        return self

    def preprocess(self, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        """Scale an image (H, W, 3) uint8 RGB; the encoder does the rest.

        Returns:
            Pixels (H', W', 3) in 0..255 and their size (H', W').
        """
        size = longest_side_size(image.shape[:2], self.image_size)
        return torch.from_numpy(resize(image, size).astype(np.float32)), size

    def encode_image(self, pixel_values: Tensor) -> ImageFeatures:
        """Encode one scaled image (H', W', 3)."""
        embeddings, *maps = self._encode({ENCODER_INPUT: pixel_values.numpy()})
        return ImageFeatures(
            image_embeddings=torch.from_numpy(embeddings),
            backbone_features=tuple(torch.from_numpy(item) for item in maps),
        )

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
        """Decode B prompts on one encoded image, like :meth:`Sam.decode`."""

        def decode(
            points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, mask_input: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            return self._run_decoder(features, points, boxes, mask_input)

        points = Sam.pair_points(point_coords, point_labels)
        in_passes = self.manifest.family == "pocket"
        if in_passes:
            masks, iou_predictions = decode_in_passes(decode, points, boxes, mask_input)
        else:
            masks, iou_predictions = decode(points, boxes, mask_input)
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        masks, iou_predictions = masks[:, chosen], iou_predictions[:, chosen]
        if in_passes and boxes is not None:
            side = (self.image_size, self.image_size)
            masks = keep_inside(masks, draw_boxes(boxes, self.mask_input_size, side))
        return masks, iou_predictions

    def postprocess_masks(
        self,
        logits: Tensor,
        *,
        input_size: tuple[int, int],
        original_size: tuple[int, int],
        columns: tuple[int, int] | None = None,
    ) -> Tensor:
        """Upscale low-resolution logits (M, 1, h, w) to the image's size, as `Sam` does."""
        return upscale_logits(
            logits,
            image_size=self.image_size,
            input_size=input_size,
            original_size=original_size,
            columns=columns,
        )

    def _run_decoder(
        self,
        features: ImageFeatures,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        mask_input: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        coords, labels = _label_points(points, boxes, 1 if mask_input is None else len(mask_input))
        has_mask = mask_input is not None
        if mask_input is None:
            mask_input = torch.zeros(len(coords), 1, *self.mask_input_size)
        values = (
            features.image_embeddings,
            coords,
            labels,
            mask_input,
            torch.tensor([float(has_mask)]),
        )
        names = (name for name in DECODER_INPUTS if name != "orig_im_size")
        inputs = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        iou_predictions, logits = self._decode(inputs)
        return torch.from_numpy(logits), torch.from_numpy(iou_predictions)


def _label_points(
    points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, count: int
) -> tuple[Tensor, Tensor]:
    """Points (B, N, 2) and labels (B, N) of the convention, which has boxes as points."""
    coords, labels = [], []
    if points is not None:
        coords.append(points[0])
        labels.append(points[1])
        count = len(points[0])
    if boxes is not None:
        coords.append(boxes.reshape(-1, 2, 2))
        labels.append(torch.tensor(BOX_LABELS).expand(len(boxes), 2))
    elif points is not None:
        coords.append(torch.zeros(count, 1, 2))
        labels.append(torch.full((count, 1), PADDING_LABEL))
    if not coords:
        return torch.zeros(count, 0, 2), torch.zeros(count, 0)
    return torch.cat(coords, dim=1).contiguous(), torch.cat(labels, dim=1).contiguous()


def load_exported(
    folder: str | Path, *, runtime: str | None = None, dtype: str | torch.dtype = "fp32"
) -> ExportedSam:
    """Load a SAM from a folder that `promptseg export` wrote, to run it without torch's networks.

    Args:
        folder: The folder.
        runtime: "onnx" (onnxruntime) or "openvino", which reads both formats; by default the one
            that the folder was written for.
        dtype: Type to compute in: "fp32", or "bf16" with OpenVINO. Inputs and outputs are float32.

    Returns:
        A model for ``promptseg.pipeline.Segmenter``.

    Raises:
        CheckpointError: The folder holds no exported model, or a damaged one.
        InputError: The runtime is unknown, not installed, or cannot run the folder.
    """
    manifest, place = read_manifest(folder), Path(folder)
    chosen, precision = choose_runtime(runtime, manifest.format), read_dtype(dtype)
    encoder, decoder = (place / name for name in FILES[manifest.format][:2])
    return ExportedSam(
        manifest,
        encode=open_model(encoder, chosen, manifest.encoder_outputs, precision),
        decode=open_model(decoder, chosen, ("iou_predictions", "low_res_masks"), precision),
        fingerprint=partial(_fingerprint, place, manifest, f"{chosen} {precision}"),
    )


def _fingerprint(folder: Path, manifest: Manifest, how: str) -> str:
    return " ".join([how, *(hash_file(folder / name) for name in FILES[manifest.format])])
