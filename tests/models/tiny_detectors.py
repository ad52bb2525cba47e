"""Shrunken detectors with random weights, saved as the hub has them, processor and all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers

from promptseg.models.grounding.answers import MIN_SCORE, MIN_SIDE, Detections

WORDS = ("cat", "dog", "red", "traffic", "light", "man", "on", "the", "bike", "st")
BERT_WORDS = 1040  # Grounding DINO knows the ids of "." and "?", 1012 and 1029

IMAGES = {
    name: np.random.default_rng(len(name)).integers(0, 255, (*size, 3), dtype=np.uint8)
    for name, size in {"wide": (60, 100), "high": (90, 50), "square": (64, 64)}.items()
}


def assert_equal_to_all(
    found: Detections, boxes: torch.Tensor, scores: torch.Tensor, image: np.ndarray
) -> None:
    """Compare with all boxes (Q, 4) and scores (Q,) of a reference, unsorted and unclipped."""
    height, width = image.shape[:2]
    expected = []
    for (x0, y0, x1, y1), score in zip(boxes.tolist(), scores.tolist(), strict=True):
        box = [max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)]
        if box[2] - box[0] >= MIN_SIDE and box[3] - box[1] >= MIN_SIDE:
            expected.append((score, box))
    expected.sort(key=lambda pair: -pair[0])
    assert abs(found.presence - expected[0][0]) < 1e-5
    kept = [(score, box) for score, box in expected if score >= MIN_SCORE]
    assert kept
    np.testing.assert_allclose(found.scores, [score for score, _ in kept], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.boxes_xyxy, [box for _, box in kept], rtol=0, atol=1e-3)


def build(
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
    model = build(transformers.GroundingDinoForObjectDetection, config, scale=0.1)
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
    model = build(transformers.Owlv2ForObjectDetection, config, scale=0.05)
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
    model = build(transformers.Sam3Model, config, scale=0.1)
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
