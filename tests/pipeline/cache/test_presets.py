"""Presets with a cache: a second query runs no image encoder and answers the same, to the byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from skimage import data
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

import promptseg
from promptseg.models.errors import InputError
from promptseg.models.features.dino import DinoFeatures
from promptseg.models.grounding.clip.dense import create_dense_clip
from promptseg.models.grounding.grounding_dino import GroundingDinoView, create_grounding_dino
from promptseg.models.grounding.owlv2 import Owlv2View, create_owlv2
from promptseg.pipeline import Pipeline, Reference, Segmenter
from promptseg.pipeline.cache.packing import pack, unpack
from promptseg.pipeline.cache.store import EmbeddingCache
from promptseg.pipeline.presets import published
from promptseg.pipeline.presets.load import load
from promptseg.pipeline.prompters.text.gate import PresenceGate

from ...shrunken import save_clip, save_grounding_dino, save_owlv2

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
PHRASES = ["cat", "traffic light"]


def record(result: promptseg.Result) -> str:
    return json.dumps(result.to_dict())


@contextmanager
def modules_that_run() -> Iterator[set[nn.Module]]:
    """Every module whose forward pass begins within the context."""
    seen: set[nn.Module] = set()
    handle = register_module_forward_pre_hook(lambda module, inputs: seen.add(module))
    try:
        yield seen
    finally:
        handle.remove()


def encoders(pipe: Pipeline) -> set[nn.Module]:
    """The modules of pocket that see pixels: masks', text heads' and ConSE's."""
    grounder = pipe.text_prompter.grounder.ground.__self__
    parts = (pipe.segmenter.model.image_encoder, grounder.conse.backbone)
    return {module for part in parts for module in part.modules()}


@pytest.fixture(scope="module")
def plain() -> Pipeline:
    return load("pocket")


def ask_all(pipe: Pipeline, image: np.ndarray) -> list[str]:
    """A phrase, marks of something small, and an example, which encode what is around them too."""
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[60:280, 20:380] = 1
    queries = [
        pipe(image, "cat"),
        pipe(image, points=(150, 120)),
        pipe(image, boxes=(130, 110, 160, 140)),
        pipe(image, reference=Reference(image, mask)),
    ]
    return [record(result) for result in queries]


def test_a_second_query_encodes_nothing_and_answers_the_same(plain: Pipeline, tmp_path) -> None:
    image = data.chelsea()
    expected = ask_all(plain, image)
    assert ask_all(load("pocket", cache=tmp_path), image) == expected
    assert len(list(tmp_path.glob("*.safetensors"))) == 4  # image, views, around click and box
    later = load("pocket", cache=str(tmp_path))
    with modules_that_run() as ran:
        other = later(image, "animal")
        assert record(later(image, points=(150, 120))) == expected[1]
        assert record(later(image, boxes=(130, 110, 160, 140))) == expected[2]
    assert ran
    assert not ran & encoders(later)
    assert record(other) == record(plain(image, "animal"))
    assert ask_all(later, image) == expected


def test_other_weights_find_nothing(plain: Pipeline, tmp_path) -> None:
    image = np.ascontiguousarray(data.chelsea()[:128, :128])
    cache = EmbeddingCache(tmp_path)
    model = plain.segmenter.model
    Segmenter(model, cache=cache).encode_image(image)
    bias = model.image_encoder.neck[0].bias
    with modules_that_run() as ran:
        Segmenter(model, cache=cache).encode_image(image)
    assert not ran
    first = bias.detach().clone()
    with torch.no_grad():
        bias.add_(1.0)
    try:
        with modules_that_run() as ran:
            Segmenter(model, cache=cache).encode_image(image)
    finally:
        with torch.no_grad():
            bias.copy_(first)
    assert ran


def test_a_model_without_a_fingerprint_is_refused(plain: Pipeline, tmp_path) -> None:
    class Foreign:
        def __init__(self, model: object) -> None:
            self.model = model

        def __getattr__(self, name: str) -> object:
            if name == "fingerprint":
                raise AttributeError(name)
            return getattr(self.__dict__["model"], name)

    with pytest.raises(InputError, match=r"Foreign cannot be cached.*fingerprint"):
        Segmenter(Foreign(plain.segmenter.model), cache=EmbeddingCache(tmp_path))


@pytest.mark.parametrize(
    ("save", "create", "kind"),
    [
        (save_grounding_dino, create_grounding_dino, GroundingDinoView),
        (save_owlv2, create_owlv2, Owlv2View),
    ],
)
def test_detectors_answer_the_same_from_a_file(save, create, kind, tmp_path: Path) -> None:
    detector = create(save(tmp_path))
    view = detector.look(IMAGE)
    kept = unpack(pack(view, "x"), kind, "x", torch.device("cpu"))
    for one, other in zip(
        detector.ground(PHRASES, view), detector.ground(PHRASES, kept), strict=True
    ):
        assert one.presence == other.presence
        np.testing.assert_array_equal(one.boxes_xyxy, other.boxes_xyxy)
        np.testing.assert_array_equal(one.scores, other.scores)


def tiny_dino(name: str, *, checkpoint: Path, device: torch.device, dtype: torch.dtype):
    """DINOv2's architecture, shrunken, with random weights."""
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_small_patch14_dinov2",
        embed_dim=24,
        depth=1,
        num_heads=2,
        img_size=56,
        dynamic_img_size=True,
    )
    return DinoFeatures(model, input_size=56, model_id=name, dtype=dtype)


def test_a_published_preset_looks_once(
    tmp_path: Path, obedient_segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The preset base, shrunken: its detector, CLIP and DINOv2; its SAM is stood in for."""
    weights, folder = tmp_path / "weights", tmp_path / "cache"
    weights.mkdir()
    dino = save_grounding_dino(weights / "IDEA-Research--grounding-dino-tiny")
    transformers.GroundingDinoProcessor.from_pretrained(dino).tokenizer.save_pretrained(dino)
    save_clip(weights / "timm--vit_base_patch16_clip_224.openai")
    for name in ("facebook--sam-vit-base", "timm--vit_base_patch14_dinov2.lvd142m"):
        (weights / name).mkdir()
        save_file({"x": torch.zeros(1)}, weights / name / "model.safetensors")
    clip = partial(create_dense_clip, "tiny")
    monkeypatch.setattr(published, "create_model", lambda *_, **__: obedient_segmenter.model)
    monkeypatch.setattr(published, "create_dense_clip", lambda _, *a, **b: clip(*a, **b))
    monkeypatch.setattr(published, "create_dino", tiny_dino)

    def ask(cache: Path | None) -> tuple[list[str], set[str]]:
        pipe = load("base", weights=weights, cache=cache)
        maker, gate = pipe.text_prompter.maker, pipe.text_prompter.gate
        maker.config = replace(maker.config, min_score=0.0, max_prompts=2)
        witnesses = tuple(replace(witness, least=0.0) for witness in gate.witnesses)
        pipe.text_prompter.gate = PresenceGate(0.0, witnesses)
        example = Reference(IMAGE, IMAGE[..., 0] > 128)
        with modules_that_run() as ran:
            found = [
                record(pipe(IMAGE, PHRASES, min_presence=0)),
                record(pipe(IMAGE, reference=example, min_presence=0)),
            ]
        return found, {type(module).__name__ for module in ran}

    expected, ran = ask(None)
    sees = {"_RememberingBackbone", "PatchEmbed", "SwinModel", "SwinBackbone"} & ran
    assert {"PatchEmbed", "_RememberingBackbone"} <= sees
    assert ask(folder)[0] == expected
    again, ran = ask(folder)
    assert again == expected
    assert "PatchEmbed" not in ran
