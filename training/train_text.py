"""Train the text head alone, on features of the finished backbone that are computed once.

    python training/train_text.py DATA --out runs/text --init models/weights

Masks, clicks and boxes stay as they are: only text_pocket.safetensors is written. Run again, it
goes on where it stopped. OUT/scenes keeps about 1 MB a scene.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from composer import Composer
from config import TrainConfig
from losses import text_loss, true_iou
from phrases import Phrases
from pictures import Entry, read_entries, read_weak
from pocket_models import PocketModels
from safetensors.torch import save_file
from scene_cache import CachedScene, SceneCache
from torch import Tensor
from train_pocket import usable_weak
from vocabulary import Vocabulary

from promptseg.apps.evaluation.metrics import matthews
from promptseg.models.pocket.grounder import TEXT_FILE
from promptseg.models.pocket.minilm import load_minilm
from promptseg.models.pocket.sam import PocketSamConfig

log = logging.getLogger("train_text")

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class TextConfig:
    """Settings of the training of the text head.

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

    scenes: int = 4800
    pictures: tuple[tuple[str, int], ...] = (
        ("voc", 900),
        ("ccp", 300),
        ("caltech101", 600),
        ("grocery", 250),
        ("fod-a", 250),
        ("clothing", 150),
    )
    steps: int = 4000
    batch: int = 8
    rate: float = 6e-4
    weight_decay: float = 0.05
    dropout: float = 0.1
    warmup: int = 100
    calm: float = 0.3
    whole: tuple[float, float] = (0.5, 0.75)
    ema: float = 0.998
    save_every: int = 250
    eval_every: int = 1000


def rate_at(step: int, config: TextConfig) -> float:
    """Share of the highest learning rate: a linear rise, then half a cosine."""
    rise = min(1.0, (step + 1) / config.warmup)
    return rise * 0.5 * (1 + float(np.cos(np.pi * min(1.0, step / config.steps))))


class TextTrainer:
    """Trains the text head on cached scenes.

    Args:
        cache: The scenes.
        dev: Scenes by which the training is looked at, with their sources.
        phrases: The words' embeddings.
        out: Folder of the checkpoint, the log and the weights.
        config: Settings.
    """

    def __init__(
        self,
        cache: SceneCache,
        dev: SceneCache,
        phrases: Phrases,
        out: Path,
        config: TextConfig,
    ) -> None:
        self.cache, self.dev, self.phrases = cache, dev, phrases
        self.out, self.config = out, config
        self.head = cache.models.text_head
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
        weights = {k: v.half().contiguous() for k, v in self.mean.items()}
        target = self.out / TEXT_FILE
        save_file(
            weights | self.phrases.known_words(),
            target.with_suffix(".partial"),
            metadata={"words": json.dumps(self.phrases.names())},
        )
        target.with_suffix(".partial").replace(target)

    def draw(self, rng: np.random.Generator) -> CachedScene:
        """A scene that is there."""
        there, whole = len(self.cache), len(self.cache.whole)
        calm = self.step >= (1 - self.config.calm) * self.config.steps
        is_whole = rng.random() < self.config.whole[calm] or there <= whole
        if is_whole:
            number = int(rng.choice(whole, p=self.chances))
            number = number if number < there else number % there
        else:
            number = int(rng.integers(whole, there))
        return CachedScene.load(self.cache.path(number))

    def loss_of(self, scene: CachedScene, rng: np.random.Generator) -> Tensor | None:
        """Loss of one scene, mirrored by chance; None if it has no words."""
        words = scene.words
        if not words.concepts:
            return None
        features = scene.features.float()
        if rng.random() < 0.5:
            features = features.flip(-1)
            words = replace(
                words,
                masks=words.masks.flip(-1),
                weights=words.weights.flip(-1),
                weak=tuple((number, inside.flip(-1)) for number, inside in words.weak),
            )
        kept = torch.rand(len(features), 1, 1) >= self.config.dropout
        features = features * kept / (1 - self.config.dropout)
        text = self.phrases.embed(words.concepts, rng)
        local, presence = self.head(features[None], text)
        return text_loss(local, presence, words, TrainConfig().weak_weight)

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
        """IoU of the heat above a half, pointing and presence on dev, by source."""
        live = {k: v.detach().clone() for k, v in self.head.state_dict().items()}
        self.head.load_state_dict(self.mean)
        sums: dict[str, list[float]] = defaultdict(list)
        there: list[bool] = []
        said: list[bool] = []
        for number, entry in enumerate(self.dev.whole):
            scene = CachedScene.load(self.dev.path(number))
            words = scene.words
            if not words.concepts:
                continue
            text = self.phrases.embed(words.concepts, None)
            local, presence = self.head(scene.features[None].float(), text)
            for i, concept in enumerate(words.concepts):
                if words.present_weight[i] < 1:
                    continue
                there.append(bool(words.present[i]))
                said.append(bool(presence[i] > 0))
                if i >= len(words.masks) or words.masks[i].mean() < 0.005:
                    continue
                kind = "person" if concept == "person" else f"text_{entry.sample.source}"
                found = true_iou(
                    local[i][None, None], words.masks[i][None], words.weights[i].round()
                )
                sums[kind].append(float(found))
                peak = words.masks[i].flatten()[local[i].argmax()]
                sums[f"{kind}_pointing"].append(float(peak > 0.5))
        self.head.load_state_dict(live)
        figures = {name: round(float(np.mean(found)), 4) for name, found in sums.items()}
        return figures | {"presence_mcc": round(matthews(there, said), 4)}


def some_of_each(entries: list[Entry], most: dict[str, int]) -> list[Entry]:
    """At most so many pictures of each source, drawn at random, in random order."""
    kept: list[Entry] = []
    counts: Counter[str] = Counter()
    for i in np.random.default_rng(0).permutation(len(entries)):
        source = entries[i].sample.source
        counts[source] += 1
        if counts[source] <= most.get(source, len(entries)):
            kept.append(entries[i])
    return kept


def main() -> None:
    """Read the arguments, fill the cache and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with index.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/text"))
    parser.add_argument("--init", type=Path, required=True, help="folder of weights to start from")
    parser.add_argument("--scenes", type=int, default=TextConfig.scenes)
    parser.add_argument("--steps", type=int, default=TextConfig.steps)
    parser.add_argument("--fill-only", action="store_true", help="compute scenes, do not train")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    config = TextConfig(scenes=arguments.scenes, steps=arguments.steps)
    base = TrainConfig()
    models = PocketModels(PocketSamConfig())
    models.load_weights(arguments.init)
    entries, weak = read_entries(arguments.data, "train"), read_weak(arguments.data, "train")
    named = [e for e in entries + weak if e.sample.source not in base.unnamed_sources]
    vocabulary = Vocabulary.of(named)
    weak = usable_weak(weak, vocabulary)
    known = [e for e in entries + weak if e.sample.source not in base.unnamed_sources]
    whole = some_of_each(known, dict(config.pictures))
    scenes = replace(base.scenes, full=0.7, mosaic=0.35, paste=0.5, balance=0.8, pastes=3)

    def cache(folder: str, pictures: list[Entry]) -> SceneCache:
        return SceneCache(
            arguments.out / folder,
            models,
            vocabulary,
            Composer(entries + weak, scenes),
            pictures,
            unnamed=base.unnamed_sources,
            seed=base.seed,
        )

    arguments.out.mkdir(parents=True, exist_ok=True)
    train = cache("scenes", whole)
    dev = cache(
        "dev",
        [
            e
            for e in read_entries(arguments.data, "dev")
            if e.sample.source not in base.unnamed_sources
        ],
    )
    for store, count in ((dev, len(dev.whole)), (train, config.scenes)):
        since = time.monotonic()
        for number in store.fill(count):
            if number % 100 == 0:
                rate = 100 / max(1e-6, time.monotonic() - since)
                since = time.monotonic()
                log.info(
                    "%s: scene %d of %d, %.1f a second", store.folder.name, number, count, rate
                )
    if arguments.fill_only:
        return
    phrases = Phrases(vocabulary, load_minilm(), base.text_noise, named)
    trainer = TextTrainer(train, dev, phrases, arguments.out, config)
    trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
