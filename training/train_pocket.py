"""Train the pocket SAM from pictures with region masks.

    python training/train_pocket.py DATA --out runs/pocket [--steps N]

DATA is a folder in the layout of ``promptseg.apps.datasets``. The backbone is frozen and its
features are kept in OUT/cache. Interrupt it and run the same command again to go on from the
last checkpoint. OUT/log.jsonl has the learning curve, OUT/sam_pocket.safetensors the result.

Each worker is a process of one thread with its share of a step's pictures; that is faster on a
CPU than threads within the small layers of this model.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from config import TrainConfig
from features import FeatureCache, View
from losses import prompt_loss, true_iou
from prompts import Prompts, boxes, clicks, coarse_prior, corrected
from safetensors.torch import save_file
from torch import Tensor

from promptseg.apps.datasets import Sample, read_index
from promptseg.models.backbones.efficientnet_lite import imagenet_state_dict
from promptseg.models.sam.pocket import (
    BACKBONE_PREFIX,
    PocketSam,
    PocketSamConfig,
    build_pocket_sam,
)

log = logging.getLogger("train_pocket")


def trained_parameters(model: PocketSam) -> dict[str, Tensor]:
    """Everything but the frozen backbone, by name."""
    return {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if not name.startswith(BACKBONE_PREFIX)
    }


def pick_objects(
    sample: Sample, view: View, config: TrainConfig, rng: np.random.Generator
) -> Tensor | None:
    """Targets (B, h, w) of one picture, larger objects more often; None if it has none."""
    weight = view.weight()
    masks = [view.target(ids) for _, ids in sample.objects()]
    areas = np.array([float((m * weight).sum() / weight.sum().clamp(min=1)) for m in masks])
    chances = np.where(areas >= config.min_area, np.clip(areas, 0, 0.1) ** 0.5, 0)
    if not chances.sum():
        return None
    count = config.prompts
    picks = rng.choice(len(masks), size=count, p=chances / chances.sum())
    return torch.stack([masks[i] for i in picks])


def first_prompts(targets: Tensor, square: int, rng: np.random.Generator) -> Prompts:
    """Prompts of one kind for all targets."""
    kind = rng.random()
    if kind < 0.40:
        return clicks(targets, rng)
    if kind < 0.55:
        return boxes(targets, rng, jitter=0.0, limit=0.0)
    if kind < 0.75:
        return boxes(targets, rng, jitter=0.1, limit=20.0)
    if kind < 0.83:
        box = boxes(targets, rng, jitter=0.1, limit=20.0)
        return replace(box, points=clicks(targets, rng).points)
    return coarse_prior(targets, square, rng)


def picture_loss(
    model: PocketSam, view: View, targets: Tensor, config: TrainConfig, rng: np.random.Generator
) -> tuple[Tensor, int]:
    """Mean loss over the rounds of one picture, and the number of rounds."""
    square = model.mask_input_size[0]
    weight = view.weight()
    features = model.image_encoder.embed(view.features)
    prompts = first_prompts(targets, square, rng)
    losses = []
    while True:
        logits, iou = model.decode_all(
            features, points=prompts.points, boxes=prompts.boxes, masks=prompts.masks
        )
        losses.append(prompt_loss(logits, iou, targets, weight, config.spread))
        if len(losses) == 3 or rng.random() > config.corrections:
            return torch.stack(losses).mean(), len(losses)
        chosen = iou.argmax(1)
        kept = logits.detach()[torch.arange(len(logits)), chosen]
        prompts = corrected(prompts, targets, kept, weight, square, rng)


@torch.inference_mode()
def look_at_dev(
    model: PocketSam, cache: FeatureCache, samples: list[Sample], seed: int
) -> dict[str, float]:
    """Box and one-click IoU on the decoder's own grid, objects of at least 1%."""
    sums: dict[str, list[float]] = defaultdict(list)
    rng = np.random.default_rng(seed)
    for sample in samples:
        view = cache.view(sample, flip=False)
        weight = view.weight()
        masks = [view.target(ids) for _, ids in sample.objects()]
        masks = [m for m in masks if (m * weight).sum() >= 0.01 * weight.sum()][:8]
        if not masks:
            continue
        targets = torch.stack(masks)
        features = model.image_encoder.embed(view.features)
        box = boxes(targets, rng, jitter=0.0, limit=0.0)
        logits, iou = model.decode_all(features, points=None, boxes=box.boxes, masks=None)
        sums["box"] += true_iou(logits, targets, weight)[:, 0].tolist()
        click = clicks(targets, rng)
        logits, iou = model.decode_all(features, points=click.points, boxes=None, masks=None)
        found = true_iou(logits, targets, weight)[:, 1:]
        picked = iou[:, 1:].argmax(1, keepdim=True)
        sums["click_best"] += found.amax(1).tolist()
        sums["click_selected"] += found.gather(1, picked)[:, 0].tolist()
        sums["iou_error"] += (found - iou[:, 1:]).abs().mean(1).tolist()
    return {name: round(float(np.mean(values)), 4) for name, values in sums.items()}


def rate_at(step: int, config: TrainConfig) -> float:
    """Share of the learning rate: linear warm-up, constant, linear cool-down."""
    rise = min(1.0, (step + 1) / config.warmup)
    fall = min(1.0, (config.steps - step) / config.cooldown)
    return max(0.0, min(rise, fall))


def source_chances(counts: Mapping[str, int], config: TrainConfig) -> dict[str, float]:
    """How often each source of the index is drawn, relative to the others.

    Args:
        counts: Source -> number of its samples.
        config: Names the sources whose chance is not their share of the samples.
    """
    named = {name: chance for name, chance in config.sources if name in counts}
    total = sum(counts.values())
    return named | {name: n / total for name, n in counts.items() if name not in named}


class Trainer:
    """The training loop with its state, which is saved and resumed as a whole.

    Args:
        data: Folder with index.jsonl.
        out: Folder of checkpoints, log and cache.
        config: Settings.
        rank: Number of this worker; worker 0 saves, logs and evaluates.
        workers: Number of workers; must divide ``config.images``.
        model_config: Sizes of the model; the shipped ones by default.
    """

    def __init__(
        self,
        data: Path,
        out: Path,
        config: TrainConfig,
        *,
        rank: int = 0,
        workers: int = 1,
        model_config: PocketSamConfig | None = None,
    ) -> None:
        self.config = config
        self.out = out
        self.rank = rank
        self.workers = workers
        torch.manual_seed(config.seed)
        self.model = build_pocket_sam(model_config or PocketSamConfig())
        self.model.image_encoder.backbone.load_state_dict(imagenet_state_dict())
        self.model.image_encoder.backbone.eval().requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)
        self.weights = trained_parameters(self.model)
        self.learned = {k: v for k, v in self.weights.items() if v.requires_grad}
        self.mean = {k: v.detach().clone() for k, v in self.learned.items()}
        decayed = [v for v in self.learned.values() if v.ndim > 1]
        plain = [v for v in self.learned.values() if v.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.cache = FeatureCache(self.model, out / "cache")
        by_source: dict[str, list[Sample]] = defaultdict(list)
        for sample in read_index(data, "train"):
            by_source[sample.source].append(sample)
        self.by_source = dict(by_source)
        self.chances = source_chances({k: len(v) for k, v in by_source.items()}, config)
        dev = read_index(data, "dev")
        order = np.random.default_rng(1).permutation(len(dev))
        self.dev = [dev[i] for i in order if dev[i].source != "ccp"][: config.eval_images]
        self.step = 0
        self.seconds = 0.0

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one."""
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        for name, value in state["learned"].items():
            self.learned[name].data.copy_(value)
        for name, value in state["fixed"].items():
            self.weights[name].copy_(value)
        self.mean = state["mean"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        log.info("resumed at step %d", self.step)

    def save(self) -> None:
        """Write the checkpoint and the running mean of the weights, each as a whole or not."""
        fixed = {k: v for k, v in self.weights.items() if k not in self.learned}
        state = {
            "learned": {k: v.detach() for k, v in self.learned.items()},
            "fixed": fixed,
            "mean": self.mean,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)
        result = {k: v.half().contiguous() for k, v in {**fixed, **self.mean}.items()}
        target = self.out / "sam_pocket.safetensors"
        save_file(result, target.with_suffix(".partial"), metadata={"step": str(self.step)})
        target.with_suffix(".partial").replace(target)

    def train_step(self) -> tuple[float, int]:
        """One optimiser step; gives its loss and the number of prompts decoded."""
        rng = np.random.default_rng((self.config.seed, self.step, self.rank))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rate_at(self.step, self.config)
        names, chances = list(self.chances), np.array(list(self.chances.values()))
        total, prompts, pictures = 0.0, 0, 0
        share = self.config.images // self.workers
        while pictures < share:
            pool = self.by_source[names[rng.choice(len(names), p=chances / chances.sum())]]
            sample = pool[rng.integers(len(pool))]
            view = self.cache.view(sample, flip=bool(rng.random() < 0.5))
            targets = pick_objects(sample, view, self.config, rng)
            if targets is None:
                continue
            loss, rounds = picture_loss(self.model, view, targets, self.config, rng)
            (loss / share).backward()
            total += loss.item() / share
            prompts += rounds * len(targets)
            pictures += 1
        self.average_gradients()
        torch.nn.utils.clip_grad_norm_(self.learned.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.learned.items():
            self.mean[name].lerp_(value.detach(), 1 - decay)
        self.step += 1
        return total, prompts

    def average_gradients(self) -> None:
        """Give every worker the mean of all workers' gradients."""
        if self.workers == 1:
            return
        gradients = [
            torch.zeros_like(v) if v.grad is None else v.grad for v in self.learned.values()
        ]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        parts = (flat / self.workers).split([g.numel() for g in gradients])
        for value, part in zip(self.learned.values(), parts, strict=True):
            value.grad = part.view(value.shape)

    def look(self) -> dict[str, float]:
        """Metrics of the running mean of the weights on a part of the dev split."""
        live = {k: v.detach().clone() for k, v in self.learned.items()}
        for name, value in self.learned.items():
            value.data.copy_(self.mean[name])
        metrics = look_at_dev(self.model, self.cache, self.dev, self.config.seed)
        for name, value in self.learned.items():
            value.data.copy_(live[name])
        return metrics

    def run(self) -> None:
        """Train to the last step, saving and logging on the way."""
        losses: list[float] = []
        decoded = 0
        since = time.monotonic()
        while self.step < self.config.steps:
            loss, prompts = self.train_step()
            losses.append(loss)
            decoded += prompts * self.workers
            if self.rank:
                continue
            if self.step % self.config.save_every and self.step < self.config.steps:
                continue
            elapsed = time.monotonic() - since
            self.seconds += elapsed
            row = {
                "step": self.step,
                "seconds": round(self.seconds, 1),
                "loss": round(float(np.mean(losses)), 4),
                "prompts_per_second": round(decoded / elapsed, 1),
            }
            self.save()
            if self.step % self.config.eval_every == 0 or self.step >= self.config.steps:
                row |= self.look()
            log.info("%s", row)
            with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            losses, decoded, since = [], 0, time.monotonic()


def work(rank: int, workers: int, data: Path, out: Path, config: TrainConfig, store: str) -> None:
    """Run one worker."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    if workers > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=workers
        )
    trainer = Trainer(data, out, config, rank=rank, workers=workers)
    trainer.resume()
    trainer.run()
    if workers > 1:
        dist.barrier()
        dist.destroy_process_group()


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with index.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/pocket"))
    parser.add_argument("--steps", type=int, help="optimiser steps in all")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    arguments = parser.parse_args()
    config = TrainConfig()
    if arguments.steps:
        config = replace(config, steps=arguments.steps)
    if config.images % arguments.workers:
        parser.error(f"--workers must divide the {config.images} pictures of a step")
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(asdict(config), indent=2))
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(
            work,
            (arguments.workers, arguments.data, out, config, f"{folder}/store"),
            nprocs=arguments.workers,
        )


if __name__ == "__main__":
    main()
