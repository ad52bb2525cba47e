"""A training on four pictures learns them by heart: masks, places of words, and what is absent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from composer import whole_scene
from config import SceneConfig, TrainConfig
from objective import to_pixel_values
from pictures import Entry, read_entries
from PIL import Image
from prompts import boxes
from targets import SceneTargets
from train_pocket import Trainer

from promptseg.models.pocket.sam import PocketSamConfig

SIZE = (96, 128)  # (H, W)
COLOURS = {"gnome": (210, 40, 30), "book": (40, 60, 200), "leaf": (40, 170, 60)}
# What is in each picture: label, column and row of its centre. Each lacks one of the words.
PICTURES = (
    (("gnome", 34, 50), ("book", 92, 44)),
    (("leaf", 34, 40), ("gnome", 94, 56)),
    (("book", 32, 52), ("leaf", 92, 46)),
    (("leaf", 64, 48),),
)
SCENES = SceneConfig(
    side=128,
    small_side=128,
    full=1.0,
    usual=1.0,
    colour=0.0,
    mosaic=0.1,
    paste=0.2,
    pastes=1,
    paste_sources=("four",),
    paste_sides=(40.0, 60.0),
)
CONFIG = TrainConfig(
    scenes=SCENES,
    calm=SCENES,
    images=2,
    prompts=3,
    decode=1.0,
    warmup=4,
    learning_rate=3e-3,
    backbone_rate=2e-4,
    ema=0.9,
    cooldown_ema=0.8,
    save_every=1000,
    eval_every=1000,
    eval_images=1,
)
STEPS, COOLDOWN = 45, 15
MODEL = PocketSamConfig(
    image_size=128, embed_dim=32, neck_depth=1, high_res_dims=(16, 8), num_heads=2
)


def outline(label: str, column: int, row: int) -> np.ndarray:
    """A disc, an upright box or a triangle, (H, W) bool."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    y, x = y - row, x - column
    if label == "gnome":
        return np.hypot(x, y) < 24
    if label == "book":
        return (abs(x) < 18) & (abs(y) < 30)
    return (abs(x) < (y + 28) / 2) & (y < 26)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    rng = np.random.default_rng(0)
    lines = []
    for number, things in enumerate(PICTURES):
        image = np.full((*SIZE, 3), 120 + 20 * number, np.float64)
        ids = np.zeros(SIZE, np.uint8)
        regions = []
        for i, (label, column, row) in enumerate(things, start=1):
            mask = outline(label, column, row)
            image[mask], ids[mask] = COLOURS[label], i
            regions.append({"label": label, "ids": [i], "instances": True})
        noisy = (image + rng.normal(size=image.shape) * 10).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.png")
        Image.fromarray(ids).save(folder / f"{number}_ids.png")
        row = {"image": f"{number}.png", "mask": f"{number}_ids.png", "source": "four"}
        lines += [
            json.dumps({**row, "split": split, "regions": regions}) for split in ("train", "dev")
        ]
    (folder / "index.jsonl").write_text("\n".join(lines))
    return folder


@dataclass(frozen=True)
class Known:
    """What the trained models say of one picture.

    Attributes:
        box_ious: Of the single mask for the box of each object.
        heat: For each word that is there, its mean logit on its cells and on the others.
        presence: For each word its logit, and whether it is there.
    """

    box_ious: list[float]
    heat: list[tuple[float, float]]
    presence: dict[str, tuple[float, bool]]


@torch.no_grad()
def look(trainer: Trainer, entry: Entry) -> Known:
    scene = whole_scene(entry, 128)
    targets = SceneTargets(scene, trainer.vocabulary)
    maps = trainer.models.maps(to_pixel_values(scene, trainer.models.device))
    sam = trainer.models.sam
    wanted = torch.stack([target.mask for target in targets.objects])
    box = boxes(wanted, np.random.default_rng(0), jitter=0.0, limit=0.0).boxes
    features = trainer.models.embed(maps)
    logits, _ = sam.decode_all(features, points=None, boxes=box, masks=None)
    masks, true = logits[:, 0].numpy() > 0, wanted.numpy() > 0.5
    ious = (masks & true).sum((1, 2)) / (masks | true).sum((1, 2))
    text = targets.text
    embedded = trainer.phrases.embed(text.concepts, None)
    local, presence = trainer.models.score(maps, targets.extent, embedded)
    heat = [
        (float(one[share > 0.7].mean()), float(one[share < 0.05].mean()))
        for one, share in zip(local, text.masks, strict=False)
    ]
    said = zip(presence.tolist(), (text.present > 0).tolist(), strict=True)
    found = dict(zip(text.concepts, said, strict=True))
    return Known(ious.tolist(), heat, found)


@pytest.fixture(scope="module")
def known(build_trainer, folder, tmp_path_factory) -> list[Known]:
    """Of the running mean of the weights, which is what is kept."""
    out = tmp_path_factory.mktemp("out")
    trainer = build_trainer(folder, out, CONFIG, model_config=MODEL)
    trainer.cooldown = (STEPS, COOLDOWN)
    trainer.run(STEPS + COOLDOWN)
    with torch.no_grad():
        for name, value in trainer.learned.items():
            value.copy_(trainer.mean[name])
    return [look(trainer, entry) for entry in read_entries(folder, "train")]


def test_boxes_give_the_objects(known) -> None:
    ious = [iou for picture in known for iou in picture.box_ious]
    assert len(ious) == 7
    assert np.mean(ious) > 0.8
    assert min(ious) > 0.65


def test_words_are_hot_where_they_are(known) -> None:
    heats = [heat for picture in known for heat in picture.heat]
    assert len(heats) == 7
    assert all(on > 0 > beside for on, beside in heats)


def test_what_is_there_is_told_from_what_is_not(known) -> None:
    for picture in known:
        assert picture.presence.keys() == COLOURS.keys()
        there = [logit for logit, here in picture.presence.values() if here]
        absent = [logit for logit, here in picture.presence.values() if not here]
        assert there
        assert absent
        assert min(there) > max(absent)
