"""From text to ranked masks with published models, shrunken, random and saved as the hub's."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from promptseg.models.errors import CheckpointError
from promptseg.models.grounding.clip.dense import DenseClipConfig, create_dense_clip
from promptseg.models.grounding.grounding_dino import create_grounding_dino
from promptseg.models.grounding.owlv2 import create_owlv2
from promptseg.models.grounding.sam3 import create_sam3_grounder
from promptseg.models.registry import create_model
from promptseg.models.sam.sam2 import create_sam2
from promptseg.pipeline.config import PipelineConfig
from promptseg.pipeline.decoding.decode import DecodingConfig
from promptseg.pipeline.decoding.segmenter import Segmenter
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.presets import published
from promptseg.pipeline.presets.load import load
from promptseg.pipeline.presets.published import FROM_BOXES, ClipJudge, detector_prompter, once
from promptseg.pipeline.prompters.text.box_prompts import BoxPromptConfig
from promptseg.pipeline.prompters.text.gate import PresenceGate, Witness
from promptseg.pipeline.prompters.text.point_prompts import PointPrompts
from promptseg.pipeline.prompters.text.prompter import CachedGrounder, TextPrompter
from promptseg.pipeline.result import Result

from ..shrunken import build_sam2, save_clip, save_grounding_dino, save_owlv2, save_sam3

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
PHRASES = ["traffic light", "light", "cat", "a red dog on the bike"]
CLIP = DenseClipConfig(input_size=48, templates=("{}", "a photo of a {}."))
DETECTORS: dict[str, tuple[Callable[[Path], Path], Callable[..., Any]]] = {
    "grounding-dino": (save_grounding_dino, create_grounding_dino),
    "owlv2": (save_owlv2, create_owlv2),
    "sam3": (save_sam3, create_sam3_grounder),
}


@pytest.fixture(scope="module", params=DETECTORS)
def detector(request, tmp_path_factory) -> Callable[[], Any]:
    save, create = DETECTORS[request.param]
    return partial(create, save(tmp_path_factory.mktemp(request.param)))


@pytest.fixture
def pipeline(detector, obedient_segmenter) -> Pipeline:
    """Takes unsure boxes too, since the detector is random; its masks are the boxes."""
    prompter = detector_prompter(detector, BoxPromptConfig(min_score=0.05, max_prompts=4))
    return Pipeline(obedient_segmenter, text_prompter=prompter, config=FROM_BOXES)


def assert_same(result: Result, other: Result) -> None:
    assert result.labels == other.labels
    np.testing.assert_array_equal(result.masks, other.masks)
    for name in ("boxes_xyxy", "scores", "iou_predictions", "stability_scores", "prompt_scores"):
        np.testing.assert_allclose(getattr(result, name), getattr(other, name), rtol=0, atol=1e-5)


def of_label(result: Result, label: str) -> Result:
    return result[np.array([name == label for name in result.labels], bool)]


def decoded(result: Result) -> set[str]:
    """Phrases for which there was something to decode; a box may be thinner than a cell."""
    dropped = {item.label for item in result.rejected if item.iou_prediction is not None}
    return dropped | set(result.labels)


def test_text_becomes_ranked_masks(pipeline) -> None:
    result = pipeline(IMAGE, text=PHRASES)
    assert decoded(result) == set(PHRASES)
    assert len(result) > 0
    assert result.masks.shape == (len(result), 60, 100)
    assert (np.diff(result.scores) <= 0).all()
    assert ((result.prompt_scores >= 0.05) & (result.prompt_scores <= 1)).all()


def test_many_phrases_are_each_on_its_own(pipeline) -> None:
    together = pipeline(IMAGE, text=PHRASES)
    for phrase in PHRASES:
        assert_same(of_label(together, phrase), pipeline(IMAGE, text=phrase))


def test_no_detection_is_an_empty_result_with_the_reason(detector, tiny_segmenter) -> None:
    prompter = detector_prompter(detector, BoxPromptConfig(min_score=1.0))
    result = Pipeline(tiny_segmenter, text_prompter=prompter)(IMAGE, text=["cat", "dog"])
    assert len(result) == 0
    assert result.masks.shape == (0, 60, 100)
    assert result.boxes_xyxy.shape == (0, 4)
    assert result.scores.shape == result.prompt_scores.shape == (0,)
    assert [item.label for item in result.rejected] == ["cat", "dog"]
    assert all("below 1.00" in item.reason for item in result.rejected)


def test_negatives_and_clicks_choose(pipeline) -> None:
    """What a phrase finds lies wholly on what the same words find as a negative."""
    before = pipeline(IMAGE, text=PHRASES)
    result = pipeline(IMAGE, text=PHRASES, negative_text=PHRASES)
    assert len(result) == 0
    reasons = [item.reason for item in result.rejected if item.mask is not None]
    assert len(reasons) >= len(before)
    assert all("the negative" in reason for reason in reasons)
    marked = pipeline(IMAGE, text=PHRASES, points=[(3, 3)])
    assert len(marked) == before.masks[:, 3, 3].sum()
    assert all(mask[3, 3] for mask in marked.masks)


def test_sam2_decodes_what_a_detector_finds(detector, tmp_path) -> None:
    build_sam2().save_pretrained(tmp_path / "sam2")
    segmenter = Segmenter(create_sam2(tmp_path / "sam2"))
    prompter = detector_prompter(detector, BoxPromptConfig(min_score=0.05, max_prompts=2))
    pipeline = Pipeline(segmenter, text_prompter=prompter, config=FROM_BOXES)
    result = pipeline(IMAGE, text=PHRASES)
    assert decoded(result) == set(PHRASES)
    assert result.masks.shape == (len(result), 60, 100)
    assert_same(of_label(result, "light"), pipeline(IMAGE, text="light"))


def test_a_detector_is_built_when_first_asked_and_sees_a_picture_once(tiny_segmenter) -> None:
    class Detector:
        looks = 0

        def look(self, image: np.ndarray) -> str:
            self.looks += 1
            return "view"

        def ground(self, phrases: list[str], view: str) -> list:
            return []

    built: list[Detector] = []

    def build() -> Detector:
        built.append(Detector())
        return built[-1]

    prompter = detector_prompter(build)
    pipeline = Pipeline(tiny_segmenter, text_prompter=prompter)
    pipeline(IMAGE, points=[(5, 5)])
    assert not built
    embedding = tiny_segmenter.encode_image(IMAGE)
    for _ in range(3):
        prompter.grounder(embedding, ["cat"])
    assert [detector.looks for detector in built] == [1]


def test_what_is_built_once_is_built_once_by_all_threads() -> None:
    built = []

    def build() -> object:
        time.sleep(0.05)
        built.append(object())
        return built[-1]

    get = once(build)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: get(), range(8)))
    assert len(built) == 1
    assert all(item is built[0] for item in got)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return folder


def test_dense_clip_makes_points(clip_folder, tiny_segmenter) -> None:
    clip = create_dense_clip("tiny", clip_folder, config=CLIP)
    grounder = CachedGrounder(lambda embedding: clip.look(embedding.pixels()), clip.ground)
    config = PipelineConfig(decoding=DecodingConfig(first_pass=("points",)))
    pipeline = Pipeline(
        tiny_segmenter,
        text_prompter=TextPrompter(grounder, PointPrompts(), PresenceGate()),
        config=config,
    )
    phrases = ["cat", "dog", "traffic light", "light"]
    together = pipeline(IMAGE, text=phrases)
    assert set(together.labels) <= set(phrases)
    assert len(together) > 0
    for phrase in phrases:
        assert_same(of_label(together, phrase), pipeline(IMAGE, text=phrase))


def test_clip_witnesses_presence(clip_folder, detector, obedient_segmenter) -> None:
    judge = ClipJudge(partial(create_dense_clip, "tiny", clip_folder, config=CLIP))
    embedding = obedient_segmenter.encode_image(IMAGE)
    phrases = ["cat", "dog", "traffic light"]
    opinions = dict(zip(phrases, judge(embedding, phrases), strict=True))
    assert len(set(opinions.values())) == 3
    least = sorted(opinions.values())[1]
    prompter = detector_prompter(
        detector, BoxPromptConfig(min_score=0.05), (Witness("CLIP", judge, least),)
    )
    pipeline = Pipeline(obedient_segmenter, text_prompter=prompter, config=FROM_BOXES)
    result = pipeline(embedding, text=phrases)
    absent = min(opinions, key=opinions.__getitem__)
    gated = [item.label for item in result.rejected if item.reason.startswith("CLIP presence")]
    assert gated == [absent]
    assert decoded(result) == set(phrases) - {absent}


def test_siblings_share_the_presence(clip_folder, tiny_segmenter) -> None:
    build = partial(create_dense_clip, "tiny", clip_folder, config=CLIP)
    embedding = tiny_segmenter.encode_image(IMAGE)
    (alone,) = ClipJudge(build)(embedding, ["cat"])
    (beside,) = ClipJudge(build, siblings=["cat", "dog"])(embedding, ["cat"])
    (dog,) = ClipJudge(build)(embedding, ["dog"])
    # Of softmax shares against "": odds are relative to the same empty text.
    odds_cat, odds_dog = alone / (1 - alone), dog / (1 - dog)
    assert beside == pytest.approx(odds_cat / (1 + odds_cat + odds_dog), rel=1e-4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The weights of the preset mobile as `models fetch --dir` leaves them; OWLv2 shrunken."""
    folder = tmp_path_factory.mktemp("weights")
    save_owlv2(folder / "google--owlv2-base-patch16-ensemble")
    sam = folder / "dhkim2810--MobileSAM"
    sam.mkdir()
    torch.save(create_model("sam_vit_t").state_dict(), sam / "mobile_sam.pt")
    dino = folder / "timm--vit_small_patch14_dinov2.lvd142m"
    dino.mkdir()
    from promptseg.models.features.dino import create_dino

    state = create_dino("vit_small_patch14_dinov2").model.state_dict()
    save_file(
        {name: value.contiguous() for name, value in state.items()}, dino / "model.safetensors"
    )
    return folder


def test_a_preset_is_loaded_from_a_folder(weights) -> None:
    pipe = load("mobile", weights=weights)
    maker = pipe.text_prompter.maker
    maker.config = replace(maker.config, min_score=0.0, max_prompts=2)
    result = pipe(IMAGE, text=["cat", "traffic light"], min_presence=0)
    assert decoded(result) == {"cat", "traffic light"}
    assert pipe.segmenter.model_id == "sam_vit_t"
    found = pipe(IMAGE, points=[(50, 30)])
    assert len(found) + len(found.rejected) == 3


def test_the_preset_base_asks_clip_too(tmp_path, obedient_segmenter, monkeypatch) -> None:
    """Detector and CLIP shrunken; SAM and DINOv2 are stood in for, since their sizes are fixed."""
    dino = save_grounding_dino(tmp_path / "IDEA-Research--grounding-dino-tiny")
    transformers.GroundingDinoProcessor.from_pretrained(dino).tokenizer.save_pretrained(dino)
    save_clip(tmp_path / "timm--vit_base_patch16_clip_224.openai")
    for name in ("facebook--sam-vit-base", "timm--vit_base_patch14_dinov2.lvd142m"):
        (tmp_path / name).mkdir()
        save_file({"x": torch.zeros(1)}, tmp_path / name / "model.safetensors")
    asked = []

    def build(name: str, *, checkpoint: Path, device: torch.device) -> Any:
        asked.append((name, checkpoint))
        return obedient_segmenter.model

    monkeypatch.setattr(published, "create_model", build)
    monkeypatch.setattr(
        published,
        "create_dense_clip",
        lambda name, *given, **options: create_dense_clip("tiny", *given, **options),
    )
    pipe = load("base", weights=tmp_path)
    assert asked == [("sam_vit_b", tmp_path / "facebook--sam-vit-base" / "model.safetensors")]
    prompter = pipe.text_prompter
    prompter.maker.config = replace(prompter.maker.config, min_score=0.0, max_prompts=2)
    (witness,) = prompter.gate.witnesses
    assert (witness.name, witness.least) == ("CLIP", published.LEAST_CLIP_PRESENCE)
    for least, expected in ((0.0, {"cat", "traffic light"}), (1.0, set())):
        prompter.gate = PresenceGate(0.0, (replace(witness, least=least),))
        result = pipe(IMAGE, text=["cat", "traffic light"])
        assert decoded(result) == expected
    assert all(item.reason.startswith("CLIP presence 0.") for item in result.rejected)


@pytest.mark.parametrize("preset", ["mobile", "base", "large"])
def test_missing_weights_are_told_at_once(preset: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("PROMPTSEG_WEIGHTS", raising=False)
    with pytest.raises(CheckpointError, match=f"promptseg models fetch {preset}.*pocket"):
        load(preset, weights=tmp_path / "nothing")


def test_the_documented_pipelines_run(
    repo_root, weights, clip_folder, tmp_path, monkeypatch
) -> None:
    """What docs/presets.md shows, on shrunken weights under the names that it gives them."""
    text = (repo_root / "docs" / "presets.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    named = tmp_path / "weights"
    named.mkdir()
    save_owlv2(named / "google--owlv2-base-patch16-ensemble")
    build_sam2().save_pretrained(named / "facebook--sam2.1-hiera-tiny")
    (named / "timm--vit_base_patch16_clip_224.openai").symlink_to(clip_folder)
    (named / "dhkim2810--MobileSAM").symlink_to(weights / "dhkim2810--MobileSAM")
    Image.fromarray(IMAGE).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace("ViT-B-16", "tiny"), names)
        assert isinstance(names["pipe"](IMAGE, text="cat"), Result)
