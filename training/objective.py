"""The loss of one scene: words, and rounds of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from config import TrainConfig
from losses import click_loss, prompt_loss, text_loss
from phrases import Phrases
from pocket_models import PocketModels
from prompts import (
    Prompts,
    clicks,
    clicks_beside,
    corrected,
    first_prompts,
    heat_prior,
    one_of_several,
    to_mask_input,
)
from scenes import Scene
from scipy import ndimage
from targets import ObjectTarget, SceneTargets
from torch import Tensor
from torch.nn import functional as F

from promptseg.models.embedding import ImageFeatures
from promptseg.models.pocket.backbone import PIXEL_MEAN, PIXEL_STD

_BESIDE = 0.4  # of single clicks come with background clicks on what is next to the object
_LEAST_PART = 0.1  # of a region that a component must be to be asked for alone


def to_pixel_values(scene: Scene, device: torch.device) -> Tensor:
    """A scene as the models take it, (1, 3, H, W)."""
    pixels = torch.from_numpy(scene.pixels).to(device).permute(2, 0, 1)[None].float()
    mean = torch.tensor(PIXEL_MEAN, device=device).view(3, 1, 1)
    return (pixels - mean) / torch.tensor(PIXEL_STD, device=device).view(3, 1, 1)


def moved(prompts: Prompts, device: torch.device) -> Prompts:
    """Prompts on a device."""
    points = prompts.points
    return Prompts(
        None if points is None else (points[0].to(device), points[1].to(device)),
        None if prompts.boxes is None else prompts.boxes.to(device),
        None if prompts.masks is None else prompts.masks.to(device),
    )


def pick(
    objects: Sequence[ObjectTarget], count: int, rng: np.random.Generator
) -> list[ObjectTarget]:
    """Some of the objects, larger ones more often, each at most twice."""
    areas = np.array([float(target.mask.mean()) for target in objects])
    chances = np.clip(areas, 0.002, 0.1) ** 0.5
    doubled = np.tile(chances, 2)
    number = min(count, len(doubled))
    picks = rng.choice(len(doubled), size=number, replace=False, p=doubled / doubled.sum())
    return [objects[i % len(objects)] for i in picks]


def parted(target: ObjectTarget, rng: np.random.Generator) -> ObjectTarget:
    """One component of a region that may be several objects; the others are then doubtful."""
    if target.single:
        return target
    labelled, count = ndimage.label(target.mask.numpy() > 0.5)
    if count < 2:
        return target
    areas = np.bincount(labelled.ravel(), minlength=count + 1)[1:].astype(np.float64)
    areas[areas < _LEAST_PART * areas.sum()] = 0
    number = int(rng.choice(count, p=areas / areas.sum())) + 1
    own = torch.from_numpy(ndimage.grey_dilation(labelled, 3) == number)
    mask = target.mask * own
    return replace(target, mask=mask, doubt=(target.doubt + target.mask - mask).clamp(max=1))


class SceneLoss:
    """Computes the loss of scenes.

    Args:
        models: The models that learn.
        phrases: The words' embeddings.
        config: Settings.
    """

    def __init__(self, models: PocketModels, phrases: Phrases, config: TrainConfig) -> None:
        self.models = models
        self.phrases = phrases
        self.config = config

    def __call__(
        self, scene: Scene, targets: SceneTargets, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], int]:
        """The parts of a scene's loss, already weighted, and the number of prompts decoded."""
        config, models = self.config, self.models
        maps = models.maps(to_pixel_values(scene, models.device))
        parts: dict[str, Tensor] = {}
        words = targets.text
        local = None
        if words.concepts:
            text = self.phrases.embed(words.concepts, rng).to(models.device)
            local, presence = models.score(maps, targets.extent, text)
            local, presence = local.cpu(), presence.cpu()
            parts["text"] = config.text_weight * text_loss(
                local, presence, words, config.weak_weight
            )
        features = models.embed(maps)
        decoded = 0
        if targets.objects and rng.random() < config.decode:
            prompts, chosen = self._first(targets, local, rng)
            parts["masks"], rounds = self._rounds(features, prompts, chosen, targets, rng)
            decoded = rounds * len(chosen)
        return parts, decoded

    def _first(
        self, targets: SceneTargets, local: Tensor | None, rng: np.random.Generator
    ) -> tuple[Prompts, list[ObjectTarget]]:
        """The first prompts of a scene and what they ask for."""
        config = self.config
        square = self.models.sam.mask_input_size[0]
        kind = rng.random()
        if local is not None and kind < config.one_chance:
            crowded = self._crowded(targets)
            if crowded:
                chosen = [crowded[i] for i in rng.permutation(len(crowded))[: config.prompts]]
                others = [
                    [o.mask for o in targets.objects if _beside(o, target)] for target in chosen
                ]
                heat = self._heat(targets, local, [target.concept for target in chosen])
                masks = torch.stack([target.mask for target in chosen])
                return one_of_several(heat, masks, others, square, rng), chosen
        if local is not None and config.one_chance <= kind < config.one_chance + config.heat_chance:
            whole = bool(rng.random() < 0.5)
            chosen = self._whole(targets) if whole else [t for t in targets.objects if t.named]
            if chosen:
                chosen = pick(chosen, config.prompts, rng)
                heat = self._heat(targets, local, [target.concept for target in chosen])
                masks = torch.stack([target.mask for target in chosen])
                return heat_prior(heat, masks, square, rng, whole=whole), chosen
        chosen = pick(targets.objects, config.prompts, rng)
        prompts = first_prompts(torch.stack([t.mask for t in chosen]), square, rng)
        if prompts.points is None or prompts.boxes is not None or prompts.masks is not None:
            return prompts, chosen
        chosen = [
            parted(t, rng) if self._may_part(targets, t) and rng.random() < 0.6 else t
            for t in chosen
        ]
        masks = torch.stack([target.mask for target in chosen])
        if rng.random() < _BESIDE:
            everything = [target.mask for target in targets.objects]
            return clicks_beside(masks, everything, targets.weight(), rng), chosen
        return clicks(masks, rng), chosen

    @staticmethod
    def _may_part(targets: SceneTargets, target: ObjectTarget) -> bool:
        """A garment's two parts, such as a pair of shoes, belong together."""
        return targets.scene.layers[target.layer].entry.sample.source != "ccp"

    @staticmethod
    def _crowded(targets: SceneTargets) -> list[ObjectTarget]:
        """Single objects of words that the scene shows more than once."""
        return [
            target
            for target in targets.objects
            if target.named
            and target.single
            and target.concept in targets.text.concepts[: len(targets.text.masks)]
            and any(_beside(other, target) for other in targets.objects)
        ]

    @staticmethod
    def _whole(targets: SceneTargets) -> list[ObjectTarget]:
        """For each word all that it names."""
        shown = targets.text.concepts[: len(targets.text.masks)]
        found = []
        for concept in shown:
            own = [t for t in targets.objects if t.named and t.concept == concept]
            if own:
                mask = torch.stack([t.mask for t in own]).amax(0)
                doubt = torch.stack([t.doubt for t in own]).amax(0)
                # What the boxes leave in doubt is some object's, and so the word's.
                mask = (mask + doubt).clamp(max=1)
                found.append(replace(own[0], mask=mask, doubt=torch.zeros_like(mask)))
        return found

    def _heat(self, targets: SceneTargets, local: Tensor, concepts: Sequence[str]) -> Tensor:
        """Logits (B, 1, h, w) of words on the decoder's grid."""
        numbers = [targets.text.concepts.index(concept) for concept in concepts]
        heat = F.interpolate(
            local.detach()[numbers, None].float(), scale_factor=4.0, mode="bilinear"
        )
        height, width = targets.grid
        heat = heat[..., :height, :width].clamp(-10, 10)
        padding = (0, width - heat.shape[-1], 0, height - heat.shape[-2])
        return F.pad(heat, padding, mode="replicate")

    def _rounds(
        self,
        features: ImageFeatures,
        prompts: Prompts,
        chosen: Sequence[ObjectTarget],
        targets: SceneTargets,
        rng: np.random.Generator,
    ) -> tuple[Tensor, int]:
        """Mean loss over the rounds of a scene's prompts, and the number of rounds."""
        config, sam = self.config, self.models.sam
        square = sam.mask_input_size[0]
        masks = torch.stack([target.mask for target in chosen])
        doubt = torch.stack([target.doubt for target in chosen])
        weight = targets.weight() * (doubt < 0.5)
        losses = []
        while True:
            asked = moved(prompts, self.models.device)
            logits, iou = sam.decode_all(
                features, points=asked.points, boxes=asked.boxes, masks=asked.masks
            )
            logits, iou = logits.cpu().float(), iou.cpu().float()
            loss = prompt_loss(logits, iou, masks, weight, config.spread, config.edge_weight)
            if prompts.points is not None:
                loss = loss + config.click_weight * click_loss(logits, prompts.points)
            losses.append(loss)
            if len(losses) == 3 or rng.random() > config.corrections:
                return torch.stack(losses).mean(), len(losses)
            boxed = prompts.points is None and prompts.boxes is not None
            if boxed and rng.random() < config.repeats:
                # As a box is decoded: the single mask is given back with the box alone.
                prompts = replace(prompts, masks=to_mask_input(logits.detach()[:, :1], square))
                continue
            best = iou.argmax(1)
            kept = logits.detach()[torch.arange(len(logits)), best]
            prompts = corrected(prompts, masks, kept, weight, square, rng)


def _beside(other: ObjectTarget, target: ObjectTarget) -> bool:
    """Another object of the same word."""
    return other is not target and other.concept == target.concept and other.single
