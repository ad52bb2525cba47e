"""Measure a pipeline on pictures with region masks: boxes, clicks and phrases.

Objects of less than 1% of their picture do not count. A run writes a line a picture as it goes
and leaves out the pictures that are already there, so that an interrupted run can go on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..models.errors import InputError
from ..pipeline.images import load_image
from ..pipeline.masks import mask_to_box
from ..pipeline.pipeline import Pipeline
from ..pipeline.types import ImageEmbedding
from .clicks import next_click
from .datasets import VOID, Sample
from .metrics import mask_iou, matthews
from .row_store import Row, RowStore

MIN_AREA = 0.01
CLICKS = (1, 3, 5)

BoolMask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Object:
    """Something to be found: its label, where it is, and which pixels count."""

    label: str
    mask: BoolMask
    valid: BoolMask


def _objects(sample: Sample) -> list[_Object]:
    ids = sample.load_ids()
    valid = ids != VOID
    found = [_Object(label, np.isin(ids, values), valid) for label, values in sample.objects()]
    return [item for item in found if item.mask.mean() >= MIN_AREA]


def evaluate_boxes(pipe: Pipeline, sample: Sample, embedding: ImageEmbedding) -> list[Row]:
    """One row an object: IoU of the single mask for its tight box."""
    objects = _objects(sample)
    if not objects:
        return []
    boxes = np.array([mask_to_box(item.mask) for item in objects])
    found = pipe.segmenter.decode(embedding, boxes=boxes, multimask_output=False)
    return [
        {
            "label": item.label,
            "iou": mask_iou(found.masks[i, 0], item.mask, item.valid),
            "predicted": [float(found.iou_predictions[i, 0])],
        }
        for i, item in enumerate(objects)
    ]


def evaluate_points(pipe: Pipeline, sample: Sample, embedding: ImageEmbedding) -> list[Row]:
    """One row an object: IoU of the three masks after 1, 3 and 5 simulated clicks.

    A click falls on the centre of the largest error of the mask that the IoU token prefers, whose
    logits are given back as mask input.
    """
    return [_click_through(pipe, item, embedding) for item in _objects(sample)]


def _click_through(pipe: Pipeline, item: _Object, embedding: ImageEmbedding) -> Row:
    row: Row = {"label": item.label}
    coords: list[tuple[float, float]] = []
    labels: list[int] = []
    mask = np.zeros_like(item.mask)
    logits = None
    for number in range(1, max(CLICKS) + 1):
        column, line, label = next_click(item.mask & item.valid, mask, item.valid)
        coords.append((column, line))
        labels.append(label)
        found = pipe.segmenter.decode(
            embedding,
            point_coords=[coords],
            point_labels=[labels],
            mask_input=logits,
            multimask_output=True,
        )
        best = int(found.iou_predictions[0].argmax())
        mask, logits = found.masks[0, best], found.low_res_logits[:, best : best + 1]
        if number in CLICKS:
            row[str(number)] = {
                "ious": [mask_iou(m, item.mask, item.valid) for m in found.masks[0]],
                "predicted": found.iou_predictions[0].tolist(),
            }
    return row


def evaluate_text(
    pipe: Pipeline, sample: Sample, embedding: ImageEmbedding, labels: Sequence[str]
) -> list[Row]:
    """One row a phrase: those that are there, and as many that are not.

    Args:
        pipe: What is measured.
        sample: The picture.
        embedding: Of the picture.
        labels: All labels of the picture's source, from which absent ones are drawn.
    """
    prompter = pipe.text_prompter
    if prompter is None:
        raise InputError("this pipeline has no text prompter to measure")
    ids = sample.load_ids()
    valid = ids != VOID
    here = {region.label for region in sample.regions}
    regions = {
        region.label: np.isin(ids, region.ids)
        for region in sample.regions
        if region.thing is not False
    }
    present = {name: mask for name, mask in regions.items() if mask.mean() >= MIN_AREA}
    others = [label for label in labels if label not in here]
    rng = np.random.default_rng(list(sample.name.encode()))
    absent = rng.choice(others, size=min(len(others), len(present)), replace=False).tolist()
    rows = []
    for phrase in [*present, *absent]:
        result = pipe.find(embedding, phrase)
        row: Row = {"label": phrase, "present": phrase in present, "found": len(result) > 0}
        if phrase in present:
            target = present[phrase]
            union: BoolMask = np.logical_or.reduce(result.masks, axis=0)
            row["iou"] = mask_iou(union, target, valid)
            row["pointed"] = False
            prompts, _ = prompter(embedding, [phrase])
            if prompts.point_coords is not None:
                x, y = prompts.point_coords[int(prompts.prompt_scores.argmax()), 0]
                row["pointed"] = bool(target[int(y), int(x)])
        rows.append(row)
    return rows


def evaluate(
    pipe: Pipeline,
    samples: Sequence[Sample],
    task: str,
    *,
    store: Path | None = None,
    about: Mapping[str, str] = MappingProxyType({}),
    advance: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Measure every picture and give all rows, each with its picture's source.

    Args:
        pipe: What is measured.
        samples: The pictures.
        task: "boxes", "points" or "text".
        store: File of one JSON line a picture; pictures in it are not measured again.
        about: What else the rows depend on, such as the preset and its weights. A store of a
            run that differs in it, or in the task, the version or the settings, is refused.
        advance: Called after each picture.

    Raises:
        InputError: There is no such task, two pictures have one name, or the store is of
            another run.
    """
    labels = _labels_by_source(samples)

    def measure(sample: Sample) -> list[Row]:
        embedding = pipe.segmenter.encode_image(load_image(sample.image_path))
        if task == "boxes":
            return evaluate_boxes(pipe, sample, embedding)
        if task == "points":
            return evaluate_points(pipe, sample, embedding)
        return evaluate_text(pipe, sample, embedding, labels[sample.source])

    if task not in ("boxes", "points", "text"):
        raise InputError(f"there is no task {task!r}; there are boxes, points and text")
    twice = [name for name, count in Counter(s.name for s in samples).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]!r} is the name of two pictures; rename one of them")
    kept = None
    if store is not None:
        kept = RowStore(store, _describe_run(pipe, task, labels, about))
    rows: list[Row] = []
    for sample in samples:
        found = None if kept is None else kept.rows.get(sample.name)
        if found is None:
            found = measure(sample)
            if kept is not None:
                kept.add(sample.name, found)
        rows += [{"source": sample.source, **row} for row in found]
        advance()
    return rows


def _labels_by_source(samples: Iterable[Sample]) -> dict[str, list[str]]:
    labels: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        labels[sample.source] |= {r.label for r in sample.regions if r.thing is not False}
    return {source: sorted(names) for source, names in labels.items()}


def _describe_run(
    pipe: Pipeline, task: str, labels: Mapping[str, list[str]], about: Mapping[str, str]
) -> dict[str, str]:
    """All that rows depend on besides the pictures; rows of unlike runs must not mix."""
    prompter = pipe.text_prompter
    settings = [repr(pipe.config), repr(prompter.config) if prompter is not None else ""]
    header = {
        "task": task,
        **about,
        "version": __version__,
        "settings": hashlib.sha256("\n".join(settings).encode()).hexdigest(),
    }
    if task == "text":  # absent phrases are drawn from the labels of all pictures
        header["labels"] = hashlib.sha256(json.dumps(labels).encode()).hexdigest()
    return header


def summarise(task: str, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Figures by source, and of all rows under "all"; without those that no row counts for."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["source"]].append(row)
    groups["all"] = list(rows)
    figures = {"boxes": _box_figures, "points": _point_figures, "text": _text_figures}[task]
    return {name: figures(group) for name, group in groups.items() if group}


def _box_figures(rows: Sequence[Row]) -> dict[str, float]:
    return {"objects": len(rows), "mIoU": _mean(row["iou"] for row in rows)}


def _point_figures(rows: Sequence[Row]) -> dict[str, float]:
    figures: dict[str, float] = {"objects": len(rows)}
    for number in CLICKS:
        ious = np.array([row[str(number)]["ious"] for row in rows])
        predicted = np.array([row[str(number)]["predicted"] for row in rows])
        chosen = predicted.argmax(1)
        selected = ious[np.arange(len(ious)), chosen]
        figures |= {
            f"{number} selected": float(selected.mean()),
            f"{number} best": float(ious.max(1).mean()),
            f"{number} IoU error": float(np.abs(ious - predicted).mean()),
            f"{number} picks best": float((chosen == ious.argmax(1)).mean()),
        }
    return figures


def _text_figures(rows: Sequence[Row]) -> dict[str, float]:
    present = [row for row in rows if row["present"]]
    absent = [row for row in rows if not row["present"]]
    by_kind: Mapping[str, list[Row]] = {
        "": [row for row in present if row["label"] != "person"],
        "person ": [row for row in present if row["label"] == "person"],
    }
    figures: dict[str, float] = {}
    for prefix, group in by_kind.items():
        if group:
            figures |= {
                f"{prefix}phrases": len(group),
                f"{prefix}mIoU": _mean(row["iou"] for row in group),
                f"{prefix}pointing": _mean(row["pointed"] for row in group),
            }
    if present and absent:
        decisions = [row["found"] for row in rows]
        figures["IL_MCC"] = matthews([row["present"] for row in rows], decisions)
    if absent:
        figures["empty if absent"] = _mean(not row["found"] for row in absent)
    if present:
        figures["found if present"] = _mean(row["found"] for row in present)
    return figures


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
