"""A quick look at the dev split during training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from composer import whole_scene
from config import TrainConfig
from losses import true_iou
from objective import moved, to_pixel_values
from phrases import Phrases
from pictures import Entry
from pocket_models import PocketModels
from prompts import boxes, clicks, corrected
from targets import SceneTargets
from vocabulary import Vocabulary

from promptseg.apps.evaluation.metrics import matthews

_LEAST = 0.01  # share of the picture from which an object counts
_MOST_OBJECTS = 6  # of a picture
Figures = dict[str, list[float]]


@torch.inference_mode()
def look_at_dev(
    models: PocketModels,
    vocabulary: Vocabulary,
    phrases: Phrases,
    entries: Sequence[Entry],
    config: TrainConfig,
) -> Figures:
    """Quick figures on the models' own grids, objects of at least 1%; `promptseg eval` judges.

    For each source: box, one-click and two-click IoU, the IoU token's error, IoU of the text head's
    heat above 0.5, how often its peak is right, and its presence.

    Returns:
        Figure -> its values; :func:`merged` takes their means.
    """
    sums: Figures = defaultdict(list)
    rng = np.random.default_rng(config.seed)
    sam = models.sam
    for entry in entries:
        scene = whole_scene(entry, config.scenes.side)
        targets = SceneTargets(
            scene, vocabulary, unnamed=config.unnamed_sources, min_area=_LEAST, min_visible=0.0
        )
        source = entry.sample.source
        maps = models.maps(to_pixel_values(scene, models.device))
        words = targets.text
        if words.concepts:
            text = phrases.embed(words.concepts, None).to(models.device)
            local, presence = (t.cpu() for t in models.score(maps, targets.extent, text))
            for i, concept in enumerate(words.concepts):
                if words.present_weight[i] < 1:
                    continue
                sums["presence"] += [float(2 * words.present[i] + (presence[i] > 0))]
                if not words.present[i] or words.masks[i].mean() < _LEAST:
                    continue
                kind = "person" if concept == "person" else f"text_{source}"
                valid = words.weights[i].round()
                found = true_iou(local[i][None, None], words.masks[i][None], valid)
                sums[kind] += [float(found)]
                peak = words.masks[i].flatten()[local[i].argmax()]
                sums[f"{kind}_pointing"] += [float(peak > 0.5)]
        features = models.embed(maps)
        chosen = targets.objects[:_MOST_OBJECTS]
        if not chosen:
            continue
        masks = torch.stack([target.mask for target in chosen])
        weight = targets.weight() * (torch.stack([target.doubt for target in chosen]) < 0.5)
        box = moved(boxes(masks, rng, jitter=0.0, limit=0.0), models.device)
        logits, iou = sam.decode_all(features, points=None, boxes=box.boxes, masks=None)
        sums[f"box_{source}"] += true_iou(logits.cpu(), masks, weight)[:, 0].tolist()
        click = clicks(masks, rng)
        asked = moved(click, models.device)
        logits, iou = sam.decode_all(features, points=asked.points, boxes=None, masks=None)
        logits, iou = logits.cpu(), iou.cpu()
        found = true_iou(logits, masks, weight)[:, 1:]
        picked = iou[:, 1:].argmax(1)
        sums["click_best"] += found.amax(1).tolist()
        sums["click_selected"] += found[torch.arange(len(found)), picked].tolist()
        sums["iou_error"] += (found - iou[:, 1:]).abs().mean(1).tolist()
        kept = logits[torch.arange(len(logits)), 1 + picked]
        second = corrected(click, masks, kept, weight, sam.mask_input_size[0], rng)
        asked = moved(second, models.device)
        logits, _ = sam.decode_all(features, points=asked.points, boxes=None, masks=asked.masks)
        sums["two_clicks"] += true_iou(logits.cpu(), masks, weight)[:, 0].tolist()
    return dict(sums)


def merged(parts: Iterable[Mapping[str, list[float]]]) -> dict[str, float]:
    """Means of all workers' figures; ``presence`` becomes its Matthews correlation."""
    values: Figures = defaultdict(list)
    for part in parts:
        for name, found in part.items():
            values[name] += found
    figures = {}
    for name, found in values.items():
        if name == "presence":
            there = [value >= 2 for value in found]
            figures["presence_mcc"] = round(matthews(there, [v % 2 == 1 for v in found]), 4)
        else:
            figures[name] = round(float(np.mean(found)), 4)
    return figures
