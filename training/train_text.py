"""Train the text head alone, on features of the finished backbone that are computed once.

    python training/train_text.py DATA --out runs/text --init models/weights

Masks, clicks and boxes stay as they are: only text_pocket.safetensors is written. Run again, it
goes on where it stopped. OUT/scenes keeps about 1 MB a scene.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from cached_trainer import CachedConfig, CachedTrainer, dropped, fill, read_arguments
from composer import Composer
from config import TrainConfig
from losses import text_loss, true_iou
from phrases import Phrases
from pictures import Entry, read_entries, read_weak
from pocket_models import PocketModels
from scene_cache import TextCache, TextScene
from torch import Tensor
from train_pocket import usable_weak
from vocabulary import Vocabulary

from promptseg.apps.evaluation.metrics import matthews
from promptseg.models.pocket.grounder import TEXT_FILE
from promptseg.models.pocket.minilm import load_minilm
from promptseg.models.pocket.sam import PocketSamConfig
from promptseg.models.pocket.text_head import TextHead


@dataclass(frozen=True)
class TextConfig(CachedConfig):
    """Settings of the training of the text head."""

    scenes: int = 4800
    steps: int = 4000
    rate: float = 6e-4
    weight_decay: float = 0.05
    pictures: tuple[tuple[str, int], ...] = (
        ("voc", 900),
        ("ccp", 300),
        ("caltech101", 600),
        ("grocery", 250),
        ("fod-a", 250),
        ("clothing", 150),
    )


class TextTrainer(CachedTrainer[TextScene]):
    """Trains the text head on cached scenes.

    Args:
        cache: The scenes.
        dev: Scenes by which the training is looked at, with their sources.
        phrases: The words' embeddings.
        out: Folder of the checkpoint, the log and the weights.
        config: Settings.
    """

    weights_file = TEXT_FILE
    head: TextHead

    def __init__(
        self,
        cache: TextCache,
        dev: TextCache,
        phrases: Phrases,
        out: Path,
        config: TextConfig,
    ) -> None:
        super().__init__(cache.models.text_head, cache, dev, out, config)
        self.phrases = phrases

    def extra(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        return self.phrases.known_words(), {"words": json.dumps(self.phrases.names())}

    def loss_of(self, scene: TextScene, rng: np.random.Generator) -> Tensor | None:
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
        features = dropped(features, self.config.dropout)
        text = self.phrases.embed(words.concepts, rng)
        local, presence = self.head(features[None], text)
        return text_loss(local, presence, words, TrainConfig().weak_weight)

    def figures(self) -> dict[str, float]:
        """IoU of the heat above a half, pointing and presence on dev, by source."""
        sums: dict[str, list[float]] = defaultdict(list)
        there: list[bool] = []
        said: list[bool] = []
        for number, entry in enumerate(self.dev.whole):
            scene = self.dev.load(number)
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
        figures = {name: float(np.mean(found)) for name, found in sums.items()}
        return figures | {"presence_mcc": matthews(there, said)}


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
    about = __doc__.splitlines()[0]
    arguments = read_arguments(about, "runs/text", TextConfig.scenes, TextConfig.steps)
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

    def cache(folder: str, pictures: list[Entry]) -> TextCache:
        return TextCache(
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
    fill(dev, len(dev.whole))
    fill(train, config.scenes)
    if arguments.fill_only:
        return
    phrases = Phrases(vocabulary, load_minilm(), base.text_noise, named)
    trainer = TextTrainer(train, dev, phrases, arguments.out, config)
    trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
