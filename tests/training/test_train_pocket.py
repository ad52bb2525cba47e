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
from config import TrainConfig
from pocket_models import DEEP_PREFIXES, FILES, SAM_FILE, PocketModels
from safetensors.torch import load_file
from torch import Tensor
from train_pocket import Trainer, chosen_dtype, cool_down, main, rate_at

from promptseg.models.errors import InputError
from promptseg.models.pocket.grounder import TEXT_FILE, load_text_head
from promptseg.models.pocket.sam import BACKBONE_PREFIX, build_pocket_sam, with_backbone

STEPS = 12


class CopyingTrainer(Trainer):
    """Keeps every checkpoint and the losses of every step."""

    def train_step(self) -> dict[str, float]:
        sums = super().train_step()
        self.losses = [*getattr(self, "losses", []), dict(sums)]
        return sums

    def save(self) -> None:
        super().save()
        shutil.copy(self.out / "checkpoint.pt", self.out / f"step_{self.step}.pt")


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
    assert not trainer.resume()  # there is nothing to resume
    trainer.run(STEPS)
    return Run(trainer, out, start)


def test_every_part_of_the_loss_is_there_and_falls(run) -> None:
    losses = run.trainer.losses
    assert len(losses) == STEPS
    for name in ("text", "masks"):
        means = [s[name] / s[f"{name}_count"] for s in losses if s.get(f"{name}_count")]
        assert len(means) >= STEPS - 2
        assert np.isfinite(means).all()
        assert np.mean(means[-4:]) < 0.95 * np.mean(means[:4])


def test_the_learning_curve_is_logged(run) -> None:
    rows = [json.loads(line) for line in (run.out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12]
    for i, row in enumerate(rows):
        some = run.trainer.losses[4 * i : 4 * i + 4]
        expected = sum(s["text"] for s in some) / sum(s["text_count"] for s in some)
        assert row["text"] == pytest.approx(expected, abs=1e-4)
        assert row["prompts_per_second"] > 0
        assert row["scenes_per_second"] > 0
    assert "click_best" not in rows[-2]
    shares = {"box_voc", "click_best", "click_selected", "iou_error", "text_voc", "two_clicks"}
    assert shares | {"presence_mcc"} <= rows[-1].keys()
    assert all(0 <= rows[-1][name] <= 1 for name in shares)
    assert -1 <= rows[-1]["presence_mcc"] <= 1
    assert rows[-1]["click_selected"] <= rows[-1]["click_best"]


def test_all_is_trained_but_the_early_stages_and_the_filters(run) -> None:
    after = copied(run.trainer.models)
    same = {name for name, value in run.start.items() if torch.equal(value, after[name])}
    learned = run.trainer.learned.keys()
    # An absent mask is drawn as zeros.
    assert same & learned <= {"sam.prompt_encoder.no_mask_embed.weight"}
    assert run.start.keys() - learned <= same
    backbone = f"sam.{BACKBONE_PREFIX}"
    named = {n.removeprefix(backbone).split(".")[0] for n in same if n.startswith(backbone)}
    assert named == {"conv_stem", "bn1", "blocks", "conv_head", "bn2", "classifier"}
    filters = {name for name in run.start if name.endswith("conv_dw.weight")}
    assert filters <= same


def test_each_part_has_its_own_learning_rate(make_trainer, train_config, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, config=replace(train_config, images=1, warmup=1, decode=0.0))
    trainer.train_step()
    names = {id(value): name for name, value in trainer.learned.items()}
    grouped = []
    for group in trainer.optimizer.param_groups:
        for value in group["params"]:
            name = names[id(value)]
            grouped.append(name)
            rate = 3e-4 if name.startswith(DEEP_PREFIXES) else 3e-3
            assert group["lr"] == pytest.approx(rate)
            assert group["weight_decay"] == (0.02 if value.ndim > 1 else 0)
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


def test_resuming_goes_on_bit_for_bit(run, make_trainer, tmp_path: Path) -> None:
    shutil.copy(run.out / "step_8.pt", tmp_path / "checkpoint.pt")
    resumed = make_trainer(tmp_path, CopyingTrainer)
    with torch.no_grad():  # also what is not learned comes from the checkpoint
        resumed.weights["sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].zero_()
    assert resumed.resume()
    assert resumed.step == 8
    resumed.run(STEPS)
    assert resumed.losses == run.trainer.losses[8:]
    states = [torch.load(out / "checkpoint.pt", weights_only=True) for out in (tmp_path, run.out)]
    for state in states:
        assert state.pop("seconds") > 0
    assert states[0]["step"] == STEPS
    assert_same(*states)


def test_a_finished_training_has_nothing_left_to_do(run, make_trainer, tmp_path: Path) -> None:
    shutil.copy(run.out / "checkpoint.pt", tmp_path / "checkpoint.pt")
    trainer = make_trainer(tmp_path)
    trainer.resume()
    trainer.run(STEPS)
    assert trainer.step == STEPS
    assert not (tmp_path / "log.jsonl").exists()


def test_a_cooldown_branches_off_and_goes_on_where_it_was_interrupted(
    run, make_trainer, tmp_path: Path
) -> None:
    shutil.copy(run.out / "step_8.pt", tmp_path / "checkpoint.pt")
    before = (tmp_path / "checkpoint.pt").read_bytes()
    trainer = make_trainer(tmp_path, CopyingTrainer)
    cool_down(trainer, 6)
    folder = tmp_path / "cooldown-8"
    assert trainer.out == folder
    assert trainer.step == 14
    assert trainer.optimizer.param_groups[0]["lr"] < 0.1 * trainer.optimizer.param_groups[0]["rate"]
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert all((folder / name).is_file() for name in FILES.values())
    assert trainer.composer.config == trainer.config.calm
    final = load_file(folder / SAM_FILE)
    # Killed after its first checkpoint, it ends the same.
    shutil.copy(folder / "step_12.pt", folder / "checkpoint.pt")
    again = make_trainer(tmp_path, CopyingTrainer)
    cool_down(again, 99)  # its own number of steps counts
    assert again.step == 14
    assert len(again.losses) == 2
    assert_same(load_file(folder / SAM_FILE), final)


def test_a_cooldown_needs_a_training(make_trainer, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="nothing to cool down from"):
        cool_down(make_trainer(tmp_path), 5)


def test_the_weights_are_the_running_mean_with_what_is_fixed(run, model_config) -> None:
    stored = load_file(run.out / SAM_FILE)
    trainer = run.trainer
    prefix = f"sam.{BACKBONE_PREFIX}"
    kept = [n for n in trainer.weights if n.startswith("sam.")]
    assert stored.keys() == {name.removeprefix("sam.") for name in kept}
    stages = {n.removeprefix(prefix).split(".")[1] for n in kept if n.startswith(prefix)}
    assert stages == {"3", "4", "5", "6"}
    for name, value in trainer.mean.items():
        if name.startswith("sam."):
            assert torch.equal(stored[name.removeprefix("sam.")], value.half())
    # With the backbone's other weights it is a whole model.
    model = build_pocket_sam(model_config)
    model.load_state_dict(with_backbone({k: v.float() for k, v in stored.items()}))


def test_the_text_heads_weights_come_with_the_words_it_was_taught(run) -> None:
    head, known = load_text_head(run.out / TEXT_FILE)
    for name, value in head.state_dict().items():
        assert torch.equal(value, run.trainer.mean[f"text_head.{name}"].half().float())
    # Two labels are in all four pictures, one in the two without masks.
    assert sorted(known.pictures.tolist()) == [2, 4, 4]
    words = run.trainer.phrases.embeddings
    expected = torch.cat([words["box"], words["disc"]])
    trust = known.trust(torch.cat([expected, words["zebra"]]))
    assert trust[:2].min() > trust[2] + 0.1


def test_training_starts_from_weights(run, make_trainer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, init=run.out)
    for name, value in run.trainer.mean.items():
        assert torch.equal(trainer.learned[name].data, value.half().float())
        assert torch.equal(trainer.mean[name], trainer.learned[name].data)


def test_an_unfinished_file_of_a_killed_run_harms_nothing(run, make_trainer, tmp_path) -> None:
    shutil.copy(run.out / "step_8.pt", tmp_path / "checkpoint.pt")
    (tmp_path / "checkpoint.pt.partial").write_bytes(b"half")
    trainer = make_trainer(tmp_path)
    assert trainer.resume()
    trainer.save()
    assert not (tmp_path / "checkpoint.pt.partial").exists()


class GradientTrainer(Trainer):
    """Keeps the gradients that a step is made with."""

    def _average_gradients(self) -> None:
        super()._average_gradients()
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
    pair = [make_trainer(tmp_path, GradientTrainer, rank=i, workers=2) for i in range(2)]
    config = replace(train_config, images=1)
    alone = [make_trainer(tmp_path, GradientTrainer, rank=i, config=config) for i in range(2)]
    start = copied(pair[0].models)
    for trainer in (*pair, *alone):
        trainer.models.load_state_dict(start)
    for trainer in alone:
        trainer.train_step()
    threads = [threading.Thread(target=trainer.train_step) for trainer in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, found in pair[0].gradients.items():
        own = [trainer.gradients[name] for trainer in alone]
        expected = sum(torch.zeros_like(found) if g is None else g for g in own) / 2
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        assert torch.equal(found, pair[1].gradients[name])
    assert all(torch.equal(v, pair[1].learned[k]) for k, v in pair[0].learned.items())


def test_workers_must_share_the_scenes_evenly(data_folder, tmp_path, monkeypatch, capsys) -> None:
    arguments = [str(data_folder), "--out", str(tmp_path / "out"), "--workers", "4"]
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


def test_learning_rate_rises_stays_and_falls_in_a_cooldown() -> None:
    config = TrainConfig(warmup=4)
    assert [rate_at(step, config) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert rate_at(10**6, config) == 1
    cooled = [rate_at(step, config, (100, 16)) for step in range(100, 118)]
    np.testing.assert_allclose(cooled[:16], 1 - np.sqrt(np.arange(16) / 16))
    assert cooled[16:] == [0, 0]


def test_precision_by_name() -> None:
    assert chosen_dtype("fp32", "cpu") == torch.float32
    assert chosen_dtype("bf16", "cpu") == torch.bfloat16
    assert chosen_dtype("auto", "cuda") == torch.bfloat16
    assert chosen_dtype("auto", "cpu") in (torch.float32, torch.bfloat16)


def test_in_bfloat16_the_maps_stay_near(model_config) -> None:
    torch.manual_seed(0)
    models = PocketModels(model_config)
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = models.maps(pixels)
        models.dtype = torch.bfloat16
        rough = models.maps(pixels)
    for one, other in zip(rough, exact, strict=True):
        assert one.dtype == torch.float32
        assert 0 < (one - other).abs().mean() < 0.05 * other.abs().mean()


def test_the_maps_are_the_models_own(model_config) -> None:
    models = PocketModels(model_config)
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = models.sam.image_encoder.backbone(pixels)
        found = models.maps(pixels)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_the_splits_must_be_there(
    build_trainer, data_folder, model_config, train_config, tmp_path
) -> None:
    lines = (data_folder / "index.jsonl").read_text().splitlines()
    (tmp_path / "index.jsonl").write_text("\n".join(lines[:4]))
    with pytest.raises(InputError, match="no sample of split 'dev'"):
        build_trainer(tmp_path, tmp_path / "out", train_config, model_config=model_config)
