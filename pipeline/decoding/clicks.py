"""Points and boxes of a person. Several clicks are decoded in turn, each refining the mask so far.

Segment Anything was trained on clicks that correct its own mask, with that mask's logits as a
prompt (Kirillov et al. 2023, appendix A); clicks that a person makes are decoded in the same way.
A background click then has the last word: the mask never covers it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...models.embedding import ImageEmbedding
from ..checks import BoolArray, Float32Array
from ..proposals import Proposals
from .decode import decode_prompts, select_by_iou_prediction, to_proposals
from .prompts import LowResMasks, PromptSet
from .segmenter import Segmenter

# Where a background click lies on no object of its own, what is nearer to it than this share of the
# way to the next foreground click is removed.
_REACH = 0.25
# A click on the very edge of the mask counts as covered: upscaling rounds a little differently.
_MARGIN = 0.5
# What cells that a background click removes are set to: background without doubt.
_REMOVED = -10.0


def decode_marked(
    segmenter: Segmenter, embedding: ImageEmbedding, prompts: PromptSet, *, refine: bool = False
) -> Proposals:
    """Decode what points and boxes mark; a single click is ambiguous and gives all three masks.

    Args:
        segmenter: The segmenter that decodes.
        embedding: The encoded image.
        prompts: One or more prompts of points and boxes.
        refine: Whether each of a single click's masks is decoded once more, to the single mask of
            the click and its own logits; its predicted IoU stays, by which the masks were told
            apart.
    """
    coords = prompts.point_coords
    lone = prompts.boxes is None and coords is not None and coords.shape[1] == 1
    if coords is None or lone:
        masks = decode_prompts(segmenter, embedding, prompts, multimask_output=lone)
        if lone and refine:
            masks = _refined(segmenter, embedding, prompts, masks)
    else:
        masks = LowResMasks.join(
            [
                decode_clicks(segmenter, embedding, prompts.part(slice(i, i + 1)))
                for i in range(len(prompts))
            ]
        )
    found = to_proposals(segmenter, embedding, masks, prompts.labels, prompts.prompt_scores)
    return replace(found, nested=lone)


def _refined(
    segmenter: Segmenter, embedding: ImageEmbedding, prompts: PromptSet, masks: LowResMasks
) -> LowResMasks:
    """Decode C masks of each of B prompts again, each with its own logits as prompt."""
    count, each, *size = masks.logits.shape
    copies = prompts.part(np.arange(count).repeat(each))
    again = replace(copies, mask_input=masks.logits.reshape(-1, 1, *size))
    found = decode_prompts(segmenter, embedding, again, multimask_output=False)
    return LowResMasks(found.logits.reshape(masks.logits.shape), masks.iou_predictions)


def decode_clicks(
    segmenter: Segmenter, embedding: ImageEmbedding, prompts: PromptSet
) -> LowResMasks:
    """Decode the clicks of one prompt in their order, the first foreground click first.

    The first click has two readings: the best of its three masks, and its single mask. Each further
    click refines both, to the single mask of all clicks so far with the logits before as mask
    prompt, and the IoU token chooses in the end. With a box, the box and all clicks are decoded at
    once. If the last mask covers a background click, it is cut: by
    the object that the background click lies on, or else by what is close to the click.

    Args:
        segmenter: The segmenter that decodes.
        embedding: The encoded image.
        prompts: One prompt of points, with a box or with a foreground point.

    Returns:
        One mask, C of 1.
    """
    if prompts.point_labels is None or (prompts.point_labels == -1).all():
        return decode_prompts(segmenter, embedding, prompts, multimask_output=False)
    clicks = _Clicks(segmenter, embedding, prompts)
    if prompts.boxes is not None:
        masks = clicks.decode(clicks.count, None)
    else:
        ambiguous = clicks.decode(1, None, multimask_output=True)
        best = ambiguous.select(select_by_iou_prediction(ambiguous.iou_predictions))
        readings = LowResMasks.join([best, clicks.decode(1, None)])
        for count in range(2, clicks.count + 1):
            readings = clicks.decode(count, readings)
        masks = readings.take(readings.iou_predictions.argmax(0))
    return clicks.cut(masks)


class _Clicks:
    """The clicks of one prompt, in the order in which they are decoded.

    Args:
        segmenter: The segmenter that decodes.
        embedding: The encoded image.
        prompts: One prompt of points; padding is left out.
    """

    def __init__(self, segmenter: Segmenter, embedding: ImageEmbedding, prompts: PromptSet) -> None:
        if prompts.point_coords is None or prompts.point_labels is None:
            raise ValueError("the prompt has no points")
        labels = prompts.point_labels[0]
        real = [int(i) for i in np.flatnonzero(labels != -1)]
        first = next((i for i in real if labels[i] == 1), real[0])
        order = [first, *(i for i in real if i != first)]
        self.segmenter = segmenter
        self.embedding = embedding
        self.prompts = prompts
        self.coords: Float32Array = prompts.point_coords[0, order]
        self.labels: NDArray[np.int64] = labels[order]
        self.count = len(order)
        rows, columns = segmenter.mask_input_extent(embedding)
        height, width = embedding.original_size
        # Places in cells of the logits, (N, 2) as (column, row); the middle of a cell is whole.
        places = (self.coords + 0.5) * (columns / width, rows / height) - 0.5
        self.places: NDArray[np.float64] = np.clip(places, 0, (columns - 1, rows - 1))
        self.cells: NDArray[np.intp] = np.rint(self.places).astype(np.intp)

    def decode(
        self, count: int, before: LowResMasks | None, *, multimask_output: bool = False
    ) -> LowResMasks:
        """Decode the first ``count`` clicks, once for each mask before, which is a prompt."""
        copies = np.zeros(1 if before is None else len(before.logits), np.intp)
        prompt = replace(
            self.prompts.part(copies),
            point_coords=self.coords[None, :count].repeat(len(copies), axis=0),
            point_labels=self.labels[None, :count].repeat(len(copies), axis=0),
            mask_input=None if before is None else before.logits,
        )
        return decode_prompts(
            self.segmenter, self.embedding, prompt, multimask_output=multimask_output
        )

    def covered(self, masks: LowResMasks) -> BoolArray:
        """Return which background clicks the mask covers, (N,) bool in the order of decoding."""
        logits = ndimage.map_coordinates(
            masks.logits[0, 0], self.places.T[::-1], order=1, mode="nearest"
        )
        least = self.segmenter.model.mask_threshold - _MARGIN
        covered: BoolArray = (logits > least) & (self.labels == 0)
        return covered

    def cut(self, masks: LowResMasks) -> LowResMasks:
        """Remove what covered background clicks mark."""
        logits = masks.logits.copy()
        threshold = self.segmenter.model.mask_threshold
        for i in np.flatnonzero(self.covered(masks)).tolist():
            mask = logits[0, 0] > threshold
            # The cells around the click as well: the pixels between them are interpolated.
            marked = (mask & self._marked(i, mask)) | _around(mask.shape, self.cells[i])
            logits[0, 0][marked] = threshold + _REMOVED
        return LowResMasks(logits, masks.iou_predictions)

    def _marked(self, i: int, mask: BoolArray) -> BoolArray:
        """Return what a background click marks, (h, w): its object, or what is close to it."""
        prompt = PromptSet(
            prompt_scores=self.prompts.prompt_scores,
            labels=self.prompts.labels,
            point_coords=self.coords[None, i : i + 1],
            point_labels=np.ones((1, 1), np.int64),
        )
        found = decode_prompts(self.segmenter, self.embedding, prompt, multimask_output=True)
        objects = found.logits[0] > self.segmenter.model.mask_threshold  # (C, h, w)
        wanted = self.cells[self.labels == 1]
        covers = objects[:, self.cells[i, 1], self.cells[i, 0]]
        spares = ~objects[:, wanted[:, 1], wanted[:, 0]].any(1)
        # Without a foreground click, what would take more than half of the mask is what is meant.
        spares &= 2 * (objects & mask).sum((1, 2)) <= mask.sum() if not len(wanted) else True
        usable = np.flatnonzero(covers & spares)
        if len(usable):
            best: BoolArray = objects[usable[np.argmax(found.iou_predictions[0, usable])]]
            return best
        if not len(wanted):
            return np.zeros_like(mask)
        column, row = self.cells[i]
        rows, columns = np.indices(mask.shape)
        reach = _REACH * np.hypot(*(wanted - self.cells[i]).T).min()
        close: BoolArray = np.hypot(columns - column, rows - row) <= reach
        return close


def _around(size: tuple[int, ...], cell: NDArray[np.intp]) -> BoolArray:
    """Return a cell and its neighbours within two cells, (h, w)."""
    column, row = cell
    mask = np.zeros(size, np.bool_)
    mask[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = True
    return mask
