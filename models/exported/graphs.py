"""The two networks of a SAM as they are exported, in the convention that other tools read.

The encoder maps ``input_image`` (H', W', 3), float32 RGB in 0..255 whose long side is scaled to the
model's size, to ``image_embeddings``. The decoder takes those and prompts in pixels of the scaled
image. A box is two points with the labels 2 and 3; where there is none, a point (0, 0) with the
label -1 takes its place. The convention is that of segment-anything's own ONNX export (decoder)
and of samexporter (encoder); here the decoder also takes B prompts at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..embedding import ImageFeatures
from ..pocket.drawing import keep_inside, to_square
from ..pocket.sam import PocketImageEncoder, PocketMaskDecoder, PocketPromptEncoder, PocketSam
from ..sam.prompt_encoder import PromptEncoder
from ..sam.sam import Sam
from .vit_graph import to_graph

ENCODER_INPUT = "input_image"
IMAGE_EMBEDDINGS = "image_embeddings"
DECODER_INPUTS = (
    IMAGE_EMBEDDINGS,
    "point_coords",
    "point_labels",
    "mask_input",
    "has_mask_input",
    "orig_im_size",
)
DECODER_OUTPUTS = ("masks", "iou_predictions", "low_res_masks")
BOX_LABELS = (2.0, 3.0)
PADDING_LABEL = -1.0
SIDE_MULTIPLE = 32  # of the padded input of models that do not pad to a square


class EncoderGraph(nn.Module):
    """Image to embedding: colours are normalised and the input is padded inside.

    Args:
        sam: The model; its image encoder is used.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.image_encoder = to_graph(sam.image_encoder)
        self.image_size = sam.image_size
        self.register_buffer("mean", sam.pixel_mean.view(3).clone())
        self.register_buffer("std", sam.pixel_std.view(3).clone())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what :meth:`forward` returns."""
        return (IMAGE_EMBEDDINGS,)

    def forward(self, input_image: Tensor) -> tuple[Tensor, ...]:
        """Map (H', W', 3) to the tensors of :attr:`output_names`."""
        side = self.image_size
        pixels = self._normalise(input_image)
        pixels = F.pad(pixels, (0, side - pixels.shape[-1], 0, side - pixels.shape[-2]))
        return (self.image_encoder(pixels.reshape(1, 3, side, side)),)

    def _normalise(self, input_image: Tensor) -> Tensor:
        return ((input_image - self.mean) / self.std).permute(2, 0, 1).unsqueeze(0)


class PocketEncoderGraph(EncoderGraph):
    """The encoder of pocket: its three maps in one, and those of the backbone for text."""

    image_encoder: PocketImageEncoder

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what :meth:`forward` returns."""
        return (IMAGE_EMBEDDINGS, *(f"backbone_features_{i}" for i in range(4)))

    def forward(self, input_image: Tensor) -> tuple[Tensor, ...]:
        """Map (H', W', 3) to the tensors of :attr:`output_names`."""
        pixels = self._normalise(input_image)
        height, width = pixels.shape[-2:]
        pixels = F.pad(pixels, (0, -width % SIDE_MULTIPLE, 0, -height % SIDE_MULTIPLE))
        # Its forward pass also sets what autocast does, which graphs know nothing of.
        features = self.image_encoder.embed(self.image_encoder.backbone(pixels))
        packed = pack_maps(features.image_embeddings, features.high_res_features)
        return (packed, *features.backbone_features)


def pack_maps(image_embeddings: Tensor, high_res_features: tuple[Tensor, ...]) -> Tensor:
    """Put maps of 2 and 4 times the resolution below those of an embedding (1, C, h, w).

    The convention has a single tensor for an encoded image; nothing is lost.

    Returns:
        (1, C + 4 * C2 + 16 * C4, h, w).
    """
    size = image_embeddings.shape[-2:]
    # The reshapes change nothing: they tell exporters the widths.
    folded = [
        F.pixel_unshuffle(item, step).reshape(1, step * step * item.shape[1], *size)
        for item, step in zip(high_res_features, (2, 4), strict=True)
    ]
    return torch.cat([image_embeddings, *folded], dim=1)


def unpack_maps(packed: Tensor, dims: tuple[int, int, int]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Undo :func:`pack_maps` for maps of these widths."""
    embeddings, stride8, stride4 = packed.split((dims[0], 4 * dims[1], 16 * dims[2]), dim=1)
    return embeddings, (F.pixel_shuffle(stride8, 2), F.pixel_shuffle(stride4, 4))


class GraphPrompts(NamedTuple):
    """B prompts in the convention of other tools, as :meth:`DecoderGraph.forward` takes them."""

    point_coords: Tensor
    point_labels: Tensor
    mask_input: Tensor
    has_mask_input: Tensor


class DecoderGraph(nn.Module):
    """Prompts on an encoded image to masks, all of them: the single one first.

    Args:
        sam: The model; its prompt encoder and mask decoder are used.
    """

    image_pe: Tensor
    to_input: Tensor

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.image_size = sam.image_size
        self.register_buffer("image_pe", sam.prompt_encoder.get_dense_pe().clone())
        side = sam.mask_input_size[0]
        identity = torch.eye(side)[None]
        to_input = F.interpolate(identity, sam.image_size, mode="linear", align_corners=False)
        self.register_buffer("to_input", to_input[0].T.contiguous())  # (image_size, side)

    @property
    def embedding_width(self) -> int:
        """Channels of ``image_embeddings``."""
        return self.prompt_encoder.embed_dim

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode B prompts.

        Args:
            image_embeddings: What the encoder returned for the image.
            point_coords: (B, N, 2) in pixels of the scaled image, (x, y).
            point_labels: (B, N) float: 1 foreground, 0 background, 2 and 3 corners of a box, -1
                padding.
            mask_input: (B, 1, h, w) logits; anything where there is none.
            has_mask_input: (1,) float, 1 or 0.
            orig_im_size: (2,) float, height and width of the image.

        Returns:
            Logits (B, M, H, W) at the size of the image, predicted IoU (B, M) and low-resolution
            logits (B, M, h, w).
        """
        prompts = GraphPrompts(point_coords, point_labels, mask_input, has_mask_input)
        logits, iou_predictions = self.decode(image_embeddings, prompts)
        final = self.finish(logits, prompts)
        return self.upscale(final, orig_im_size), iou_predictions, logits

    def decode(self, image_embeddings: Tensor, prompts: GraphPrompts) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (B, M, h, w) and predicted IoU (B, M)."""
        encoder = self.prompt_encoder
        no_mask = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        dense = encoder.mask_downscaling(prompts.mask_input)
        masks, iou_predictions = self.mask_decoder.predict_masks(
            image_embeddings=image_embeddings,
            image_pe=self.image_pe,
            sparse_prompt_embeddings=embed_points(encoder, prompts),
            dense_prompt_embeddings=torch.where(prompts.has_mask_input > 0, dense, no_mask),
        )
        return masks, iou_predictions

    def finish(self, logits: Tensor, prompts: GraphPrompts) -> Tensor:
        """What is done to logits before they are upscaled: nothing."""
        return logits

    def upscale(self, logits: Tensor, orig_im_size: Tensor) -> Tensor:
        """Upscale like :meth:`Sam.postprocess_masks`, by matrices whose size is a number."""
        longest = orig_im_size.max()
        rows, columns = (
            self._scaling(orig_im_size[axis], longest) @ self.to_input for axis in (0, 1)
        )
        return rows @ logits @ columns.T

    def _scaling(self, length: Tensor, longest: Tensor) -> Tensor:
        """Weights (L, image_size) of the scaled image's pixels in one of L pixels."""
        inner = torch.floor(length * (self.image_size / longest) + 0.5).clamp(min=1)
        target = torch.arange(length.to(torch.int64).item(), dtype=torch.float32)
        source = (target + 0.5) * (inner / length) - 0.5
        source = torch.minimum(source.clamp(min=0), inner - 1)
        position = torch.arange(self.image_size, dtype=torch.float32)
        return F.relu(1 - (source[:, None] - position).abs())


class PocketDecoderGraph(DecoderGraph):
    """The decoder of pocket, whose prompts are also drawn and whose masks end at their box.

    The low-resolution logits do not, as they are what the mask input of another pass is.
    """

    prompt_encoder: PocketPromptEncoder
    mask_decoder: PocketMaskDecoder

    def __init__(self, sam: PocketSam) -> None:
        super().__init__(sam)
        self.dims = (sam.prompt_encoder.embed_dim, *sam.mask_decoder.high_res_dims)

    @property
    def embedding_width(self) -> int:
        """Channels of ``image_embeddings``."""
        return self.dims[0] + 4 * self.dims[1] + 16 * self.dims[2]

    def decode(self, image_embeddings: Tensor, prompts: GraphPrompts) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (B, M, h, w) and predicted IoU (B, M)."""
        encoder = self.prompt_encoder
        embeddings, high_res = unpack_maps(image_embeddings, self.dims)
        height, width = embeddings.shape[-2:]
        mask = prompts.mask_input
        has_mask = (prompts.has_mask_input > 0).to(mask.dtype).reshape(1, 1, 1, 1)
        box, has_box = read_boxes(prompts)
        drawn = torch.cat(
            [
                torch.tanh(mask / 4) * has_mask,
                torch.ones_like(mask) * has_mask,
                encoder.draw_boxes(box) * has_box[:, :, None, None],
                encoder.draw_points(
                    # One more, not drawn: there may be none.
                    F.pad(prompts.point_coords, (0, 0, 0, 1)),
                    F.pad(prompts.point_labels, (0, 1), value=PADDING_LABEL),
                ),
            ],
            dim=1,
        )
        masks, iou_predictions = self.mask_decoder.predict_from(
            ImageFeatures(image_embeddings=embeddings, high_res_features=high_res),
            image_pe=self.image_pe[..., :height, :width],
            sparse_prompt_embeddings=embed_points(encoder, prompts),
            dense_prompt_embeddings=encoder.mask_downscaling(drawn)[..., :height, :width],
        )
        return to_square(masks, encoder.mask_input_size), iou_predictions

    def finish(self, logits: Tensor, prompts: GraphPrompts) -> Tensor:
        """What is done to logits before they are upscaled: they end at the box."""
        box, has_box = read_boxes(prompts)
        inside = self.prompt_encoder.draw_boxes(box) * has_box[:, :, None, None]
        return keep_inside(logits, inside)


def embed_points(encoder: PromptEncoder, prompts: GraphPrompts) -> Tensor:
    """Embed points (B, N, 2) with labels -1 to 3 (B, N) as tokens (B, N, C)."""
    centres = prompts.point_coords + 0.5
    encoded = encoder.pe_layer.forward_with_coords(centres, encoder.input_image_size)
    labels = prompts.point_labels.unsqueeze(-1)
    tokens = encoded
    for label, kind in enumerate(encoder.point_embeddings.parameters()):
        tokens = torch.where(labels == label, encoded + kind, tokens)
    return torch.where(labels == PADDING_LABEL, encoder.not_a_point_embed.weight, tokens)


def read_boxes(prompts: GraphPrompts) -> tuple[Tensor, Tensor]:
    """Boxes (B, 4) among the points (B, N, 2), and whether there are (B, 1), 1 or 0."""
    coords, labels = prompts.point_coords, prompts.point_labels
    corners = [(coords * (labels == label)[..., None]).sum(1) for label in BOX_LABELS]
    has_box = (labels == BOX_LABELS[0]).to(coords.dtype).sum(1, keepdim=True)
    return torch.cat(corners, dim=1), has_box
