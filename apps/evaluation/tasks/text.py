"""Text: present and absent classes, asked for by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ....models.embedding import ImageEmbedding
from ....models.errors import InputError
from ....pipeline.checks import Float32Array
from ....pipeline.pipeline import Pipeline
from ....pipeline.prompters.text.prompter import TextPrompter
from ..matching import iou_table, matched_ious, meant_ious
from ..metrics import balanced_weights, boundary_f, mask_iou, matthews, roc_auc
from ..pictures import BoolMask, Collection, Picture, Target, large
from ..siblings import draw_absent, is_person
from .base import Row, Settings, Shown, Task, lowest_iou, mean, open_picture, union

PRESENT, RANDOM, SIBLING = "present", "random", "sibling"
# Phrases per query, whose masks are in memory together.
_AT_ONCE = 16
# Share of the picture from which an object of a phrase should have a mask of its own.
LEAST_OBJECT = 0.005


@dataclass(frozen=True, eq=False)
class _Found:
    """Masks (N, H, W) of a phrase with their scores, each (N,)."""

    masks: BoolMask
    scores: Mapping[str, Float32Array]

    def __len__(self) -> int:
        return len(self.masks)


class TextTask(Task):
    """One row per phrase: present classes, absent classes at random, and absent siblings.

    Raises:
        InputError: The pipeline takes no text.
    """

    name: ClassVar[str] = "text"

    def __init__(self, pipe: Pipeline, collection: Collection, settings: Settings) -> None:
        super().__init__(pipe, collection, settings)
        if pipe.text_prompter is None:
            raise InputError("this pipeline has no text prompter to measure")
        self.prompter: TextPrompter[Any] = pipe.text_prompter

    def measure(self, picture: Picture) -> list[Row]:
        """Ask for the classes of a picture and for absent ones; each phrase is decoded once."""
        image, truth = open_picture(picture)
        present = {target.label: target for target in large(truth.classes)}
        absent = draw_absent(
            list(present),
            picture.labels,
            self.collection.vocabulary[picture.source],
            self.collection.supercategories,
            np.random.default_rng(list(picture.name.encode())),
        )
        phrases = list(dict.fromkeys([*present, *absent[0], *absent[1]]))
        if not phrases:
            return []
        embedding = self.pipe.segmenter.encode_image(image)
        presence = dict(zip(phrases, self.prompter.presence(embedding, phrases), strict=True))
        found = self._find(self.pipe, embedding, phrases)
        # The gate only removes: what is found with it is found without it too.
        lost = [phrase for phrase in phrases if not len(found[phrase])]
        loose = self._find(self.pipe, embedding, lost, min_presence=0.0)
        peaks = dict(zip(present, self.prompter.peaks(embedding, list(present)), strict=True))
        rows = []
        for label, target in present.items():
            joined = union(found[label].masks)
            meant = [item for item in truth.objects if item.label == label and item.single]
            row = _row(label, PRESENT, presence[label], found[label], loose)
            row["masks"] = _scored(found[label], meant or [target], truth.valid)
            objects = large(meant, LEAST_OBJECT)
            row["objects"] = matched_ious(iou_table(found[label].masks, objects, truth.valid))
            row["area"] = target.area
            row["iou"] = mask_iou(joined, target.mask, truth.valid)
            row["boundary"] = boundary_f(joined, target.mask, truth.valid)
            row["pointed"] = _is_inside(peaks[label], target)
            rows.append(row)
        for kind, labels in zip((RANDOM, SIBLING), absent, strict=True):
            for label in labels:
                row = _row(label, kind, presence[label], found[label], loose)
                row["masks"] = _scored(found[label], (), truth.valid)
                rows.append(row)
        return rows

    @staticmethod
    def _find(
        pipe: Pipeline,
        embedding: ImageEmbedding,
        phrases: Sequence[str],
        min_presence: float | None = None,
    ) -> dict[str, _Found]:
        """Masks of each phrase; the phrases of a query are answered independently."""
        answers: dict[str, _Found] = {}
        for start in range(0, len(phrases), _AT_ONCE):
            asked = phrases[start : start + _AT_ONCE]
            found = pipe(embedding, text=asked, min_presence=min_presence)
            labels = np.array(found.labels, object)
            for phrase in asked:
                own = labels == phrase.strip()
                scores = {
                    "score": found.scores[own],
                    "iou_prediction": found.iou_predictions[own],
                    "stability": found.stability_scores[own],
                    "prompt": found.prompt_scores[own],
                }
                answers[phrase] = _Found(found.masks[own], scores)
        return answers

    def depends_on(self) -> dict[str, str]:
        """The labels that absent phrases are drawn from, and how each is asked."""
        drawn_from = [
            {key: list(labels) for key, labels in self.collection.vocabulary.items()},
            dict(self.collection.supercategories),
        ]
        text = json.dumps(drawn_from, sort_keys=True)
        return {
            "labels": hashlib.sha256(text.encode()).hexdigest(),
            "asked": "with the gate and without it",
        }

    def figures(self, rows: Sequence[Row]) -> dict[str, float]:
        """Figures of masks, people separately, and of decisions for each kind of absent phrase."""
        present = [row for row in rows if row["kind"] == PRESENT]
        people = [row for row in present if is_person(row["label"])]
        others = [row for row in present if not is_person(row["label"])]
        figures = _mask_figures(others)
        figures |= {f"person {name}": value for name, value in _mask_figures(people).items()}
        if present:
            figures["found if present"] = mean(row["found"] for row in present)
        figures |= _object_figures(others) | _score_figures(rows)
        for kind in (RANDOM, SIBLING):
            absent = [row for row in rows if row["kind"] == kind]
            figures |= {
                f"{kind} {name}": value for name, value in _honesty(present, absent).items()
            }
        return figures

    def class_figures(self, rows: Sequence[Row]) -> dict[str, float]:
        """Figures of the masks where the class is present, and of the decisions."""
        present = [row for row in rows if row["kind"] == PRESENT]
        # A label drawn both ways was asked only once.
        asked = {row["picture"]: row for row in rows if row["kind"] != PRESENT}
        figures = _mask_figures(present)
        if present:
            figures["found if present"] = mean(row["found"] for row in present)
        return figures | _emptiness(list(asked.values()))

    def scored(self, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """The score of each phrase's masks, and their IoU with what was meant."""
        return [(mask["score"], mask["iou"]) for mask in scored_masks(rows)]

    def worst(self, rows: Sequence[Row], count: int) -> list[Row]:
        """Half of them phrases that were missed, half found though absent, most certain first."""
        false = [row for row in rows if row["kind"] != PRESENT and row["found"]]
        once = {(row["picture"], row["label"]): row for row in false}
        surest = sorted(once.values(), key=lambda row: -row["presence"])
        missed = lowest_iou((row for row in rows if row["kind"] == PRESENT), count)
        taken = max(count - len(missed), count // 2)
        return missed[: count - min(taken, len(surest))] + surest[:taken]

    def show(self, picture: Picture, rows: Sequence[Row]) -> list[Shown]:
        """Find the phrases of these rows again."""
        image, truth = open_picture(picture)
        classes = {target.label: target.mask for target in truth.classes}
        embedding = self.pipe.segmenter.encode_image(image)
        answers = self._find(self.pipe, embedding, [row["label"] for row in rows])
        shown = []
        for row in rows:
            label = row["label"]
            found = union(answers[label].masks)
            if row["kind"] == PRESENT:
                outcome = f"IoU {row['iou']:.2f}" if row["found"] else "not found"
                caption, target = f"{label}  {outcome}", classes[label]
            else:
                caption, target = f"{label} is absent  presence {row['presence']:.2f}", None
            shown.append(Shown(caption, image, found, target))
        return shown


def scored_masks(rows: Sequence[Row]) -> list[dict[str, float]]:
    """The scores and the IoU of all masks; those of a phrase drawn both ways count once."""
    once = {(row["picture"], row["label"]): row["masks"] for row in rows}
    return [mask for masks in once.values() for mask in masks]


def _row(
    label: str, kind: str, presence: float, found: _Found, ungated: Mapping[str, _Found]
) -> Row:
    return {
        "label": label,
        "kind": kind,
        "presence": presence,
        "found": len(found) > 0,
        "found ungated": len(found) > 0 or len(ungated[label]) > 0,
    }


def _scored(found: _Found, meant: Sequence[Target], valid: BoolMask) -> list[dict[str, float]]:
    """Each mask's scores and its IoU with what was meant, 0 where nothing was."""
    ious = meant_ious(found.masks, meant, valid)
    return [
        {"iou": iou} | {name: float(values[i]) for name, values in found.scores.items()}
        for i, iou in enumerate(ious)
    ]


def _is_inside(point: tuple[float, float] | None, target: Target) -> bool:
    """Whether the pixel nearest to a point belongs to the target; false without a point."""
    if point is None:
        return False
    height, width = target.mask.shape
    column, row = min(width - 1, round(point[0])), min(height - 1, round(point[1]))
    return bool(target.mask[row, column])


def _mask_figures(rows: Sequence[Row]) -> dict[str, float]:
    if not rows:
        return {}
    return {
        "phrases": len(rows),
        "mIoU": mean(row["iou"] for row in rows),
        "boundary F": mean(row["boundary"] for row in rows),
        "pointing": mean(row["pointed"] for row in rows),
    }


def _object_figures(rows: Sequence[Row]) -> dict[str, float]:
    """IoU of each object with one mask of its own, and where a phrase names several."""
    figures: dict[str, float] = {}
    for name, least in (("object", 1), ("one of several", 2)):
        ious = [iou for row in rows if len(row["objects"]) >= least for iou in row["objects"]]
        if ious:
            figures |= {f"{name} IoU": mean(ious), f"{name} count": len(ious)}
    return figures


def _score_figures(rows: Sequence[Row]) -> dict[str, float]:
    """Mean error of the scores of all masks."""
    errors = [abs(mask["score"] - mask["iou"]) for mask in scored_masks(rows)]
    return {"score error": mean(errors)} if errors else {}


def _honesty(present: Sequence[Row], absent: Sequence[Row]) -> dict[str, float]:
    """Figures of the decisions; present and absent phrases count the same in total."""
    figures = _emptiness(absent)
    if present and absent:
        rows = [*present, *absent]
        truth = [row["kind"] == PRESENT for row in rows]
        figures["AUC"] = roc_auc(truth, [row["presence"] for row in rows])
        weights = balanced_weights(truth)
        for name, key in (("IL_MCC", "found"), ("IL_MCC ungated", "found ungated")):
            figures[name] = matthews(truth, [row[key] for row in rows], weights)
    return figures


def _emptiness(absent: Sequence[Row]) -> dict[str, float]:
    if not absent:
        return {}
    return {"absent": len(absent), "empty if absent": mean(not row["found"] for row in absent)}
