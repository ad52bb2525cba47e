"""A shrunken SAM 2 with random weights, as an image model."""

from __future__ import annotations

import torch
import transformers

SIDE = 128
POSITIONS = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)

VISION = {
    "model_type": "sam2_vision_model",
    "backbone_config": {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "window_size_per_stage": [8, 4, 6, 4],
        "global_attention_blocks": [3],
    },
    "backbone_channel_list": [64, 32, 16, 8],
    "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    "fpn_hidden_size": 32,
}
PROMPTS = {"hidden_size": 32, "image_size": SIDE, "mask_input_channels": 8}
DECODER = {
    "hidden_size": 32,
    "mlp_dim": 32,
    "num_attention_heads": 4,
    "iou_head_hidden_dim": 16,
}


def randomise(model: torch.nn.Module) -> None:
    """Weights that give masks of both signs; the positions stay one matrix under two names."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        state = model.state_dict()
        state[POSITIONS[1]].copy_(state[POSITIONS[0]])


def build(**decoder: object) -> transformers.Sam2Model:
    """A shrunken image model."""
    config = transformers.Sam2Config(
        vision_config=VISION,
        prompt_encoder_config=PROMPTS,
        mask_decoder_config={**DECODER, **decoder},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.Sam2Model(config).eval()
    randomise(model)
    return model
