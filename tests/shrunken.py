"""Models of a few thousand random weights, and references of the same sizes from other packages.

Each is built when it is asked for: a test of one need not wait for the packages of the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from promptseg.models.pocket.sam import PocketSamConfig
from promptseg.models.sam.build import SamTinyViTConfig, SamViTConfig, build_sam_vit
from promptseg.models.sam.sam import Sam

if TYPE_CHECKING:
    import transformers
    from segment_anything import modeling as official

# --- SAM ---

# Windows that need padding (grid 7, window 3), a window as large as the grid, and a grid that
# the windows tile, each with global blocks; widths and depths differ.
SHRUNKEN_VITS = {
    "padded-windows": SamViTConfig(
        image_size=112,
        embed_dim=48,
        depth=3,
        num_heads=3,
        window_size=3,
        global_attn_indexes=(1,),
        prompt_embed_dim=32,
        decoder_num_heads=4,
        decoder_mlp_dim=64,
        iou_head_hidden_dim=24,
    ),
    "one-window": SamViTConfig(
        image_size=80,
        embed_dim=32,
        depth=2,
        num_heads=4,
        window_size=5,
        global_attn_indexes=(1,),
        mlp_ratio=2.0,
        prompt_embed_dim=64,
        decoder_depth=1,
        decoder_num_heads=2,
        decoder_mlp_dim=48,
        iou_head_hidden_dim=64,
    ),
    "tiled-windows": SamViTConfig(
        image_size=64,
        patch_size=8,
        embed_dim=24,
        depth=4,
        num_heads=2,
        window_size=4,
        global_attn_indexes=(0, 3),
        prompt_embed_dim=32,
        decoder_depth=3,
        decoder_num_heads=4,
        decoder_mlp_dim=32,
        iou_head_hidden_dim=16,
    ),
}

# At 80 pixels the stages have grids of 20, 10, 5, 5: windows that pad, tile and equal the grid.
SHRUNKEN_TINY_VIT = SamTinyViTConfig(
    image_size=80,
    embed_dims=(8, 16, 24, 32),
    depths=(1, 2, 1, 2),
    num_heads=(1, 2, 3, 4),
    window_sizes=(7, 3, 5, 4),
    merge_strides=(2, 2, 1),
    prompt_embed_dim=32,
    decoder_num_heads=4,
    decoder_mlp_dim=64,
    iou_head_hidden_dim=32,
)


POCKET = PocketSamConfig(
    image_size=96, embed_dim=16, neck_depth=1, high_res_dims=(8, 4), num_heads=2
)


def randomise(module: nn.Module, *, seed: int) -> None:
    """Give every parameter and running statistic a value that no initialisation has."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(0.5 + noise.abs())
        elif tensor.ndim == 1:
            tensor.add_(0.2 * noise)
        elif "rel_pos" in name or "pos_embed" in name or "attention_biases" in name:
            tensor.copy_(0.5 * noise)
        else:
            tensor.add_(0.05 * noise)


def build_official(config: SamViTConfig) -> official.Sam:
    """The segment-anything package's model of the same sizes."""
    from segment_anything import modeling as official

    grid = config.image_size // config.patch_size
    model = official.Sam(
        image_encoder=official.ImageEncoderViT(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            out_chans=config.prompt_embed_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=config.window_size,
            global_attn_indexes=config.global_attn_indexes,
        ),
        prompt_encoder=official.PromptEncoder(
            embed_dim=config.prompt_embed_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=config.mask_in_chans,
        ),
        mask_decoder=official.MaskDecoder(
            transformer_dim=config.prompt_embed_dim,
            transformer=official.TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.prompt_embed_dim,
                num_heads=config.decoder_num_heads,
                mlp_dim=config.decoder_mlp_dim,
            ),
            num_multimask_outputs=config.num_multimask_outputs,
            iou_head_depth=config.iou_head_depth,
            iou_head_hidden_dim=config.iou_head_hidden_dim,
        ),
    )
    return model.eval()


@dataclass(frozen=True)
class Pair:
    """Our model and the official one with the same weights."""

    ours: Sam
    official: official.Sam
    config: SamViTConfig


def build_pair(config: SamViTConfig, *, seed: int = 0) -> Pair:
    """Build both models with the same random weights."""
    reference = build_official(config)
    randomise(reference, seed=seed)
    ours = build_sam_vit(config).eval()
    ours.load_state_dict(reference.state_dict())
    return Pair(ours, reference, config)


# --- SAM 2 ---

SAM2_SIDE = 128
SAM2_POSITIONS = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)

SAM2_VISION = {
    "model_type": "sam2_vision_model",
    "backbone_config": {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [SAM2_SIDE, SAM2_SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "window_size_per_stage": [8, 4, 6, 4],
        "global_attention_blocks": [3],
    },
    "backbone_channel_list": [64, 32, 16, 8],
    "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
    "fpn_hidden_size": 32,
}
SAM2_PROMPTS = {"hidden_size": 32, "image_size": SAM2_SIDE, "mask_input_channels": 8}
SAM2_DECODER = {
    "hidden_size": 32,
    "mlp_dim": 32,
    "num_attention_heads": 4,
    "iou_head_hidden_dim": 16,
}


def _randomise_sam2(model: torch.nn.Module) -> None:
    """Weights that give masks of both signs; the positions stay one matrix under two names."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        state = model.state_dict()
        state[SAM2_POSITIONS[1]].copy_(state[SAM2_POSITIONS[0]])


def build_sam2(**decoder: object) -> transformers.Sam2Model:
    """A shrunken image model."""
    import transformers

    config = transformers.Sam2Config(
        vision_config=SAM2_VISION,
        prompt_encoder_config=SAM2_PROMPTS,
        mask_decoder_config={**SAM2_DECODER, **decoder},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.Sam2Model(config).eval()
    _randomise_sam2(model)
    return model


# --- CLIP ---

CLIP_MEAN, CLIP_STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

CLIP_SPEC: dict[str, Any] = {
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
    import open_clip

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
    folder: Path, spec: dict[str, Any] = CLIP_SPEC, *, file: str = "open_clip_model.safetensors"
) -> torch.nn.Module:
    """Write a model as the hub has it."""
    folder.mkdir(parents=True, exist_ok=True)
    model = random_clip(spec)
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    if file.endswith(".safetensors"):
        save_file(state, folder / file)
    else:
        torch.save(state, folder / file)
    preprocess = {
        "mean": CLIP_MEAN,
        "std": CLIP_STD,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    content = {"model_cfg": spec, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return model


# --- Detectors, saved as the hub has them, processor and all ---

WORDS = ("cat", "dog", "red", "traffic", "light", "man", "on", "the", "bike", "st")
BERT_WORDS = 1040  # Grounding DINO knows the ids of "." and "?", 1012 and 1029


def _random_detector(
    model_class: type[transformers.PreTrainedModel],
    config: transformers.PretrainedConfig,
    *,
    scale: float,
) -> transformers.PreTrainedModel:
    """A model whose weights are all away from their initial values, so that each of them tells."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = model_class(config)
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape))
    return model


def save_grounding_dino(folder: Path) -> Path:
    """A Grounding DINO with 20 queries that knows ``WORDS``."""
    import transformers

    folder.mkdir(exist_ok=True)
    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            image_size=64,
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 2, 2, 4],
            window_size=3,
            out_indices=[2, 3, 4],
        ),
        text_config=transformers.BertConfig(
            vocab_size=BERT_WORDS,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=24,
        ),
        num_queries=20,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        d_model=32,
        max_text_len=16,
    )
    model = _random_detector(transformers.GroundingDinoForObjectDetection, config, scale=0.1)
    # Similarities of so few features would all be certain.
    scale_text = model.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    with torch.no_grad():
        scale_text.weight.mul_(0.2)
        scale_text.bias.mul_(0.2)
    model.save_pretrained(folder)
    _write_bert_vocabulary(folder)
    transformers.GroundingDinoImageProcessor(
        size={"shortest_edge": 72, "longest_edge": 120}
    ).save_pretrained(folder)
    return folder


def save_owlv2(folder: Path) -> Path:
    """An OWLv2 of 4 x 4 patches."""
    import transformers

    vocabulary = _write_clip_vocabulary(folder, positions=16, pad="!")
    config = transformers.Owlv2Config(
        text_config={
            **vocabulary,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 16,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        },
        projection_dim=32,
    )
    model = _random_detector(transformers.Owlv2ForObjectDetection, config, scale=0.05)
    with torch.no_grad():  # boxes of a third of the frame at the patches' places
        model.box_head.dense2.weight.mul_(0.02)
        model.box_head.dense2.bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.5]))
        model.class_head.logit_shift.weight.mul_(0.1)  # or all scores would be 0 or 1
        model.class_head.logit_scale.weight.mul_(0.1)
    model.save_pretrained(folder)
    transformers.Owlv2ImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def save_sam3(folder: Path) -> Path:
    """A SAM 3 with 12 queries at 56 pixels."""
    import transformers

    layers = {"hidden_size": 32, "num_attention_heads": 2}
    stack = {**layers, "num_layers": 2, "intermediate_size": 32}
    vocabulary = _write_clip_vocabulary(folder, positions=32, pad="<|endoftext|>")
    config = transformers.Sam3Config(
        vision_config=transformers.Sam3VisionConfig(
            backbone_config=transformers.Sam3ViTConfig(
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=56,
                patch_size=14,
                window_size=2,
                global_attn_indexes=[1],
                pretrain_image_size=28,
            ),
            fpn_hidden_size=32,
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        ),
        text_config=transformers.CLIPTextConfig(
            **vocabulary,
            hidden_size=32,
            intermediate_size=32,
            projection_dim=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
        ),
        geometry_encoder_config=transformers.models.sam3.Sam3GeometryEncoderConfig(**stack),
        detr_encoder_config=transformers.models.sam3.Sam3DETREncoderConfig(**stack),
        detr_decoder_config=transformers.models.sam3.Sam3DETRDecoderConfig(**stack, num_queries=12),
        mask_decoder_config=transformers.models.sam3.Sam3MaskDecoderConfig(
            **layers, num_upsampling_stages=2
        ),
    )
    model = _random_detector(transformers.Sam3Model, config, scale=0.1)
    model.save_pretrained(folder)
    transformers.Sam3ImageProcessor(size={"height": 56, "width": 56}).save_pretrained(folder)
    return folder


def _write_bert_vocabulary(folder: Path) -> None:
    """WordPiece with the ids of bert-base-uncased for what is special."""
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    words = {1012: ".", 1029: "?", **dict(enumerate(WORDS, start=1030))}
    vocabulary = [f"[unused{i}]" for i in range(BERT_WORDS)]
    for number, word in {**special, **words}.items():
        vocabulary[number] = word
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512},
    )


def _write_clip_vocabulary(folder: Path, *, positions: int, pad: str) -> dict[str, int]:
    """Byte-pair encoding with letters and ``WORDS``; the end's id is the highest, as CLIP's is.

    Returns:
        What a text configuration must know of it.
    """
    pieces = ["!", *"abcdefghijklmnopqrstuvwxyz"]
    pieces += [f"{piece}</w>" for piece in pieces]
    merges = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts[:2] = [parts[0] + parts[1]]
            pieces.append(parts[0])
    vocabulary = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    _write_json(folder / "vocab.json", {piece: i for i, piece in enumerate(vocabulary)})
    merges_text = "\n".join(["#version: 0.2", *dict.fromkeys(merges)])
    (folder / "merges.txt").write_text(merges_text + "\n", encoding="utf-8")
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "CLIPTokenizer", "model_max_length": positions, "pad_token": pad},
    )
    return {
        "vocab_size": len(vocabulary),
        "bos_token_id": vocabulary.index("<|startoftext|>"),
        "eos_token_id": vocabulary.index("<|endoftext|>"),
    }


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
