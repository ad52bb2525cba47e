"""The shipped pocket preset on a photograph of a cat."""

from __future__ import annotations

import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from skimage import data
from torch import nn

from promptseg.models.errors import CheckpointError, InputError
from promptseg.models.pocket.backbone import DEEP_STAGES
from promptseg.models.pocket.sam import PocketSam
from promptseg.pipeline.pipeline import Pipeline
from promptseg.pipeline.presets import pocket as preset
from promptseg.pipeline.presets.load import load
from promptseg.pipeline.result import Result

# The cat in the photograph of 451 x 300 pixels, drawn by hand: it fills the left and the middle.
OUTLINE = [
    (0, 300), (0, 140), (28, 100), (38, 0), (398, 0), (386, 45), (364, 60), (368, 120),
    (346, 200), (380, 262), (378, 300),
]  # fmt: skip
FACE = (60, 60, 330, 270)  # a box whose ellipse is on the cat without doubt
SIZE = (300, 451)


@pytest.fixture(scope="module")
def pocket() -> Pipeline:
    return load("pocket")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return data.chelsea()


@pytest.fixture(scope="module")
def cat(pocket, photo) -> Result:
    return pocket(photo, text="cat")


def draw(kind: str, shape) -> np.ndarray:
    """The inside of a polygon or an ellipse, (300, 451) bool."""
    canvas = Image.new("1", SIZE[::-1])
    getattr(ImageDraw.Draw(canvas), kind)(shape, fill=1)
    return np.array(canvas)


def iou(mask: np.ndarray, other: np.ndarray) -> float:
    return (mask & other).sum() / (mask | other).sum()


def test_each_file_is_read_once(monkeypatch) -> None:
    read = []
    for module, name in ((torch, "load"), (preset, "hash_file"), (preset, "read_state_dict")):
        whole = getattr(module, name)

        def reading(path, *args, whole=whole, name=name, **options):
            read.append((name, path))
            return whole(path, *args, **options)

        monkeypatch.setattr(module, name, reading)
    load("pocket")
    assert [name for name, _ in read].count("load") == 1  # the ImageNet weights of both backbones
    assert len(set(read)) == len(read)


def test_the_cat_is_found(cat) -> None:
    assert cat.labels[0] == "cat"
    assert cat.image_size == SIZE
    assert cat.rejected == () or all("overlaps" in item.reason for item in cat.rejected)
    mask = cat.masks[0]
    assert mask[draw("ellipse", FACE)].mean() > 0.97
    assert iou(mask, draw("polygon", OUTLINE)) > 0.85
    assert mask[:, 405:].mean() < 0.1  # dark background


def test_half_precision_finds_the_cat_too(photo) -> None:
    """At half the size, since CPUs may be slow at it."""
    result = load("pocket", dtype="bf16")(photo[::2, ::2], text=["cat", "zebra"])
    assert result.labels == ["cat"]
    assert iou(result.masks[0], draw("polygon", OUTLINE)[::2, ::2]) > 0.8
    assert result.scores.dtype == result.prompt_scores.dtype == np.float32


def test_auto_is_exact_on_a_cpu_that_has_bf16(monkeypatch) -> None:
    monkeypatch.setattr("promptseg.models.device.best_dtype", lambda device: torch.bfloat16)
    assert load("pocket", dtype="auto").segmenter.dtype == torch.float32
    assert load("pocket", dtype="bf16").segmenter.dtype == torch.bfloat16


def test_what_is_not_there_is_not_found(pocket, photo) -> None:
    result = pocket(photo, text=["zebra", "bicycle"])
    assert len(result) == 0
    assert result.masks.shape == (0, *SIZE)
    assert [item.label for item in result.rejected] == ["zebra", "bicycle"]
    assert all("presence" in item.reason for item in result.rejected)


def test_a_list_of_phrases_equals_each_alone(pocket, photo, cat) -> None:
    result = pocket(photo, text=["zebra", "cat"])
    assert result.labels == cat.labels
    np.testing.assert_array_equal(result.masks, cat.masks)
    np.testing.assert_allclose(result.scores, cat.scores, rtol=1e-5)


def test_a_negative_takes_the_cat_away(pocket, photo) -> None:
    result = pocket(photo, text="cat", negative_text="kitten")
    assert len(result) == 0
    assert "negative 'kitten'" in result.rejected[0].reason
    assert len(pocket(photo, text="cat", negative_text="zebra")) > 0


def test_a_box_gives_the_object_within(pocket, photo) -> None:
    result = pocket(photo, boxes=[(0, 0, 398, 300)])
    assert result.labels == ["box"]
    assert iou(result.masks[0], draw("polygon", OUTLINE)) > 0.85
    eye = pocket(photo, boxes=[(133, 84, 210, 148)])
    assert iou(eye.masks[0], draw("ellipse", (135, 86, 207, 146))) > 0.5


def test_a_click_is_covered(pocket, photo) -> None:
    result = pocket(photo, points=[(220, 200)])
    assert set(result.labels) == {"point"}
    assert len(result) + len(result.rejected) == 3
    assert result.masks[0, 200, 220]


def test_clicks_need_no_text_encoder(photo) -> None:
    pipeline = load()
    pipeline(photo[::4, ::4], points=[(50, 40)])
    grounder = pipeline.text_prompter.grounder.ground.__self__
    assert "text_encoder" not in vars(grounder)
    pipeline(photo[::4, ::4], text="cat")
    assert "text_encoder" in vars(grounder)


def test_text_and_masks_share_the_early_stages_of_a_backbone_made_for_inference(pocket) -> None:
    sam, grounder = pocket.segmenter.model, pocket.text_prompter.grounder.ground.__self__
    assert isinstance(sam, PocketSam)
    tuned, imagenet = sam.image_encoder.backbone, grounder.conse.backbone
    # ConSE goes on from the encoder's early maps, so its own early stages must be the same.
    stages = [number for number in range(7) if number not in DEEP_STAGES]
    early = ("conv_stem.", *(f"blocks.{number}." for number in stages))
    same = {k for k, v in imagenet.state_dict().items() if torch.equal(v, tuned.state_dict()[k])}
    assert {k for k in imagenet.state_dict() if k.startswith(early)} <= same
    assert not any(k.startswith(f"blocks.{DEEP_STAGES[-1]}.") for k in same)
    for model in (sam, grounder):
        assert not any(module.training for module in model.modules())
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_text_needs_the_image(pocket, photo) -> None:
    embedding = pocket.segmenter.encode_image(photo[::4, ::4])
    object.__setattr__(embedding, "image", None)
    with pytest.raises(ValueError, match="keeps its image"):
        pocket(embedding, text="cat")


def test_loading_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load("pocket")
    assert torch.equal(torch.rand(4), expected)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="cannot run on the device 'gpu'"):
        load("pocket", device="gpu")


def test_altered_weights_of_the_package_are_not_loaded(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(preset.WEIGHTS, folder)
    monkeypatch.setattr(preset, "WEIGHTS", folder)
    content = bytearray((folder / "text_pocket.safetensors").read_bytes())
    content[-100] ^= 1
    (folder / "text_pocket.safetensors").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"text_pocket\.safetensors are not those .*reinstall"
    ):
        load("pocket")
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match="cannot be read: reinstall promptseg"):
        load("pocket")


def test_threads_get_the_serial_answers_and_nothing_of_the_process_changes(pocket) -> None:
    photo = data.chelsea()
    pictures = [np.roll(photo, 20 * i, axis=1) for i in range(2)]
    asked: list[tuple[np.ndarray, dict[str, object]]] = [
        (picture, query)
        for picture in pictures
        for query in ({"text": ["dog", "cat"]}, {"points": (200, 150)})
    ]
    before = (
        list(warnings.filters),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        np.geterr(),
    )
    expected = [pocket(picture, **query) for picture, query in asked]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda item: pocket(item[0], **item[1]), asked * 2))
    for result, serial in zip(found, expected * 2, strict=True):
        assert result.labels == serial.labels
        np.testing.assert_array_equal(result.masks, serial.masks)
        np.testing.assert_array_equal(result.scores, serial.scores)
        assert [r.reason for r in result.rejected] == [r.reason for r in serial.rejected]
    after = (
        list(warnings.filters),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        np.geterr(),
    )
    assert after == before
