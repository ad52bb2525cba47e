"""A training of a few seconds: it learns, saves, resumes bit for bit, and gives usable weights."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import train_pocket
from config import Phase, TrainConfig
from features import FeatureCache
from safetensors.torch import load_file
from torch import Tensor
from train_pocket import (
    DEEP_PREFIXES,
    SAM_FILE,
    Trainer,
    first_prompts,
    main,
    pick_objects,
    rate_at,
    source_chances,
    trained_parameters,
)

from promptseg.apps.evaluation.index_folder import Region, read_index
from promptseg.models.errors import InputError
from promptseg.models.pocket.grounder import TEXT_FILE, load_text_head
from promptseg.models.pocket.sam import BACKBONE_PREFIX, build_pocket_sam, with_backbone

STEPS, FIRST_PHASE = 16, 8
DEEP = (*(f"sam.{prefix}" for prefix in DEEP_PREFIXES), "text_head.")


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
    """A finished training.

    Attributes:
        trainer: After the last step.
        out: Its folder.
        start: All weights of its models before the first step.
    """

    trainer: CopyingTrainer
    out: Path
    start: dict[str, Tensor]


def copied(models: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in models.state_dict().items()}


@pytest.fixture(scope="module")
def make_trainer(build_trainer, data_folder, model_config, train_config):
    def make(out: Path, kind: type[Trainer] = Trainer, **options) -> Trainer:
        config = options.pop("config", train_config)
        return build_trainer(
            data_folder, out, config, kind=kind, model_config=model_config, **options
        )

    return make


@pytest.fixture(scope="module")
def run(make_trainer, tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("run")
    trainer = make_trainer(out, CopyingTrainer)
    start = copied(trainer.models)
    trainer.resume()  # there is nothing to resume
    assert trainer.step == 0
    trainer.run()
    return Run(trainer, out, start)


def test_the_loss_falls_in_both_phases(run) -> None:
    losses = run.trainer.losses
    assert len(losses) == STEPS
    for phase in (losses[:FIRST_PHASE], losses[FIRST_PHASE:]):
        assert np.mean(phase[-3:]) < 0.85 * np.mean(phase[:3])
    # The text head's loss joins in.
    assert losses[FIRST_PHASE] > losses[FIRST_PHASE - 1] + 1


def test_the_learning_curve_is_logged(run) -> None:
    rows = [json.loads(line) for line in (run.out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12, 16]
    for i, row in enumerate(rows):
        expected = np.mean(run.trainer.losses[4 * i : 4 * i + 4])
        assert row["loss"] == pytest.approx(expected, abs=1e-4)
        assert row["prompts_per_second"] > 0
    assert "box" not in rows[-2]
    shares = {"box", "click_best", "click_selected", "iou_error", "text", "text_pointing"}
    assert shares | {"presence_mcc"} <= rows[-1].keys()
    assert all(0 <= rows[-1][name] <= 1 for name in shares)
    assert -1 <= rows[-1]["presence_mcc"] <= 1
    assert rows[-1]["click_selected"] <= rows[-1]["click_best"]


def learned_at(run: Run, step: int) -> dict[str, Tensor]:
    return torch.load(run.out / f"step_{step}.pt", weights_only=True)["learned"]


def test_the_first_phase_leaves_the_deep_stages_and_the_text_head_alone(run) -> None:
    learned = learned_at(run, FIRST_PHASE)
    same = {name for name, value in learned.items() if torch.equal(value, run.start[name])}
    deep = {name for name in learned if name.startswith(DEEP)}
    assert len(deep) > 80
    # An absent mask is drawn as zeros.
    assert same == deep | {"sam.prompt_encoder.no_mask_embed.weight"}
    assert all(torch.equal(run.start[name], run.trainer.mean[name]) for name in same - deep)


def test_the_next_phase_trains_all_but_the_early_stages(run) -> None:
    before, after = learned_at(run, FIRST_PHASE), copied(run.trainer.models)
    assert not [name for name in before if name.startswith(DEEP) and name not in after]
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert same == {"sam.prompt_encoder.no_mask_embed.weight"}
    # The rest of the backbone, its ImageNet head and the frequencies of positions are never
    # touched, nor are the statistics of the deep stages' batch norms.
    never = run.start.keys() - before.keys()
    backbone = f"sam.{BACKBONE_PREFIX}"
    named = {name.removeprefix(backbone).split(".")[0] for name in never if backbone in name}
    assert named == {"conv_stem", "bn1", "blocks", "conv_head", "bn2", "classifier"}
    assert all(torch.equal(after[name], run.start[name]) for name in never)


def test_each_part_has_its_own_learning_rate(make_trainer, train_config, tmp_path: Path) -> None:
    config = replace(train_config, phases=(Phase(1, 1, 1, 3e-3, 2e-4, images=1, prompts=1),))
    trainer = make_trainer(tmp_path, config=config)
    trainer.train_step()
    names = {id(value): name for name, value in trainer.learned.items()}
    grouped = []
    for group in trainer.optimizer.param_groups:
        for value in group["params"]:
            name = names[id(value)]
            grouped.append(name)
            backbone = name.startswith(f"sam.{BACKBONE_PREFIX}")
            assert group["lr"] == pytest.approx(2e-4 if backbone else 3e-3)
            assert group["weight_decay"] == (config.weight_decay if value.ndim > 1 else 0)
    assert sorted(grouped) == sorted(trainer.learned)


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


@pytest.mark.parametrize("step", [4, 12])  # in the middle of a phase each
def test_resuming_goes_on_bit_for_bit(run, make_trainer, tmp_path: Path, step: int) -> None:
    shutil.copy(run.out / f"step_{step}.pt", tmp_path / "checkpoint.pt")
    resumed = make_trainer(tmp_path, CopyingTrainer)
    resumed.resume()
    assert resumed.step == step
    resumed.run()
    assert resumed.losses == run.trainer.losses[step:]
    states = [torch.load(out / "checkpoint.pt", weights_only=True) for out in (tmp_path, run.out)]
    for state in states:
        assert state.pop("seconds") > 0
    assert states[0]["step"] == STEPS
    assert_same(*states)


def test_a_finished_training_has_nothing_left_to_do(run, make_trainer, tmp_path: Path) -> None:
    shutil.copy(run.out / "checkpoint.pt", tmp_path / "checkpoint.pt")
    trainer = make_trainer(tmp_path)
    trainer.resume()
    trainer.run()
    assert trainer.step == STEPS
    assert not (tmp_path / "log.jsonl").exists()


def test_the_masks_weights_are_the_running_mean_with_the_deep_stages(run, model_config) -> None:
    stored = load_file(run.out / SAM_FILE)
    trainer = run.trainer
    assert stored.keys() == trained_parameters(trainer.models.sam).keys()
    backbone = {name for name in stored if name.startswith(BACKBONE_PREFIX)}
    assert {name.split(".")[3] for name in backbone} == {"3", "4", "5", "6"}
    assert all(name.startswith(DEEP_PREFIXES) for name in backbone)
    for name, value in trainer.mean.items():
        if name.startswith("sam."):
            assert torch.equal(stored[name.removeprefix("sam.")], value.half())
    name = f"{DEEP_PREFIXES[-1]}0.conv_pwl.weight"
    assert not torch.equal(stored[name], trainer.learned[f"sam.{name}"].half())
    # With the backbone's other weights it is a whole model.
    model = build_pocket_sam(model_config)
    model.load_state_dict(with_backbone({k: v.float() for k, v in stored.items()}))


def test_the_text_heads_weights_are_the_running_mean_with_the_words_it_was_taught(run) -> None:
    head, known = load_text_head(run.out / TEXT_FILE)
    for name, value in head.state_dict().items():
        assert torch.equal(value, run.trainer.mean[f"text_head.{name}"].half().float())
    # Both labels are in all four pictures; no other word of their sources is in any.
    assert known.pictures.tolist() == [4, 4]
    words = run.trainer.examples.embeddings
    expected = torch.cat([words["box"], words["disc"]])
    torch.testing.assert_close(known.embeddings, expected, rtol=0, atol=1e-3)
    trust = known.trust(torch.cat([expected, words["zebra"]]))
    assert trust[:2].min() > trust[2] + 0.1


class GradientTrainer(Trainer):
    """Keeps the gradients that a step is made with."""

    def average_gradients(self) -> None:
        super().average_gradients()
        self.gradients = {
            name: None if value.grad is None else value.grad.clone()
            for name, value in self.learned.items()
        }


class Exchange:
    """A stand-in for the sum over processes, between threads."""

    def __init__(self, workers: int) -> None:
        self.given: list[Tensor] = []
        self.barrier = threading.Barrier(workers, timeout=300)

    def all_reduce(self, flat: Tensor) -> None:
        self.given.append(flat.clone())
        self.barrier.wait()
        flat.copy_(torch.stack(self.given).sum(0))
        if self.barrier.wait() == 0:
            self.given.clear()
        self.barrier.wait()


def test_two_workers_step_by_the_mean_of_what_each_would_alone(
    make_trainer, train_config, tmp_path: Path, monkeypatch
) -> None:
    exchange = Exchange(2)
    monkeypatch.setattr(train_pocket.dist, "all_reduce", exchange.all_reduce)
    single = [replace(phase, images=1) for phase in train_config.phases]
    pair = [make_trainer(tmp_path, GradientTrainer, rank=i, workers=2) for i in range(2)]
    config = replace(train_config, phases=tuple(single))
    alone = [make_trainer(tmp_path, GradientTrainer, rank=i, config=config) for i in range(2)]
    start = copied(pair[0].models)
    for first_step in (0, FIRST_PHASE):
        for trainer in (*pair, *alone):
            trainer.models.load_state_dict(start)
            trainer.step = first_step
        for trainer in alone:
            trainer.train_step()
        threads = [threading.Thread(target=trainer.train_step) for trainer in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        moved = set()
        for name, found in pair[0].gradients.items():
            own = [trainer.gradients[name] for trainer in alone]
            if found is None:
                assert own == [None, None]
                continue
            moved.add(name)
            expected = sum(torch.zeros_like(found) if g is None else g for g in own) / 2
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
            assert torch.equal(found, pair[1].gradients[name])
        assert any(name.startswith(DEEP) for name in moved) == (first_step == FIRST_PHASE)
        assert all(torch.equal(v, pair[1].learned[k]) for k, v in pair[0].learned.items())


def test_workers_must_share_the_pictures_evenly(data_folder, tmp_path, monkeypatch, capsys) -> None:
    arguments = [str(data_folder), "--out", str(tmp_path / "out"), "--workers", "3"]
    monkeypatch.setattr(sys, "argv", ["train_pocket.py", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "--workers must divide" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_look_at_the_dev_split_changes_nothing(run) -> None:
    before = {k: v.detach().clone() for k, v in run.trainer.learned.items()}
    first = run.trainer.look()
    assert first == run.trainer.look()
    assert all(torch.equal(before[k], v) for k, v in run.trainer.learned.items())


def test_learning_rate_rises_stays_and_falls_in_each_phase() -> None:
    phases = (
        Phase(100, 10, 20, 1e-3, 0.0, images=2, prompts=2),
        Phase(5, 2, 3, 1e-4, 1e-4, images=2, prompts=2),
    )
    config = TrainConfig(phases=phases)
    rates = [rate_at(step, config) for step in range(105)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert set(rates[10:81]) == {1.0}
    np.testing.assert_allclose(rates[80:100], np.arange(20, 0, -1) / 20)
    np.testing.assert_allclose(rates[100:], [1 / 2, 1, 1, 2 / 3, 1 / 3])


def test_sources_go_by_the_settings_or_their_share_of_the_index() -> None:
    config = TrainConfig(sources=(("a", 0.5), ("b", 0.3)))
    assert source_chances({"b": 10, "c": 30, "d": 40}, config) == {
        "b": 0.3,
        "c": 0.375,
        "d": 0.5,
    }
    assert list(source_chances({"b": 1, "a": 1}, config)) == ["a", "b"]


def test_the_splits_must_be_there(
    build_trainer, data_folder, model_config, train_config, tmp_path
) -> None:
    lines = (data_folder / "index.jsonl").read_text().splitlines()
    (tmp_path / "index.jsonl").write_text("\n".join(lines[:4]))
    with pytest.raises(InputError, match="no sample of split 'dev'"):
        build_trainer(tmp_path, tmp_path / "out", train_config, model_config=model_config)


@pytest.fixture(scope="module")
def view(run, data_folder):
    sample = read_index(data_folder)[0]
    return sample, FeatureCache(run.trainer.models.sam, run.out / "cache").view(sample, flip=False)


def test_objects_are_picked_that_are_large_enough(view) -> None:
    sample, seen = view
    rng = np.random.default_rng(0)
    targets = pick_objects(sample, seen, 40, 0.004, rng)
    assert targets.shape == (40, *seen.grid_size)
    box, disc = seen.target((1,)), seen.target((2,))
    count = [sum(torch.equal(t, kind) for t in targets) for kind in (box, disc)]
    assert min(count) > 10
    assert sum(count) == 40
    areas = [float((m * seen.weight()).sum() / seen.weight().sum()) for m in (box, disc)]
    assert areas[0] > areas[1]
    targets = pick_objects(sample, seen, 40, sum(areas) / 2, rng)
    assert all(torch.equal(target, box) for target in targets)
    assert pick_objects(sample, seen, 40, 0.9, rng) is None


def test_a_picture_without_objects_is_skipped(view, run) -> None:
    sample, seen = view
    absent = replace(sample, regions=(Region("cat", (9,), instances=True, thing=True),))
    rng = np.random.default_rng(0)
    assert pick_objects(absent, seen, 3, 0.004, rng) is None
    run.trainer.step = STEPS - 1
    assert run.trainer.picture_loss(absent, seen, rng) is None
    loss, decoded = run.trainer.picture_loss(sample, seen, rng)
    assert loss.isfinite()
    assert decoded in (3, 6, 9)
    run.trainer.step = STEPS


@pytest.mark.parametrize("heat_chance", [0.0, 1.0])
def test_a_source_without_words_trains_masks_alone(
    view, run, monkeypatch, heat_chance: float
) -> None:
    sample, seen = view
    monkeypatch.setattr(run.trainer, "step", STEPS - 1)

    def gradients(unnamed: tuple[str, ...]) -> set[str]:
        config = replace(run.trainer.config, unnamed_sources=unnamed, heat_chance=heat_chance)
        monkeypatch.setattr(run.trainer, "config", config)
        loss, _ = run.trainer.picture_loss(sample, seen, np.random.default_rng(0))
        loss.backward()
        named = {k for k, v in run.trainer.learned.items() if v.grad is not None and v.grad.any()}
        run.trainer.models.zero_grad()
        return named

    assert any(name.startswith("text_head.") for name in gradients(()))
    silent = gradients((sample.source,))
    assert not any(name.startswith("text_head.") for name in silent)
    assert any(name.startswith(DEEP) for name in silent)


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
