"""A shrunken CLIP of open_clip with random weights, saved as the hub has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

SPEC: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "head_width": 8,
        "layers": 3,
        "mlp_ratio": 2,
    },
    "text_cfg": {"context_length": 24, "width": 16, "heads": 2, "layers": 2},
}


def random_clip(spec: dict[str, Any]) -> torch.nn.Module:
    """A model of open_clip with other values than any initialisation has."""
    sizes = {key: value for key, value in spec.items() if key != "custom_text"}
    kind = open_clip.CustomTextCLIP if "custom_text" in spec else open_clip.CLIP
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = kind(**sizes)
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape)
            parameter.copy_(parameter + 0.2 * noise if parameter.ndim < 2 else 0.2 * noise)
    return model.eval()


def save_clip(
    folder: Path, spec: dict[str, Any] = SPEC, *, file: str = "open_clip_model.safetensors"
) -> torch.nn.Module:
    """Write a model as the hub has it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = random_clip(spec)
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    if file.endswith(".safetensors"):
        save_file(state, folder / file)
    else:
        torch.save(state, folder / file)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    content = {"model_cfg": spec, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return model
