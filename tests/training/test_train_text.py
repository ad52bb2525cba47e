"""The text head alone, on features that are computed once."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import train_text
from cached_trainer import rate_at
from composer import Composer
from config import SceneConfig
from phrases import Phrases
from pictures import read_entries, read_weak
from pocket_models import PocketModels
from safetensors import safe_open
from safetensors.torch import save_file
from scene_cache import TextCache, TextScene
from train_text import TextConfig, TextTrainer, some_of_each
from vocabulary import Vocabulary

from promptseg.models.pocket.grounder import TEXT_FILE, load_text_head
from promptseg.models.pocket.minilm import load_minilm
from promptseg.models.pocket.sam import PocketSamConfig

SMALL = SceneConfig(side=64, small_side=64, paste_sides=(12.0, 24.0))
QUICK = TextConfig(steps=4, batch=2, warmup=1, save_every=2, eval_every=4)


@pytest.fixture(scope="module")
def models() -> PocketModels:
    torch.manual_seed(0)
    return PocketModels(PocketSamConfig(image_size=64, embed_dim=16, num_heads=2))


@pytest.fixture(scope="module")
def cache(models, data_folder: Path, tmp_path_factory) -> TextCache:
    entries, weak = read_entries(data_folder, "train"), read_weak(data_folder, "train")
    vocabulary = Vocabulary.of(entries + weak)
    composer = Composer(entries + weak, SMALL)
    folder = tmp_path_factory.mktemp("cache") / "scenes"
    store = TextCache(folder, models, vocabulary, composer, entries, unnamed=(), seed=3)
    assert list(store.fill(7)) == list(range(7))
    return store


def trainer_of(cache: TextCache, out: Path, config: TextConfig = QUICK) -> TextTrainer:
    entries = cache.whole
    phrases = Phrases(cache.vocabulary, load_minilm(), 0.0, entries)
    out.mkdir(exist_ok=True)
    return TextTrainer(cache, cache, phrases, out, config)


def test_a_cached_scene_is_what_the_models_see(cache, tmp_path: Path) -> None:
    scene = cache.see(cache.composer(np.random.default_rng((3, 6))))
    stored = TextScene.load(cache.path(6))
    assert torch.equal(stored.features, scene.features)
    assert stored.features.dtype == torch.float16
    assert stored.words.concepts == scene.words.concepts
    assert torch.equal(stored.words.present, scene.words.present)
    for name in ("masks", "weights"):
        left, right = getattr(stored.words, name), getattr(scene.words, name)
        assert (left - right).abs().max() <= 0.5 / 255 + 1e-6
    assert len(stored.words.weak) == len(scene.words.weak)


def test_filling_goes_on_where_it_stopped(cache) -> None:
    assert list(cache.fill(7)) == []
    cache.path(6).unlink()
    assert list(cache.fill(7)) == [6]


def test_whole_pictures_come_first_and_rare_ones_are_seen_as_often_as_the_composer_does(
    cache,
) -> None:
    whole = TextScene.load(cache.path(0))
    assert set(whole.words.concepts[: len(whole.words.masks)]) == {"box", "disc"}
    chances = cache.chances()
    assert chances.sum() == pytest.approx(1)
    shares = {name: cache.composer.shares[name] for name in ("voc", "made-up")}
    expected = [shares[entry.sample.source] / 2 for entry in cache.whole]
    np.testing.assert_allclose(chances, np.array(expected) / sum(expected))


def test_only_the_text_head_learns_and_its_mean_is_kept(cache, models, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in models.state_dict().items()}
    trainer = trainer_of(cache, tmp_path / "run")
    trainer.run()
    changed = {n for n, v in models.state_dict().items() if not torch.equal(v, before[n])}
    assert changed
    assert all(name.startswith("text_head.") for name in changed)
    head, known = load_text_head(tmp_path / "run" / TEXT_FILE)
    for name, value in head.state_dict().items():
        assert torch.equal(value, trainer.mean[name].half().float())
    assert known.names == tuple(trainer.phrases.names())
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert "presence_mcc" in rows[-1]
    models.load_state_dict(before)


def test_an_interrupted_training_ends_the_same(cache, models, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in models.state_dict().items()}
    whole = trainer_of(cache, tmp_path / "whole")
    whole.run()
    expected = {name: value.clone() for name, value in whole.mean.items()}
    models.load_state_dict(before)
    first = trainer_of(cache, tmp_path / "cut")
    first.train_step()
    first.train_step()
    first.save()
    models.load_state_dict(before)
    again = trainer_of(cache, tmp_path / "cut")
    again.resume()
    assert again.step == 2
    again.run()
    for name, value in expected.items():
        torch.testing.assert_close(again.mean[name], value)
    models.load_state_dict(before)


def test_training_lowers_the_loss(cache, models, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in models.state_dict().items()}
    config = replace(QUICK, steps=30, dropout=0.0, whole=(1.0, 1.0), rate=3e-3)
    trainer = trainer_of(cache, tmp_path / "run", config)
    losses = [trainer.train_step() for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    models.load_state_dict(before)


def test_the_rate_rises_then_falls_to_nothing() -> None:
    config = TextConfig(steps=100, warmup=10)
    rates = [rate_at(step, config) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == 0


def test_some_of_each_source(data_folder: Path) -> None:
    entries = read_entries(data_folder, "train")
    kept = some_of_each(entries, {"voc": 1})
    assert sorted(e.sample.source for e in kept) == ["made-up", "made-up", "voc"]


def test_the_command_fills_trains_and_goes_on(
    data_folder: Path, models, tmp_path: Path, monkeypatch
) -> None:
    init = tmp_path / "init"
    init.mkdir()
    state = {name: value.half() for name, value in models.text_head.state_dict().items()}
    save_file(state, init / TEXT_FILE)
    small = replace(QUICK, steps=2)
    monkeypatch.setattr(train_text, "TextConfig", lambda **kept: replace(small, **kept))
    train_text.TextConfig.scenes, train_text.TextConfig.steps = 5, 2  # what --help tells
    monkeypatch.setattr(train_text, "PocketSamConfig", lambda: models_config())
    argv = ["train_text.py", str(data_folder), "--out", str(tmp_path / "out"), "--init", str(init)]
    monkeypatch.setattr(sys, "argv", [*argv, "--scenes", "5", "--steps", "2"])
    train_text.main()
    assert len(list((tmp_path / "out/scenes").glob("*.pt"))) == 5
    with safe_open(tmp_path / "out" / TEXT_FILE, framework="pt") as file:
        assert "box" in json.loads(file.metadata()["words"])


def models_config() -> PocketSamConfig:
    return PocketSamConfig(image_size=64, embed_dim=16, num_heads=2)
