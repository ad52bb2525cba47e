"""Train the pocket models from pictures with labelled region masks.

    python training/train_pocket.py DATA --out runs/pocket --init models/weights
    python training/train_pocket.py DATA --out runs/pocket --cooldown 1500

DATA is a folder in the layout of ``docs/data.md``. The first command goes on until it is
interrupted or has done ``--steps`` steps; run again, it goes on from its last checkpoint. The
second branches off that checkpoint, lets the learning rate fall to nothing and leaves the finished
weights in OUT/cooldown-STEP. OUT/log.jsonl has the learning curves.

Each worker is a process of one thread with its share of a step's scenes; that is faster on a CPU
than threads within the small layers of this model.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from composer import Composer
from config import TrainConfig
from dev_look import look_at_dev, merged
from objective import SceneLoss
from phrases import Phrases
from pictures import Entry, read_entries, read_weak
from pocket_models import DEEP_PREFIXES, FILES, PocketModels
from safetensors.torch import save_file
from targets import SceneTargets
from torch import Tensor
from vocabulary import Vocabulary

from promptseg.models.pocket.grounder import TEXT_FILE
from promptseg.models.pocket.minilm import load_minilm
from promptseg.models.pocket.sam import PocketSamConfig

log = logging.getLogger("train_pocket")

ENDLESS = 10**9
CHECKPOINT = "checkpoint.pt"


def rate_at(step: int, config: TrainConfig, cooldown: tuple[int, int] | None = None) -> float:
    """Share of the full learning rate: a linear rise, then constant, then a cool-down to zero.

    Args:
        step: From 0.
        config: Says how long the rise is.
        cooldown: First step and number of steps of the cool-down, if there is one. It falls as
            one minus the root of its progress (Hägele et al. 2024, "Scaling laws and
            compute-optimal training beyond fixed training durations").
    """
    rate = min(1.0, (step + 1) / config.warmup)
    if cooldown is None:
        return rate
    first, steps = cooldown
    progress = (step - first) / steps
    return rate * (1 - math.sqrt(min(1.0, max(0.0, progress))))


def usable_weak(weak: list[Entry], vocabulary: Vocabulary) -> list[Entry]:
    """Pictures without masks of which at least one word is taught."""
    known = vocabulary.present
    return [
        entry
        for entry in weak
        if known(entry.sample.source, [(word, (1,)) for word, _ in entry.words])
    ]


class Trainer:
    """The training loop with its state, which is saved and resumed as a whole.

    Args:
        data: Folder with index.jsonl.
        out: Folder of checkpoints and log.
        config: Settings.
        init: Folder of weights to start from; none starts from ImageNet's backbone.
        rank: Number of this worker; worker 0 saves and logs.
        workers: Number of workers; must divide the scenes of a step.
        device: Where the models are.
        dtype: Of the backbone and the text head.
        model_config: Sizes of the model; the shipped ones by default.
    """

    def __init__(
        self,
        data: Path,
        out: Path,
        config: TrainConfig,
        *,
        init: Path | None = None,
        rank: int = 0,
        workers: int = 1,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        model_config: PocketSamConfig | None = None,
    ) -> None:
        self.config = config
        self.out = out
        self.rank = rank
        self.workers = workers
        torch.manual_seed(config.seed)
        self.models = PocketModels(model_config or PocketSamConfig(), dtype)
        if init is not None:
            self.models.load_weights(init)
        self.models.to(device)
        self.weights = self.models.trained()
        self.learned = {k: v for k, v in self.weights.items() if v.requires_grad}
        self.mean = {k: v.detach().clone() for k, v in self.learned.items()}
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), fused=True)
        entries = read_entries(data, "train")
        weak = read_weak(data, "train")
        named = [e for e in entries + weak if e.sample.source not in config.unnamed_sources]
        self.vocabulary = Vocabulary.of(named)
        self.composer = Composer(entries + usable_weak(weak, self.vocabulary), config.scenes)
        self.phrases = Phrases(self.vocabulary, load_minilm(), config.text_noise, named)
        self.loss = SceneLoss(self.models, self.phrases, config)
        self.dev = self._dev_entries(read_entries(data, "dev"))
        self.step = 0
        self.seconds = 0.0
        self.cooldown: tuple[int, int] | None = None

    def _dev_entries(self, dev: list[Entry]) -> list[Entry]:
        """A fixed part of the dev split, some of every source."""
        by_source: dict[str, list[Entry]] = defaultdict(list)
        for i in np.random.default_rng(1).permutation(len(dev)):
            by_source[dev[i].sample.source].append(dev[i])
        return [entry for found in by_source.values() for entry in found[: self.config.eval_images]]

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Groups by learning rate; biases and norms without decay."""
        config = self.config
        groups: dict[tuple[float, bool], list[Tensor]] = defaultdict(list)
        for name, value in self.learned.items():
            rate = config.learning_rate
            if name.startswith(DEEP_PREFIXES):
                rate = config.backbone_rate
            groups[rate, value.ndim > 1].append(value)
        return [
            {
                "params": values,
                "rate": rate,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (rate, decayed), values in groups.items()
        ]

    def resume(self, checkpoint: Path | None = None) -> bool:
        """Go on from a checkpoint, the last one of this folder by default, if there is one."""
        path = checkpoint or self.out / CHECKPOINT
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=True, map_location="cpu")
        for name, value in (state["learned"] | state["fixed"]).items():
            self.weights[name].data.copy_(value)
        for name, value in state["mean"].items():
            self.mean[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.composer.presentations.update(state["presentations"])
        cooldown = state["cooldown"]
        self.cooldown = (cooldown[0], cooldown[1]) if cooldown else None
        log.info("resumed at step %d", self.step)
        return True

    def save(self) -> None:
        """Write the checkpoint and the running mean of the weights, each as a whole or not."""
        state = {
            "learned": {k: v.detach() for k, v in self.learned.items()},
            "fixed": {k: v.detach() for k, v in self.weights.items() if k not in self.learned},
            "mean": self.mean,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "presentations": dict(self.composer.presentations),
            "cooldown": list(self.cooldown) if self.cooldown else None,
        }
        partial = self.out / f"{CHECKPOINT}.partial"
        torch.save(state, partial)
        partial.replace(self.out / CHECKPOINT)
        result = {
            k: v.half() if v.is_floating_point() else v
            for k, v in {**self.weights, **self.mean}.items()
        }
        for prefix, name in FILES.items():
            part = {
                key.removeprefix(prefix): value.detach().cpu().contiguous()
                for key, value in result.items()
                if key.startswith(prefix)
            }
            metadata = {"step": str(self.step)}
            if name == TEXT_FILE:
                part |= self.phrases.known_words()
                metadata["words"] = json.dumps(self.phrases.names())
            target = self.out / name
            save_file(part, target.with_suffix(".partial"), metadata=metadata)
            target.with_suffix(".partial").replace(target)

    def train_step(self) -> dict[str, float]:
        """One optimiser step; gives the parts of its loss and what was done."""
        config = self.config
        rng = np.random.default_rng((config.seed, self.step, self.rank))
        rate = rate_at(self.step, config, self.cooldown)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        own = config.images // self.workers
        self.composer.config = config.calm if self.cooldown else config.scenes
        sums: dict[str, float] = defaultdict(float)
        for _ in range(own):
            scene = self.composer(rng)
            targets = SceneTargets(
                scene,
                self.vocabulary,
                unnamed=config.unnamed_sources,
                min_area=config.min_area,
                min_visible=config.min_visible,
            )
            parts, decoded = self.loss(scene, targets, rng)
            if parts:  # a scene without words of which no prompt is decoded teaches nothing
                (torch.stack(list(parts.values())).sum() / own).backward()
            for name, value in parts.items():
                sums[name] += value.item()
                sums[f"{name}_count"] += 1
            sums["prompts"] += decoded
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.learned.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = config.cooldown_ema if self.cooldown else config.ema
        share = 1 - min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), list(self.learned.values()), share)
        self.step += 1
        return sums

    def _average_gradients(self) -> None:
        """Give every worker the mean of all workers' gradients."""
        if self.workers == 1:
            return
        learned = list(self.learned.values())
        gradients = [torch.zeros_like(v) if v.grad is None else v.grad for v in learned]
        flat = torch.cat([g.flatten() for g in gradients]).cpu()
        dist.all_reduce(flat)
        parts = (flat / self.workers).split([g.numel() for g in gradients])
        for value, part in zip(learned, parts, strict=True):
            value.grad = part.view(value.shape).to(value.device)

    def look(self) -> dict[str, float]:
        """Metrics of the running mean of the weights on a part of the dev split."""
        live = {k: v.detach().clone() for k, v in self.learned.items()}
        for name, value in self.learned.items():
            value.data.copy_(self.mean[name])
        own = self.dev[self.rank :: self.workers]
        found = look_at_dev(self.models, self.vocabulary, self.phrases, own, self.config)
        for name, value in self.learned.items():
            value.data.copy_(live[name])
        if self.workers == 1:
            return merged([found])
        gathered: list[Any] = [None] * self.workers
        dist.all_gather_object(gathered, found)
        return merged(gathered)

    def run(self, last: int) -> None:
        """Train to a step, saving and logging on the way."""
        config = self.config
        sums: dict[str, float] = defaultdict(float)
        since = time.monotonic()
        while self.step < last:
            for name, value in self.train_step().items():
                sums[name] += value
            saves = self.step % config.save_every == 0 or self.step >= last
            looks = self.step % config.eval_every == 0 or self.step >= last
            if not saves and not looks:
                continue
            elapsed = time.monotonic() - since
            self.seconds += elapsed
            row: dict[str, float] = {"step": self.step, "seconds": round(self.seconds, 1)}
            for name in ("text", "masks"):
                row[name] = round(sums[name] / max(1.0, sums[f"{name}_count"]), 4)
            row["prompts_per_second"] = round(sums["prompts"] * self.workers / elapsed, 2)
            done = config.images * (config.save_every if self.step % config.save_every == 0 else 1)
            row["scenes_per_second"] = round(done / elapsed, 3)
            if saves and self.rank == 0:
                self.save()
            if looks:
                row |= self.look()
            if self.rank == 0:
                log.info("%s", row)
                with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            sums, since = defaultdict(float), time.monotonic()


def work(rank: int, arguments: argparse.Namespace, config: TrainConfig, store: str) -> None:
    """Run one worker."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    workers = arguments.workers
    if workers > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=workers
        )
    trainer = Trainer(
        arguments.data,
        arguments.out,
        config,
        init=arguments.init,
        rank=rank,
        workers=workers,
        device=arguments.device,
        dtype=arguments.dtype,
    )
    if arguments.cooldown:
        cool_down(trainer, arguments.cooldown)
    else:
        trainer.resume()
        trainer.run(arguments.steps)
    if workers > 1:
        dist.barrier()
        dist.destroy_process_group()


def cool_down(trainer: Trainer, steps: int) -> None:
    """Branch off the last checkpoint into a folder of its own, or go on there."""
    source = trainer.out / CHECKPOINT
    started = sorted(trainer.out.glob("cooldown-*/" + CHECKPOINT), key=lambda p: p.stat().st_mtime)
    unfinished = []
    for path in started:
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["step"] < sum(state["cooldown"]):
            unfinished.append(path)
    if unfinished:
        trainer.out = unfinished[-1].parent
        trainer.resume()
    else:
        if not trainer.resume(source):
            raise SystemExit(f"{source}: nothing to cool down from; train first")
        trainer.out = trainer.out / f"cooldown-{trainer.step}"
        trainer.out.mkdir(exist_ok=True)
        trainer.cooldown = (trainer.step, steps)
    if trainer.cooldown is None:
        raise RuntimeError("a cool-down without its steps")
    trainer.run(sum(trainer.cooldown))


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with index.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/pocket"))
    parser.add_argument("--init", type=Path, help="folder of weights to start from")
    parser.add_argument("--steps", type=int, default=ENDLESS, help="stop after so many in all")
    parser.add_argument("--cooldown", type=int, default=0, metavar="STEPS")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto")
    arguments = parser.parse_args()
    config = TrainConfig()
    if config.images % arguments.workers:
        parser.error("--workers must divide the scenes of a step")
    arguments.dtype = chosen_dtype(arguments.dtype, arguments.device)
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "config.json").write_text(json.dumps(asdict(config), indent=2))
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (arguments, config, f"{folder}/store"), nprocs=arguments.workers)


def chosen_dtype(name: str, device: str) -> torch.dtype:
    """The precision of a name; ``auto`` is bfloat16 where the processor multiplies it fast."""
    if name == "auto":
        fast = device != "cpu" or torch.cpu._is_amx_tile_supported()
        name = "bf16" if fast else "fp32"
    return torch.bfloat16 if name == "bf16" else torch.float32


if __name__ == "__main__":
    main()
