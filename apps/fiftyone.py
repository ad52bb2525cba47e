"""A model for FiftyOne: what phrases name in a dataset's images, as detections with masks.

    model = promptseg.apps.fiftyone.Model(["cat", "dog"])
    dataset.apply_model(model, label_field="promptseg")

Source: the interface ``fiftyone.core.models.Model``, version 1.22.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import fiftyone.core.labels as fol
import fiftyone.core.models as fom

from ..models.errors import InputError
from ..pipeline.presets.load import load
from ..pipeline.query import Phrases, Query

if TYPE_CHECKING:
    from ..pipeline.checks import UInt8Array
    from ..pipeline.pipeline import Pipeline
    from ..pipeline.result import Result


class Model(fom.Model):  # type: ignore[misc] # FiftyOne has no types
    """Finds what phrases name in images.

    Args:
        labels: Phrases to look for; each detection has the phrase that it was found for.
        preset: The models.
        negative: Phrases whose masks are not wanted.
        min_presence: Least presence of a phrase; None for the preset's own.
        min_score: Least score of a mask; FiftyOne's ``confidence_thresh`` filters the same score.
        top_k: Most masks for each phrase.
        device: Where the models run.
        weights: Folder to look for weights in first.
        pipeline: A loaded pipeline, in place of the preset.

    Raises:
        InputError: A phrase or a value cannot be used.
        CheckpointError: Weights are missing.
    """

    def __init__(
        self,
        labels: Phrases,
        *,
        preset: str = "pocket",
        negative: Phrases = None,
        min_presence: float | None = None,
        min_score: float | None = None,
        top_k: int | None = None,
        device: str = "cpu",
        weights: str | Path | None = None,
        pipeline: Pipeline | None = None,
    ) -> None:
        self._query = Query(labels, negative_text=negative, min_presence=min_presence)
        if not self._query.text:
            raise InputError("say what to look for, such as Model(['cat', 'dog'])")
        self._pipeline = pipeline or load(preset, device=device, weights=weights)
        self._min_score = min_score
        self._top_k = top_k
        self._preprocess = False

    @property
    def media_type(self) -> str:
        """What is processed: images."""
        return "image"

    @property
    def ragged_batches(self) -> bool:
        """No: images of a batch may have different sizes, since nothing is transformed."""
        return False

    @property
    def transforms(self) -> None:
        """None: images are taken as they are."""
        return

    @property
    def preprocess(self) -> bool:
        """Without effect, since there are no transforms."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        self._preprocess = value

    def predict(self, arg: UInt8Array) -> fol.Detections:
        """Return the masks of an image, best first; no detections if nothing is there.

        Args:
            arg: (H, W, 3) uint8 RGB; grey and RGBA as well.
        """
        proposals = self._pipeline.propose(arg, self._query)
        result = self._pipeline.rank(proposals, top_k=self._top_k, min_score=self._min_score)
        return fol.Detections(detections=detections(result))

    def predict_all(self, args: Iterable[UInt8Array]) -> list[fol.Detections]:
        """Return the masks of several images, one after the other."""
        return [self.predict(arg) for arg in args]


def detections(result: Result) -> list[fol.Detection]:
    """Return a result's masks as detections; an empty mask has none."""
    height, width = result.image_size
    found = []
    for i, mask in enumerate(result.compact_masks):
        if not mask.area:
            continue
        x0, y0, x1, y1 = mask.box
        left, across = _extent(x0, x1, width)
        top, down = _extent(y0, y1, height)
        found.append(
            fol.Detection(
                label=result.labels[i],
                bounding_box=[left, top, across, down],
                mask=mask.part(),
                confidence=float(result.scores[i]),
            )
        )
    return found


def _extent(start: int, end: int, length: int) -> tuple[float, float]:
    """Return where a side begins and how long it is, as shares of the image's length.

    FiftyOne multiplies and rounds down; the shares are such that it finds the same pixels again.
    """
    low, span = start / length, (end - start) / length
    while int(length * low) < start:
        low = math.nextafter(low, math.inf)
    while int(length * (low + span)) < end:
        span = math.nextafter(span, math.inf)
    return low, span
