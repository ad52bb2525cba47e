"""Train the pocket models on pictures with labelled region masks.

    python training/train_pocket.py DATA --out runs/pocket

DATA is a folder in the layout of ``promptseg.apps.evaluation.index_folder``. The backbone's early
stages are frozen and their features are cached in OUT/cache. An interrupted run continues from its
last checkpoint when the same command is run again. OUT/log.jsonl contains the learning curves;
OUT/sam_pocket.safetensors and OUT/text_pocket.safetensors are the results.

Each worker is a single-threaded process that takes its share of each step's pictures. On a CPU this
is faster than using several threads within this model's small layers.
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
from dev_look import look_at_dev
from features import FeatureCache, View
from losses import prompt_loss, text_loss
from pocket_models import DEEP_PREFIXES, PocketModels, trained_parameters
from polyphase import use_polyphase
from prompts import (
    Prompts,
    corrected,
    first_prompts,
    heat_prior,
    to_mask_input,
)
from safetensors.torch import save_file
from text_examples import TextExamples, heat_targets
from torch import Tensor
from vocabulary import Vocabulary

from promptseg.apps.evaluation.index_folder import Sample, read_index
from promptseg.models.pocket.backbone import imagenet_state_dict
from promptseg.models.pocket.grounder import TEXT_FILE
from promptseg.models.pocket.minilm import load_minilm
from promptseg.models.pocket.sam import PocketSam, PocketSamConfig, build_pocket_sam
from promptseg.models.pocket.text_head import TextHead

log = logging.getLogger("train_pocket")


SAM_FILE = "sam_pocket.safetensors"


def pick_objects(
    sample: Sample, view: View, count: int, min_area: float, rng: np.random.Generator
) -> Tensor | None:
    """Draw targets (count, h, w) from a picture, favouring large objects; None if it has none."""
    weight = view.weight()
    masks = [view.target(ids) for _, ids in sample.objects()]
    areas = np.array([float((m * weight).sum() / weight.sum().clamp(min=1)) for m in masks])
    chances = np.where(areas >= min_area, np.clip(areas, 0, 0.1) ** 0.5, 0)
    if not chances.sum():
        return None
    picks = rng.choice(len(masks), size=count, p=chances / chances.sum())
    return torch.stack([masks[i] for i in picks])


def prompts_loss(
    model: PocketSam,
    maps: tuple[Tensor, ...],
    prompts: Prompts,
    targets: Tensor,
    weight: Tensor,
    config: TrainConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, int]:
    """Mean loss over the rounds of prompts for one picture, and the number of rounds."""
    square = model.mask_input_size[0]
    features = model.image_encoder.embed(maps)
    losses = []
    while True:
        logits, iou = model.decode_all(
            features, points=prompts.points, boxes=prompts.boxes, masks=prompts.masks
        )
        losses.append(prompt_loss(logits, iou, targets, weight, config.spread))
        if len(losses) == 3 or rng.random() > config.corrections:
            return torch.stack(losses).mean(), len(losses)
        if prompts.points is None and prompts.boxes is not None and rng.random() < config.repeats:
            # As in inference with a box: the single mask is fed back with the box alone.
            prompts = replace(prompts, masks=to_mask_input(logits.detach()[:, :1], square))
            continue
        chosen = iou.argmax(1)
        kept = logits.detach()[torch.arange(len(logits)), chosen]
        prompts = corrected(prompts, targets, kept, weight, square, rng)


def rate_at(step: int, config: TrainConfig) -> float:
    """A step's share of its phase's learning rate: linear warm-up, constant, linear cool-down."""
    phase, number = config.phase_at(step)
    rise = min(1.0, (number + 1) / phase.warmup)
    fall = min(1.0, (phase.steps - number) / phase.cooldown)
    return max(0.0, min(rise, fall))


def source_chances(counts: Mapping[str, int], config: TrainConfig) -> dict[str, float]:
    """How often each source of the index is drawn, relative to the others.

    Args:
        counts: Source -> number of its samples.
        config: Lists the sources that are not drawn by their share of the samples.
    """
    named = {name: chance for name, chance in config.sources if name in counts}
    total = sum(counts.values())
    return named | {name: n / total for name, n in counts.items() if name not in named}


class Trainer:
    """The training loop and its state, which is saved and resumed as a whole.

    Args:
        data: Folder that contains index.jsonl.
        out: Folder for checkpoints, log and cache.
        config: Training settings.
        rank: Number of this worker; worker 0 saves, logs and evaluates.
        workers: Number of workers; must divide the number of pictures per step in every phase.
        model_config: Sizes of the model; by default those of the shipped one.
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
        sam = build_pocket_sam(model_config or PocketSamConfig())
        sam.image_encoder.backbone.load_state_dict(imagenet_state_dict())
        sam.image_encoder.backbone.eval()
        use_polyphase(sam.image_encoder.backbone)
        sam.to(memory_format=torch.channels_last)
        self.models = PocketModels(sam, TextHead())
        kept = trained_parameters(sam)
        kept = {f"sam.{name}": value for name, value in kept.items()}
        head = self.models.text_head.state_dict(keep_vars=True)
        self.weights = kept | {f"text_head.{name}": value for name, value in head.items()}
        self.learned = {k: v for k, v in self.weights.items() if v.requires_grad}
        self.mean = {k: v.detach().clone() for k, v in self.learned.items()}
        self.optimizer = torch.optim.AdamW(self._parameter_groups())
        self.cache = FeatureCache(sam, out / "cache")
        by_source: dict[str, list[Sample]] = defaultdict(list)
        samples = read_index(data, "train")
        for sample in samples:
            by_source[sample.source].append(sample)
        self.by_source = dict(by_source)
        self.chances = source_chances({k: len(v) for k, v in by_source.items()}, config)
        named = [s for s in samples if s.source not in config.unnamed_sources]
        self.examples = TextExamples(Vocabulary.of(named), load_minilm(), config.text_noise, named)
        dev = read_index(data, "dev")
        order = np.random.default_rng(1).permutation(len(dev))
        self.dev = [dev[i] for i in order if dev[i].source != "ccp"][: config.eval_images]
        self.step = 0
        self.seconds = 0.0

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Group the backbone's deep stages apart from the rest; no decay for biases and norms."""
        groups: dict[tuple[bool, bool], list[Tensor]] = defaultdict(list)
        for name, value in self.learned.items():
            deep = name.removeprefix("sam.").startswith(DEEP_PREFIXES)
            groups[deep, value.ndim > 1].append(value)
        return [
            {
                "params": values,
                "deep": deep,
                "weight_decay": self.config.weight_decay if decayed else 0.0,
            }
            for (deep, decayed), values in groups.items()
        ]

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    def resume(self) -> None:
        """Continue from the last checkpoint, if there is one."""
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
        """Write the checkpoint and the running mean of the weights, each file atomically."""
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
        result = {
            k: v.half() if v.is_floating_point() else v for k, v in {**fixed, **self.mean}.items()
        }
        for prefix, name in (("sam.", SAM_FILE), ("text_head.", TEXT_FILE)):
            part = {
                key.removeprefix(prefix): value.contiguous()
                for key, value in result.items()
                if key.startswith(prefix)
            }
            if name == TEXT_FILE:
                part |= self.examples.known_words()
            target = self.out / name
            save_file(part, target.with_suffix(".partial"), metadata={"step": str(self.step)})
            target.with_suffix(".partial").replace(target)

    def train_step(self) -> tuple[float, int]:
        """Take one optimiser step; return its loss and the number of prompts decoded."""
        config = self.config
        rng = np.random.default_rng((config.seed, self.step, self.rank))
        phase, _ = config.phase_at(self.step)
        rate = rate_at(self.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (phase.backbone_rate if group["deep"] else phase.learning_rate)
        names, chances = list(self.chances), np.array(list(self.chances.values()))
        total, prompts, pictures = 0.0, 0, 0
        share = phase.images // self.workers
        while pictures < share:
            pool = self.by_source[names[rng.choice(len(names), p=chances / chances.sum())]]
            sample = pool[rng.integers(len(pool))]
            view = self.cache.view(sample, flip=bool(rng.random() < 0.5))
            found = self.picture_loss(sample, view, rng)
            if found is None:
                continue
            loss, decoded = found
            (loss / share).backward()
            total += loss.item() / share
            prompts += decoded
            pictures += 1
        self.average_gradients()
        torch.nn.utils.clip_grad_norm_(self.learned.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(phase.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.learned.items():
            self.mean[name].lerp_(value.detach(), 1 - decay)
        self.step += 1
        return total, prompts

    def picture_loss(
        self, sample: Sample, view: View, rng: np.random.Generator
    ) -> tuple[Tensor, int] | None:
        """Loss of a picture and the number of prompts decoded; None if it has no object."""
        config, sam = self.config, self.models.sam
        phase, _ = config.phase_at(self.step)
        targets = pick_objects(sample, view, phase.prompts, config.min_area, rng)
        if targets is None:
            return None
        square = sam.mask_input_size[0]
        deep = phase.backbone_rate > 0
        with torch.set_grad_enabled(deep):
            maps = self.models.backbone_maps(view)
        prompts = first_prompts(targets, square, rng)
        loss = torch.zeros(())
        if deep and sample.source not in config.unnamed_sources:
            example = self.examples(sample, view, rng)
            local, presence = self.models.score(maps, view, example)
            loss = config.text_weight * text_loss(
                local, presence, example.targets, example.cell_weight, example.phrase_weight
            )
            chosen = None
            if rng.random() < config.heat_chance:
                chosen = heat_targets(sample, view, example, phase.prompts, config.min_area, rng)
            if chosen is not None:
                numbers, targets, whole = chosen
                heat = local.detach()[numbers]
                prompts = heat_prior(heat, targets, square, rng, whole=whole)
        masks_loss, rounds = prompts_loss(sam, maps, prompts, targets, view.weight(), config, rng)
        return loss + masks_loss, rounds * len(targets)

    def average_gradients(self) -> None:
        """Give every worker the mean of all workers' gradients."""
        if self.workers == 1:
            return
        phase, _ = self.config.phase_at(self.step)
        deep = (*(f"sam.{prefix}" for prefix in DEEP_PREFIXES), "text_head.")
        learned = [
            value
            for name, value in self.learned.items()
            if phase.backbone_rate > 0 or not name.startswith(deep)
        ]
        gradients = [torch.zeros_like(v) if v.grad is None else v.grad for v in learned]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        parts = (flat / self.workers).split([g.numel() for g in gradients])
        for value, part in zip(learned, parts, strict=True):
            value.grad = part.view(value.shape)

    def look(self) -> dict[str, float]:
        """Evaluate the running mean of the weights on part of the dev split."""
        live = {k: v.detach().clone() for k, v in self.learned.items()}
        for name, value in self.learned.items():
            value.data.copy_(self.mean[name])
        metrics = look_at_dev(self.models, self.cache, self.examples, self.dev, self.config)
        for name, value in self.learned.items():
            value.data.copy_(live[name])
        return metrics

    def run(self) -> None:
        """Train to the last step, saving and logging along the way."""
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
    """Run one worker process."""
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
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that contains index.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/pocket"))
    parser.add_argument(
        "--workers", type=int, default=2, help="number of single-threaded processes"
    )
    arguments = parser.parse_args()
    config = TrainConfig()
    if any(phase.images % arguments.workers for phase in config.phases):
        parser.error("--workers must divide the number of pictures per step in every phase")
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
