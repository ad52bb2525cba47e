"""Trains one head of the pocket models on cached scenes; everything else stays as it is."""

from __future__ import annotations

import argparse
import json
import logging
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from scene_cache import SceneCache, Seen
from torch import Tensor, nn

log = logging.getLogger("cached_trainer")

CHECKPOINT = "checkpoint.pt"
SeenT = TypeVar("SeenT", bound=Seen)


@dataclass(frozen=True)
class CachedConfig:
    """Settings of the training of a head.

    Attributes:
        scenes: Number of scenes to be kept.
        pictures: Most whole pictures of a source among them; all of the sources not named.
        steps: Optimiser steps.
        batch: Scenes a step.
        rate: Highest learning rate.
        weight_decay: Of matrices.
        dropout: Share of the features' channels that are left out of a scene.
        warmup: Steps of the rise.
        calm: Share of the steps, the last ones, that see whole pictures more often.
        whole: Share of whole pictures before and in that part.
        ema: Decay of the running mean of the weights.
        save_every: Steps between checkpoints.
        eval_every: Steps between looks at dev.
    """

    scenes: int
    steps: int
    rate: float
    weight_decay: float
    pictures: tuple[tuple[str, int], ...] = ()
    batch: int = 8
    dropout: float = 0.1
    warmup: int = 100
    calm: float = 0.3
    whole: tuple[float, float] = (0.5, 0.75)
    ema: float = 0.998
    save_every: int = 250
    eval_every: int = 1000


def rate_at(step: int, config: CachedConfig) -> float:
    """Share of the highest learning rate: a linear rise, then half a cosine."""
    rise = min(1.0, (step + 1) / config.warmup)
    return rise * 0.5 * (1 + float(np.cos(np.pi * min(1.0, step / config.steps))))


class CachedTrainer(ABC, Generic[SeenT]):
    """The training loop with its state, which is saved and resumed as a whole.

    Args:
        head: What learns.
        cache: The scenes.
        dev: Scenes by which the training is looked at, with their sources.
        out: Folder of the checkpoint, the log and the weights.
        config: Settings.
    """

    weights_file: str

    def __init__(
        self,
        head: nn.Module,
        cache: SceneCache[SeenT],
        dev: SceneCache[SeenT],
        out: Path,
        config: CachedConfig,
    ) -> None:
        self.head, self.cache, self.dev = head, cache, dev
        self.out, self.config = out, config
        self.mean = {k: v.detach().clone() for k, v in self.head.state_dict().items()}
        weights = list(self.head.parameters())
        for value in weights:
            value.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [v for v in weights if v.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [v for v in weights if v.ndim <= 1], "weight_decay": 0.0},
            ]
        )
        self.chances = cache.chances()
        self.step = 0

    @abstractmethod
    def loss_of(self, scene: SeenT, rng: np.random.Generator) -> Tensor | None:
        """Loss of one scene, mirrored by chance; None if it teaches nothing."""

    @abstractmethod
    def figures(self) -> dict[str, float]:
        """Figures of the head, as it is now, on dev."""

    def extra(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata that the file of weights has besides the head's."""
        return {}, {}

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        path = self.out / CHECKPOINT
        if path.is_file():
            state = torch.load(path, weights_only=True)
            self.head.load_state_dict(state["head"])
            self.mean = state["mean"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            log.info("resumed at step %d", self.step)

    def save(self) -> None:
        """Write the checkpoint and the running mean of the weights."""
        state = {
            "head": self.head.state_dict(),
            "mean": self.mean,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        torch.save(state, self.out / f"{CHECKPOINT}.partial")
        (self.out / f"{CHECKPOINT}.partial").replace(self.out / CHECKPOINT)
        tensors, metadata = self.extra()
        weights = {k: v.half().contiguous() for k, v in self.mean.items()}
        target = self.out / self.weights_file
        save_file(weights | tensors, target.with_suffix(".partial"), metadata=metadata)
        target.with_suffix(".partial").replace(target)

    def draw(self, rng: np.random.Generator) -> SeenT:
        """A scene that is there."""
        there, whole = len(self.cache), len(self.cache.whole)
        calm = self.step >= (1 - self.config.calm) * self.config.steps
        is_whole = rng.random() < self.config.whole[calm] or there <= whole
        if is_whole:
            number = int(rng.choice(whole, p=self.chances))
            number = number if number < there else number % there
        else:
            number = int(rng.integers(whole, there))
        return self.cache.load(number)

    def train_step(self) -> float:
        """One optimiser step; gives its loss."""
        rng = np.random.default_rng((1, self.step))
        torch.manual_seed(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * rate_at(self.step, self.config)
        total = 0.0
        for _ in range(self.config.batch):
            loss = self.loss_of(self.draw(rng), rng)
            if loss is not None:
                torch.autograd.backward(loss / self.config.batch)
                total += loss.item() / self.config.batch
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        share = 1 - min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.head.state_dict().items():
                self.mean[name].lerp_(value, share)
        self.step += 1
        return total

    def run(self) -> None:
        """Train to the end, saving and logging on the way."""
        since, losses = time.monotonic(), []
        while self.step < self.config.steps:
            losses.append(self.train_step())
            last = self.step >= self.config.steps
            if self.step % self.config.save_every == 0 or last:
                self.save()
                row: dict[str, float] = {"step": self.step, "loss": float(np.mean(losses))}
                row["seconds"] = round(time.monotonic() - since, 1)
                row["scenes"] = len(self.cache)
                if self.step % self.config.eval_every == 0 or last:
                    row |= self.look()
                log.info("%s", row)
                with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                since, losses = time.monotonic(), []

    @torch.inference_mode()
    def look(self) -> dict[str, float]:
        """Figures of the running mean of the weights on dev."""
        live = {k: v.detach().clone() for k, v in self.head.state_dict().items()}
        self.head.load_state_dict(self.mean)
        figures = self.figures()
        self.head.load_state_dict(live)
        return {name: round(value, 4) for name, value in figures.items()}


def read_arguments(about: str, out: str, scenes: int, steps: int) -> argparse.Namespace:
    """Read the command line of a head's training.

    Args:
        about: What is trained, in a line.
        out: Folder of the run by default.
        scenes: Number of scenes by default.
        steps: Number of steps by default.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("data", type=Path, help="folder with index.jsonl")
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--init", type=Path, required=True, help="folder of weights to start from")
    parser.add_argument("--scenes", type=int, default=scenes)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--fill-only", action="store_true", help="compute scenes, do not train")
    return parser.parse_args()


def dropped(features: Tensor, share: float) -> Tensor:
    """Features (C, h, w) without a share of their channels, the others raised as much."""
    kept = torch.rand(len(features), 1, 1) >= share
    return features * kept / (1 - share)


def fill(cache: SceneCache[SeenT], count: int) -> None:
    """Compute what is missing of a cache, and say how far that is."""
    since = time.monotonic()
    for number in cache.fill(count):
        if number % 100 == 0:
            rate = 100 / max(1e-6, time.monotonic() - since)
            since = time.monotonic()
            log.info("%s: scene %d of %d, %.1f a second", cache.folder.name, number, count, rate)
