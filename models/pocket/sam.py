"""Pocket SAM: Segment Anything's parts at a size that responds instantly on a laptop without a GPU.

It keeps SAM's interface and names, and differs where little data and compute require it:

- the image encoder is EfficientNet-Lite2 with a small convolutional neck, at stride 16 of a
  512 px input, and the decoder also reads its stride-8 and stride-4 maps (as SAM 2 does);
- points and boxes are also drawn as maps that enter through SAM's own mask path, from which a
  decoder of this size learns far faster than from tokens alone;
- ConvNeXt blocks (Liu et al. 2022) spread a prompt's evidence to its neighbourhood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..embedding import ImageFeatures
from ..sam.layers import LayerNorm2d
from ..sam.mask_decoder import MLP, MaskDecoder
from ..sam.prompt_encoder import PromptEncoder, prompt_batch_size
from ..sam.sam import Sam
from ..sam.transformer import TwoWayTransformer
from .backbone import CHANNELS, PIXEL_MEAN, PIXEL_STD, EfficientNetLite2, imagenet_state_dict
from .blocks import ConvNextBlock
from .drawing import POINT_SIGMAS, decode_in_passes, draw_boxes, draw_points, keep_inside, to_square

BACKBONE_PREFIX = "image_encoder.backbone."
# A block that no other SAM has: a file that contains it holds trained pocket parts.
_POCKET_PREFIX = "mask_decoder.output_upscaling.1.dwconv."
# Previous mask, whether there is one, box, foreground and background clicks.
PROMPT_CHANNELS = 3 + 2 * len(POINT_SIGMAS)
MASK_EVIDENCE = 3  # numbers about a mask that its predicted IoU depends on


@dataclass(frozen=True)
class PocketSamConfig:
    """Sizes of a pocket SAM.

    Attributes:
        image_size: Long side of the model input in pixels; a multiple of 32.
        embed_dim: Width of the image embedding and of the tokens.
        neck_depth: ConvNeXt blocks of the encoder's neck.
        high_res_dims: Widths of the maps at strides 8 and 4.
        fuse_depth: ConvNeXt blocks before and after the two-way transformer.
        transformer_depth: Two-way blocks.
        num_heads: Attention heads of the two-way blocks.
    """

    image_size: int = 512
    embed_dim: int = 128
    neck_depth: int = 2
    high_res_dims: tuple[int, int] = (64, 32)
    fuse_depth: int = 1
    transformer_depth: int = 2
    num_heads: int = 4


class PocketImageEncoder(nn.Module):
    """The backbone with a convolutional neck.

    Args:
        embed_dim: Width of the image embedding.
        neck_depth: ConvNeXt blocks of the neck.
        high_res_dims: Widths of the maps at strides 8 and 4.
    """

    def __init__(self, *, embed_dim: int, neck_depth: int, high_res_dims: tuple[int, int]) -> None:
        super().__init__()
        self.backbone = EfficientNetLite2()
        self.neck = nn.Sequential(
            nn.Conv2d(CHANNELS[2] + CHANNELS[3], embed_dim, kernel_size=1),
            LayerNorm2d(embed_dim),
            *(ConvNextBlock(embed_dim, kernel_size=7, expansion=3) for _ in range(neck_depth)),
        )
        self.high_res_neck = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(CHANNELS[stage], dim, kernel_size=1),
                LayerNorm2d(dim),
                ConvNextBlock(dim, kernel_size=5, expansion=2),
            )
            for stage, dim in zip((1, 0), high_res_dims, strict=True)
        )

    def embed(self, backbone_features: tuple[Tensor, ...]) -> ImageFeatures:
        """Turn the backbone's four maps into the features that the mask decoder reads."""
        stride4, stride8, middle, last = backbone_features
        return ImageFeatures(
            image_embeddings=self.neck(torch.cat([middle, last], dim=1)),
            high_res_features=(self.high_res_neck[0](stride8), self.high_res_neck[1](stride4)),
            backbone_features=backbone_features,
        )

    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """Encode (B, 3, H, W), sides multiples of 32.

        Under autocast too the early stages compute in float32: their rounding would move the
        borders of masks (benchmarks/precision.py).
        """
        with torch.autocast(pixel_values.device.type, enabled=False):
            stride4, stride8 = self.backbone.shallow(pixel_values)
        return self.embed((stride4, stride8, *self.backbone.deep(stride8)))


class PocketPromptEncoder(PromptEncoder):
    """SAM's prompt encoder, whose mask path also receives points and boxes, drawn as maps.

    The path's input has 4 times the resolution of the embedding grid: the logits of the previous
    mask, if there is one; +1 inside and -1 outside the box; and a narrow and a wide Gaussian each
    for foreground and background clicks.
    """

    def _build_mask_downscaling(self, mask_in_chans: int, *, in_chans: int) -> nn.Sequential:
        return super()._build_mask_downscaling(mask_in_chans, in_chans=PROMPT_CHANNELS)

    def draw_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Draw clicks (B, N, 2) with labels (B, N) as maps (B, 4, h, w) of the nearest click."""
        return draw_points(coords, labels, self.mask_input_size, self.input_image_size)

    def draw_boxes(self, boxes: Tensor) -> Tensor:
        """Draw boxes (B, 4) XYXY as maps (B, 1, h, w): +1 inside, -1 outside."""
        return draw_boxes(boxes, self.mask_input_size, self.input_image_size)

    def draw(
        self,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        masks: Tensor | None,
    ) -> Tensor:
        """Draw all prompts as maps (B, PROMPT_CHANNELS, h, w); absent kinds are zero."""
        batch_size = prompt_batch_size(points, boxes, masks)
        weight = self.no_mask_embed.weight

        def absent(channels: int) -> Tensor:
            return weight.new_zeros(batch_size, channels, *self.mask_input_size)

        maps = [absent(2)] if masks is None else [torch.tanh(masks / 4), torch.ones_like(masks)]
        maps.append(absent(1) if boxes is None else self.draw_boxes(boxes))
        maps.append(absent(2 * len(POINT_SIGMAS)) if points is None else self.draw_points(*points))
        return torch.cat(maps, dim=1)

    def forward(
        self,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        masks: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Embed prompts; arguments and shapes are those of SAM's prompt encoder."""
        sparse = self.embed_sparse(points, boxes, prompt_batch_size(points, boxes, masks))
        return sparse, self.mask_downscaling(self.draw(points, boxes, masks))


def mask_evidence(logits: Tensor) -> Tensor:
    """What masks themselves say about their IoU: a blurred mask is a doubtful one.

    Args:
        logits: (B, M, h, w).

    Returns:
        (B, M, MASK_EVIDENCE): the log odds of the mask's IoU with its own probabilities; the log
        odds of the IoU between the masks at thresholds +1 and -1, as in the stability score; the
        fourth root of the share of the grid that the mask covers.
    """
    logits = (
        logits.float()
    )  # under autocast the IoU of a clear mask would round to 1: no finite logit
    probability = logits.sigmoid()
    mask = (logits > 0).to(logits.dtype)
    inside, area = (probability * mask).sum((-2, -1)), mask.sum((-2, -1))
    expected = (inside + 1) / (area + probability.sum((-2, -1)) - inside + 2)
    core, reach = (logits > 1).sum((-2, -1)), (logits > -1).sum((-2, -1))
    stability = (core + 1) / (reach + 2)
    share = area / (logits.shape[-2] * logits.shape[-1])
    return torch.stack([expected.logit(), stability.logit(), share.sqrt().sqrt()], dim=-1)


class PocketMaskDecoder(MaskDecoder):
    """SAM's mask decoder with high-resolution maps and convolutional context.

    Its IoU head also receives each mask's token and how clear-cut the mask is.

    Args:
        transformer_dim: Width of the tokens.
        transformer: The two-way transformer.
        high_res_dims: Widths of the maps at strides 8 and 4.
        fuse_depth: ConvNeXt blocks before and after the transformer.
    """

    def __init__(
        self,
        *,
        transformer_dim: int,
        transformer: TwoWayTransformer,
        high_res_dims: tuple[int, int],
        fuse_depth: int,
    ) -> None:
        super().__init__(transformer_dim=transformer_dim, transformer=transformer)
        self.high_res_dims = high_res_dims
        dim8, dim4 = high_res_dims
        self.fuse_before = nn.Sequential(
            *(ConvNextBlock(transformer_dim, kernel_size=7, expansion=2) for _ in range(fuse_depth))
        )
        self.fuse_after = nn.Sequential(
            *(ConvNextBlock(transformer_dim, kernel_size=7, expansion=2) for _ in range(fuse_depth))
        )
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(transformer_dim, dim8, kernel_size=2, stride=2),
            ConvNextBlock(dim8, kernel_size=5, expansion=2),
            nn.ConvTranspose2d(dim8, dim4, kernel_size=2, stride=2),
            ConvNextBlock(dim4, kernel_size=3, expansion=1),
            nn.ReLU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(input_dim=transformer_dim, hidden_dim=transformer_dim, output_dim=dim4, depth=3)
            for _ in range(self.num_mask_tokens)
        )
        self.iou_evidence_head = MLP(
            input_dim=transformer_dim + MASK_EVIDENCE,
            hidden_dim=transformer_dim,
            output_dim=1,
            depth=2,
        )

    def predict_from(
        self,
        features: ImageFeatures,
        *,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """All four masks (B, 4, 4h, 4w) and their predicted IoU (B, 4) in [0, 1]."""
        source = self.fuse_before(features.image_embeddings + dense_prompt_embeddings)
        iou_token, mask_tokens, image = self.run_transformer(
            source, image_pe, sparse_prompt_embeddings
        )
        map_shape = (image.shape[0], *source.shape[1:])
        source = self.fuse_after(image.transpose(1, 2).reshape(map_shape))
        to_stride8, block8, to_stride4, block4, activation = self.output_upscaling
        stride8, stride4 = features.high_res_features
        upscaled = block8(to_stride8(source) + stride8)
        upscaled = activation(block4(to_stride4(upscaled) + stride4))
        masks = self.hypernetwork_weights(mask_tokens) @ upscaled.flatten(2)
        masks = masks.unflatten(2, upscaled.shape[-2:])
        evidence = torch.cat([mask_tokens, mask_evidence(masks.detach())], dim=-1)
        iou = self.iou_prediction_head(iou_token) + self.iou_evidence_head(evidence)[..., 0]
        return masks, iou.sigmoid()


class PocketSam(Sam):
    """The pocket parts with SAM's interface; the grid covers only the image, not its padding."""

    image_encoder: PocketImageEncoder
    prompt_encoder: PocketPromptEncoder
    mask_decoder: PocketMaskDecoder

    def cast_weights(self, dtype: torch.dtype) -> None:
        """Do nothing: under autocast too the early stages compute in float32."""

    def encode_image(self, pixel_values: Tensor) -> ImageFeatures:
        """Encode normalised images of one shape (B, 3, H', W'), sides multiples of 32."""
        return self.image_encoder(pixel_values.contiguous(memory_format=torch.channels_last))

    def decode_all(
        self,
        features: ImageFeatures,
        *,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        masks: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """All four masks on the image's own grid (B, 4, 4h, 4w) and their predicted IoU (B, 4)."""
        height, width = features.image_embeddings.shape[-2:]
        sparse, dense = self.prompt_encoder(points, boxes, masks)
        return self.mask_decoder.predict_from(
            features,
            image_pe=self.prompt_encoder.get_dense_pe()[..., :height, :width],
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense[..., :height, :width],
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
        """Decode prompts like :meth:`Sam.decode`; beyond the image the logits repeat its border.

        Boxes alone are decoded twice, and a mask does not extend beyond its box.
        """

        def decode(
            points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, mask_input: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            masks, ious = self.decode_all(features, points=points, boxes=boxes, masks=mask_input)
            return to_square(masks, self.mask_input_size), ious

        points = self.pair_points(point_coords, point_labels)
        masks, iou_predictions = decode_in_passes(decode, points, boxes, mask_input)
        masks, iou_predictions = self.mask_decoder.choose_outputs(
            masks, iou_predictions, multimask_output
        )
        if boxes is not None:
            masks = keep_inside(masks, self.prompt_encoder.draw_boxes(boxes))
        return masks, iou_predictions


def build_pocket_sam(config: PocketSamConfig) -> PocketSam:
    """Build the pocket SAM with random weights."""
    grid = config.image_size // 16
    return PocketSam(
        image_encoder=PocketImageEncoder(
            embed_dim=config.embed_dim,
            neck_depth=config.neck_depth,
            high_res_dims=config.high_res_dims,
        ),
        prompt_encoder=PocketPromptEncoder(
            embed_dim=config.embed_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=64,
        ),
        mask_decoder=PocketMaskDecoder(
            transformer_dim=config.embed_dim,
            transformer=TwoWayTransformer(
                depth=config.transformer_depth,
                embedding_dim=config.embed_dim,
                num_heads=config.num_heads,
                mlp_dim=4 * config.embed_dim,
            ),
            high_res_dims=config.high_res_dims,
            fuse_depth=config.fuse_depth,
        ),
        image_size=config.image_size,
        pixel_mean=PIXEL_MEAN,
        pixel_std=PIXEL_STD,
        pad_to_square=False,
    )


def with_backbone(
    state: Mapping[str, Tensor], imagenet: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Complete the trained weights with the ImageNet weights of the rest of the backbone.

    Weights of another model are returned unchanged, so that strict loading reports them.

    Args:
        state: The trained weights.
        imagenet: Those of the backbone, if they have been read already.

    Raises:
        CheckpointError: The package with the backbone's weights is missing.
    """
    completed = dict(state)
    trained = any(name.startswith(_POCKET_PREFIX) for name in state)
    if trained and BACKBONE_PREFIX + "conv_stem.weight" not in state:
        backbone = imagenet_state_dict() if imagenet is None else imagenet
        completed = {BACKBONE_PREFIX + name: value for name, value in backbone.items()} | completed
    return completed
