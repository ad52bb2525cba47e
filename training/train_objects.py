"""Train the object head alone, on features of the finished image encoder that are computed once.

    python training/train_objects.py DATA --out runs/objects --init models/weights

Masks and words stay as they are: only objects_pocket.safetensors is written. It starts from the
head in the --init folder, if there is one. Run again, it goes on where it stopped. OUT/scenes keeps
about 1.5 MB a scene.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import torch
from cached_trainer import CachedConfig, CachedTrainer, dropped, fill, read_arguments
from composer import Composer
from config import TrainConfig
from fast_layers import use_fast_depthwise
from losses import object_loss
from pictures import Entry, read_entries
from pocket_models import PocketModels
from safetensors.torch import load_file
from scene_cache import ObjectCache, ObjectScene
from scipy.optimize import linear_sum_assignment
from targets import object_targets
from torch import Tensor
from torch.nn import functional as F
from train_text import some_of_each
from vocabulary import Vocabulary

from promptseg.models.grounding.answers import ObjectField
from promptseg.models.pocket.objects import OBJECTS_FILE, STRIDE, ObjectHead
from promptseg.models.pocket.sam import PocketSamConfig
from promptseg.pipeline.prompters.objects import ObjectSplitConfig, split_objects

_LEAST = 0.005  # share of the scene of an object that is looked at on dev


@dataclass(frozen=True)
class ObjectConfig(CachedConfig):
    """Settings of the training of the object head."""

    scenes: int = 7000
    steps: int = 3000
    rate: float = 1e-3
    weight_decay: float = 0.02
    pictures: tuple[tuple[str, int], ...] = (("voc", 500), ("davis", 150), ("ccp", 100))
    whole: tuple[float, float] = (0.2, 0.4)
    eval_every: int = 500


class ObjectTrainer(CachedTrainer[ObjectScene]):
    """Trains the object head on cached scenes."""

    weights_file = OBJECTS_FILE
    head: ObjectHead

    def loss_of(self, scene: ObjectScene, rng: np.random.Generator) -> Tensor | None:
        deep, coarse, fine = scene.deep.float(), scene.coarse.float(), scene.fine.float()
        masks = scene.masks
        if not len(masks):
            return None
        if rng.random() < 0.5:
            deep, coarse, fine, masks = (m.flip(-1) for m in (deep, coarse, fine, masks))
        deep = dropped(deep, self.config.dropout)
        boxes, confidence = self.head.read(deep[None], coarse[None], fine[None])
        return object_loss(boxes, confidence, object_targets(masks))

    def figures(self) -> dict[str, float]:
        """IoU of the objects of a word with the parts that its true region is split into, on dev.

        By source, for words of one object and of several.
        """
        ious: dict[str, list[float]] = defaultdict(list)
        for number, entry in enumerate(self.dev.whole):
            scene = self.dev.load(number)
            read = (scene.deep, scene.coarse, scene.fine)
            boxes, confidence = self.head.read(*(m[None].float() for m in read))
            field = ObjectField((boxes / STRIDE).numpy(), confidence.sigmoid().numpy())
            by_word: dict[str, list[int]] = defaultdict(list)
            for i, concept in enumerate(scene.concepts):
                if scene.masks[i].mean() > _LEAST:
                    by_word[concept].append(i)
            for own in by_word.values():
                masks = F.avg_pool2d(scene.masks[own][None], 2)[0]
                region = (masks.sum(0) > 0.5).numpy()
                if not region.any():
                    continue
                heat = region.astype(np.float32)
                parts = split_objects(region, heat, field, ObjectSplitConfig())
                kind = "several" if len(own) > 1 else "one"
                ious[f"{kind}_{entry.sample.source}"] += split_ious(parts, (masks > 0.5).numpy())
        return {name: float(np.mean(found)) for name, found in ious.items()}


def split_ious(parts: list[np.ndarray], masks: np.ndarray) -> list[float]:
    """IoU of each of (N, h, w) objects with the part that is matched to it, 0 without one."""
    table = np.array([[(p & m).sum() / max(1, (p | m).sum()) for m in masks] for p in parts])
    ious = np.zeros(len(masks))
    rows, columns = linear_sum_assignment(table, maximize=True)
    ious[columns] = table[rows, columns]
    return [float(iou) for iou in ious]


def with_objects(entries: list[Entry]) -> list[Entry]:
    """Pictures some of whose objects are told apart by their labels."""
    return [
        entry
        for entry in entries
        if any(
            region.instances or boxes
            for region, boxes in zip(entry.sample.regions, entry.boxes, strict=True)
        )
    ]


def main() -> None:
    """Read the arguments, fill the cache and train."""
    about = __doc__.splitlines()[0]
    arguments = read_arguments(about, "runs/objects", ObjectConfig.scenes, ObjectConfig.steps)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    config = ObjectConfig(scenes=arguments.scenes, steps=arguments.steps)
    base = TrainConfig()
    torch.manual_seed(base.seed)
    models = PocketModels(PocketSamConfig())
    models.load_weights(arguments.init)
    entries = read_entries(arguments.data, "train")
    vocabulary = Vocabulary.of([e for e in entries if e.sample.source not in base.unnamed_sources])
    sources = (
        ("voc", 0.36),
        ("coco", 0.17),
        ("coco-things", 0.19),
        ("pantry", 0.12),
        ("ccp", 0.08),
        ("davis", 0.06),
    )
    scenes = replace(
        base.scenes, sources=sources, scales=(0.4, 2.0), usual=0.6, mosaic=0.3, paste=0.5
    )

    def cache(folder: str, pictures: list[Entry]) -> ObjectCache:
        return ObjectCache(
            arguments.out / folder,
            models,
            vocabulary,
            Composer(entries, scenes),
            pictures,
            unnamed=base.unnamed_sources,
            seed=base.seed,
        )

    arguments.out.mkdir(parents=True, exist_ok=True)
    train = cache("scenes", some_of_each(with_objects(entries), dict(config.pictures)))
    dev = cache("dev", with_objects(read_entries(arguments.data, "dev")))
    fill(dev, len(dev.whole))
    fill(train, config.scenes)
    if arguments.fill_only:
        return
    head = ObjectHead(
        deep_dim=train.load(0).deep.shape[0],
        embed_dim=train.load(0).coarse.shape[0],
        high_res_dim=train.load(0).fine.shape[0],
    )
    if (arguments.init / OBJECTS_FILE).is_file():
        head.load_state_dict(load_file(arguments.init / OBJECTS_FILE))
    use_fast_depthwise(head)
    trainer = ObjectTrainer(head, train, dev, arguments.out, config)
    trainer.resume()
    trainer.run()


if __name__ == "__main__":
    main()
