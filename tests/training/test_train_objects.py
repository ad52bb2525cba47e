"""The object head alone, on features that are computed once."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import train_objects
from composer import Composer
from config import SceneConfig
from pictures import read_entries
from pocket_models import PocketModels
from safetensors.torch import load_file
from scene_cache import ObjectCache, ObjectScene
from train_objects import ObjectConfig, ObjectTrainer, split_ious, with_objects
from vocabulary import Vocabulary

from promptseg.models.pocket.objects import OBJECTS_FILE, ObjectHead, load_object_head
from promptseg.models.pocket.sam import PocketSamConfig

SMALL = SceneConfig(side=64, small_side=64, paste_sides=(12.0, 24.0))
QUICK = ObjectConfig(steps=4, batch=2, warmup=1, save_every=2, eval_every=4)
MODEL = PocketSamConfig(image_size=64, embed_dim=16, num_heads=2)


@pytest.fixture(scope="module")
def cache(data_folder: Path, tmp_path_factory) -> ObjectCache:
    torch.manual_seed(0)
    entries = read_entries(data_folder, "train")
    store = ObjectCache(
        tmp_path_factory.mktemp("cache") / "scenes",
        PocketModels(MODEL),
        Vocabulary.of(entries),
        Composer(entries, SMALL),
        with_objects(entries),
        unnamed=(),
        seed=3,
    )
    assert list(store.fill(7)) == list(range(7))
    return store


def trainer_of(cache: ObjectCache, out: Path, config: ObjectConfig = QUICK) -> ObjectTrainer:
    torch.manual_seed(0)
    out.mkdir(exist_ok=True)
    head = ObjectHead(embed_dim=16, dim=16, depth=1)
    return ObjectTrainer(head, cache, cache, out, config)


def test_a_cached_scene_is_what_the_models_see(cache) -> None:
    scene = cache.see(cache.composer(np.random.default_rng((3, 6))))
    stored = cache.load(6)
    assert isinstance(stored, ObjectScene)
    for name in ("deep", "coarse", "fine"):
        assert torch.equal(getattr(stored, name), getattr(scene, name))
    assert (stored.masks - scene.masks).abs().max() <= 0.5 / 255 + 1e-6
    assert stored.concepts == scene.concepts


def test_only_pictures_whose_objects_are_told_apart_are_seen_whole(data_folder: Path) -> None:
    entries = read_entries(data_folder, "train")
    assert with_objects(entries)
    for entry in with_objects(entries):
        assert any(region.instances for region in entry.sample.regions) or any(entry.boxes)


def test_training_lowers_the_loss_and_its_mean_is_kept(cache, tmp_path: Path) -> None:
    config = replace(QUICK, steps=60, rate=5e-3, dropout=0.0, whole=(1.0, 1.0))
    trainer = trainer_of(cache, tmp_path / "run", config)
    losses = []
    while trainer.step < config.steps:
        losses.append(trainer.train_step())
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    trainer.save()
    head = load_object_head(tmp_path / "run" / OBJECTS_FILE)
    for name, value in head.state_dict().items():
        assert torch.equal(value, trainer.mean[name].half().float())


def test_an_interrupted_training_ends_the_same(cache, tmp_path: Path) -> None:
    whole = trainer_of(cache, tmp_path / "whole")
    whole.run()
    first = trainer_of(cache, tmp_path / "cut")
    first.train_step()
    first.train_step()
    first.save()
    again = trainer_of(cache, tmp_path / "cut")
    again.resume()
    assert again.step == 2
    again.run()
    for name, value in whole.mean.items():
        torch.testing.assert_close(again.mean[name], value)
    rows = [json.loads(line) for line in (tmp_path / "cut/log.jsonl").read_text().splitlines()]
    assert any(name.startswith(("one_", "several_")) for name in rows[-1])


def test_split_ious_of_a_worked_example() -> None:
    row = np.arange(8)[None]
    masks = np.stack([row < 4, row >= 4, row == 9])
    parts = [row < 3, row >= 3]
    assert split_ious(parts, masks) == [0.75, 0.8, 0.0]


def test_the_command_fills_trains_and_goes_on(
    data_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    small = replace(QUICK, steps=2)
    monkeypatch.setattr(train_objects, "ObjectConfig", lambda **kept: replace(small, **kept))
    train_objects.ObjectConfig.scenes, train_objects.ObjectConfig.steps = 5, 2  # what --help tells
    monkeypatch.setattr(train_objects, "PocketSamConfig", lambda: MODEL)
    argv = ["train_objects.py", str(data_folder), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*argv, "--init", str(tmp_path), "--scenes", "5"])
    train_objects.main()
    assert len(list((tmp_path / "out/scenes").glob("*.pt"))) == 5
    assert load_object_head(tmp_path / "out" / OBJECTS_FILE).deep.weight.shape[1] == 472

    started: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(ObjectTrainer, "run", lambda self: started.append(self.head.state_dict()))
    argv = ["train_objects.py", str(data_folder), "--out", str(tmp_path / "more")]
    monkeypatch.setattr(sys, "argv", [*argv, "--init", str(tmp_path / "out"), "--scenes", "5"])
    train_objects.main()
    for name, value in load_file(tmp_path / "out" / OBJECTS_FILE).items():
        torch.testing.assert_close(started[0][name], value.float())
