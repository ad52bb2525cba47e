"""Quick evaluation on the dev split during training."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from config import TrainConfig
from features import FeatureCache
from losses import true_iou
from pocket_models import PocketModels
from prompts import boxes, clicks
from text_examples import TextExamples

from promptseg.apps.evaluation.index_folder import Sample
from promptseg.apps.evaluation.metrics import matthews


@torch.inference_mode()
def look_at_dev(
    models: PocketModels,
    cache: FeatureCache,
    examples: TextExamples,
    samples: list[Sample],
    config: TrainConfig,
) -> dict[str, float]:
    """Compute approximate metrics on the models' own grids.

    Only objects that cover at least 1% of the picture count; `promptseg eval` gives the final
    figures. The metrics are box and one-click IoU, the IoU token's error, the IoU of the text
    head's heat above 0.5, how often its peak is right, and the Matthews correlation of its
    presence.
    """
    sums: dict[str, list[float]] = defaultdict(list)
    there: list[bool] = []
    decided: list[bool] = []
    rng = np.random.default_rng(config.seed)
    model = models.sam
    for sample in samples:
        view = cache.view(sample, flip=False)
        weight = view.weight()
        maps = models.backbone_maps(view)
        if sample.source not in config.unnamed_sources:
            example = examples(sample, view, None)
            local, presence = models.score(maps, view, example)
            count = len(example.targets)
            there += [i < count for i in range(len(presence))]
            decided += (presence > 0).tolist()
            for i, target in enumerate(example.targets):
                if (target * example.cell_weight).sum() < 0.01 * example.cell_weight.sum():
                    continue
                kind = "person" if example.concepts[i] == "person" else "text"
                found = true_iou(local[i][None, None], target[None], example.cell_weight)
                sums[kind] += [float(found)]
                sums[f"{kind}_pointing"] += [float(target.flatten()[local[i].argmax()] > 0.5)]
        masks = [view.target(ids) for _, ids in sample.objects()]
        masks = [m for m in masks if (m * weight).sum() >= 0.01 * weight.sum()][:8]
        if not masks:
            continue
        targets = torch.stack(masks)
        features = model.image_encoder.embed(maps)
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
    figures = {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
    return figures | {"presence_mcc": round(matthews(there, decided), 4)}
