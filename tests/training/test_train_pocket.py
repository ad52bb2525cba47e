"""A training of a few seconds: it learns, saves, resumes bit for bit, and gives usable weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from config import TrainConfig
from features import FeatureCache
from safetensors.torch import load_file
from train_pocket import (
    Trainer,
    first_prompts,
    pick_objects,
    rate_at,
    source_chances,
    trained_parameters,
)

from promptseg.apps.datasets import Region, read_index
from promptseg.models.errors import InputError
from promptseg.models.sam.pocket import BACKBONE_PREFIX, build_pocket_sam, with_backbone

RESUME_AT = 16


class CopyingTrainer(Trainer):
    """Keeps every checkpoint and the loss of every step."""

    def train_step(self) -> tuple[float, int]:
        loss, prompts = super().train_step()
        self.losses = [*getattr(self, "losses", []), loss]
        return loss, prompts

    def save(self) -> None:
        super().save()
        shutil.copy(self.checkpoint, self.out / f"step_{self.step}.pt")


@dataclass(frozen=True)
class Run:
    """A finished training."""

    trainer: CopyingTrainer
    out: Path


@pytest.fixture(scope="module")
def make_trainer(data_folder, model_config, train_config):
    def make(out: Path, kind: type[Trainer] = Trainer) -> Trainer:
        return kind(data_folder, out, train_config, model_config=model_config)

    return make


@pytest.fixture(scope="module")
def run(make_trainer, tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("run")
    trainer = make_trainer(out, CopyingTrainer)
    trainer.resume()  # there is nothing to resume
    assert trainer.step == 0
    trainer.run()
    return Run(trainer, out)


def test_the_loss_falls(run) -> None:
    losses = run.trainer.losses
    assert len(losses) == 24
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])


def test_the_learning_curve_is_logged(run) -> None:
    rows = [json.loads(line) for line in (run.out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [8, 16, 24]
    for i, row in enumerate(rows):
        expected = np.mean(run.trainer.losses[8 * i : 8 * i + 8])
        assert row["loss"] == pytest.approx(expected, abs=1e-4)
        assert row["prompts_per_second"] > 0
    assert "box" not in rows[1]
    metrics = {"box", "click_best", "click_selected", "iou_error"}
    assert metrics <= rows[2].keys()
    assert all(0 <= rows[2][name] <= 1 for name in metrics)
    assert rows[2]["click_selected"] <= rows[2]["click_best"]


def assert_same(one: object, other: object) -> None:
    """Equal bit for bit, down through dictionaries and lists."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def test_resuming_goes_on_bit_for_bit(run, make_trainer, tmp_path: Path) -> None:
    shutil.copy(run.out / f"step_{RESUME_AT}.pt", tmp_path / "checkpoint.pt")
    resumed = make_trainer(tmp_path, CopyingTrainer)
    resumed.resume()
    assert resumed.step == RESUME_AT
    resumed.run()
    assert resumed.losses == run.trainer.losses[RESUME_AT:]
    states = [torch.load(out / "checkpoint.pt", weights_only=True) for out in (tmp_path, run.out)]
    for state in states:
        assert state.pop("seconds") > 0
    assert states[0]["step"] == 24
    assert_same(*states)


def test_a_finished_training_has_nothing_left_to_do(run, make_trainer, tmp_path: Path) -> None:
    shutil.copy(run.out / "checkpoint.pt", tmp_path / "checkpoint.pt")
    trainer = make_trainer(tmp_path)
    trainer.resume()
    trainer.run()
    assert trainer.step == 24
    assert not (tmp_path / "log.jsonl").exists()


def test_the_result_is_the_running_mean_without_the_backbone(run, model_config) -> None:
    stored = load_file(run.out / "sam_pocket.safetensors")
    trainer = run.trainer
    assert stored.keys() == trained_parameters(trainer.model).keys()
    assert not any(name.startswith(BACKBONE_PREFIX) for name in stored)
    assert all(torch.equal(stored[k], v.half()) for k, v in trainer.mean.items())
    name = "mask_decoder.mask_tokens.weight"
    assert not torch.equal(stored[name], trainer.learned[name].half())
    # With the backbone's own weights it is a whole model.
    model = build_pocket_sam(model_config)
    model.load_state_dict(with_backbone({k: v.float() for k, v in stored.items()}))


def test_all_but_the_backbone_is_trained(run, make_trainer, tmp_path: Path) -> None:
    start = make_trainer(tmp_path).model.state_dict()
    end = run.trainer.model.state_dict()
    same = {name for name, value in end.items() if torch.equal(value, start[name])}
    trained = {name for name in same if not name.startswith(BACKBONE_PREFIX)}
    # The frequencies of positions are drawn once; an absent mask is drawn as zeros.
    assert trained == {
        "prompt_encoder.no_mask_embed.weight",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    }
    assert all(name in same for name in end if name.startswith(BACKBONE_PREFIX))


def test_a_look_at_the_dev_split_changes_nothing(run) -> None:
    before = {k: v.detach().clone() for k, v in run.trainer.learned.items()}
    first = run.trainer.look()
    assert first == run.trainer.look()
    assert all(torch.equal(before[k], v) for k, v in run.trainer.learned.items())


def test_learning_rate_rises_stays_and_falls() -> None:
    config = TrainConfig(steps=100, warmup=10, cooldown=20)
    rates = [rate_at(step, config) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert set(rates[10:81]) == {1.0}
    np.testing.assert_allclose(rates[80:], np.arange(20, 0, -1) / 20)
    assert rate_at(100, config) == 0


def test_sources_go_by_the_settings_or_their_share_of_the_index() -> None:
    config = TrainConfig(sources=(("a", 0.5), ("b", 0.3)))
    assert source_chances({"b": 10, "c": 30, "d": 40}, config) == {
        "b": 0.3,
        "c": 0.375,
        "d": 0.5,
    }
    assert list(source_chances({"b": 1, "a": 1}, config)) == ["a", "b"]


def test_the_splits_must_be_there(data_folder, model_config, train_config, tmp_path) -> None:
    lines = (data_folder / "index.jsonl").read_text().splitlines()
    (tmp_path / "index.jsonl").write_text("\n".join(lines[:4]))
    with pytest.raises(InputError, match="no sample of split 'dev'"):
        Trainer(tmp_path, tmp_path / "out", train_config, model_config=model_config)


@pytest.fixture(scope="module")
def view(run, data_folder):
    sample = read_index(data_folder)[0]
    return sample, FeatureCache(run.trainer.model, run.out / "cache").view(sample, flip=False)


def test_objects_are_picked_that_are_large_enough(view, train_config) -> None:
    sample, seen = view
    rng = np.random.default_rng(0)
    config = replace(train_config, prompts=40)
    targets = pick_objects(sample, seen, config, rng)
    assert targets.shape == (40, *seen.grid_size)
    box, disc = seen.target((1,)), seen.target((2,))
    count = [sum(torch.equal(t, kind) for t in targets) for kind in (box, disc)]
    assert min(count) > 10
    assert sum(count) == 40
    areas = [float((m * seen.weight()).sum() / seen.weight().sum()) for m in (box, disc)]
    assert areas[0] > areas[1]
    between = replace(config, min_area=sum(areas) / 2)
    targets = pick_objects(sample, seen, between, rng)
    assert all(torch.equal(target, box) for target in targets)
    assert pick_objects(sample, seen, replace(config, min_area=0.9), rng) is None


def test_a_picture_without_objects_is_skipped(view, train_config) -> None:
    sample, seen = view
    absent = replace(sample, regions=(Region("cat", (9,), instances=True, thing=True),))
    assert pick_objects(absent, seen, train_config, np.random.default_rng(0)) is None


def test_first_prompts_are_of_all_kinds(view) -> None:
    _, seen = view
    targets = torch.stack([seen.target((1,)), seen.target((2,))])
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(80):
        prompts = first_prompts(targets, 16, rng)
        kinds.add(tuple(v is not None for v in (prompts.points, prompts.boxes, prompts.masks)))
    assert {
        (True, False, False),
        (False, True, False),
        (True, True, False),
        (True, True, True),
    } <= kinds
    assert (False, False, False) not in kinds
