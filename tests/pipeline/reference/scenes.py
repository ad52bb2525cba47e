"""Hand-made scenes for the matching strategies, and a segmenter that knows where their things are.

A picture is 96 x 96 pixels, its features are 12 x 12 cells of 8 x 8 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from promptseg.models.embedding import ImageEmbedding
from promptseg.models.features.dense import DenseFeatures
from promptseg.pipeline.decoding.prompts import LowResMasks
from promptseg.pipeline.decoding.segmenter import Segmenter
from promptseg.pipeline.prompters.reference.examples import EncodedReference, Shot
from promptseg.pipeline.prompters.reference.matching import Matches, MatchingStrategy
from promptseg.pipeline.prompters.reference.target import Target

SIDE = 96
GRID = (12, 12)
# What cells can show: unlike vectors of a common part and one of their own.
CAT, DOG, GRASS, SKY = np.eye(4) * 2 + 0.5
FIRST, SECOND = (1, 1, 4, 5), (7, 6, 11, 10)

Box = tuple[int, int, int, int]
Things = Sequence[tuple[np.ndarray, Box]]


def features(tokens: np.ndarray) -> DenseFeatures:
    cell = SIDE / tokens.shape[0]
    return DenseFeatures(
        torch.tensor(tokens, dtype=torch.float32), (SIDE, SIDE), (SIDE, SIDE), (cell, cell), "test"
    )


def scene(things: Things, *, seed: int = 0) -> np.ndarray:
    """Tokens (12, 12, 4): sky above, grass below, things in boxes of cells XYXY, some noise."""
    tokens = np.empty((*GRID, 4))
    tokens[:6], tokens[6:] = SKY, GRASS
    for what, (x0, y0, x1, y1) in things:
        tokens[y0:y1, x0:x1] = what
    return tokens + 0.05 * np.random.default_rng(seed).standard_normal(tokens.shape)


def numbered(things: Things) -> np.ndarray:
    """Number of the thing in each cell (12, 12) from 2; 0 is sky and 1 grass."""
    numbers = np.zeros(GRID, int)
    numbers[6:] = 1
    for number, (_, (x0, y0, x1, y1)) in enumerate(things, start=2):
        numbers[y0:y1, x0:x1] = number
    return numbers


def cells(*boxes: Box) -> np.ndarray:
    mask = np.zeros(GRID)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = 1
    return mask


def refer(*examples: tuple[np.ndarray, np.ndarray]) -> EncodedReference:
    shots = [Shot(features(t), torch.tensor(c, dtype=torch.float32)) for t, c in examples]
    return EncodedReference("cat", tuple(shots))


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


SHOWN = (2, 4, 6, 9)
EXAMPLE = (scene([(CAT, SHOWN)], seed=1), cells(SHOWN))
# The object covers its cells by parts only, or no cell at all.
PARTLY = (
    scene([(CAT, SHOWN), (DOG, (8, 5, 11, 9))], seed=2),
    cells(SHOWN) * 0.7 + cells((3, 5, 6, 9)) * 0.3,
)
TINY = (scene([(CAT, (7, 7, 8, 8))], seed=3), cells((7, 7, 8, 8)) * 0.2)


class KnowingSegmenter(Segmenter):
    """Gives the things that are clicked on, whatever its model says, and records the clicks.

    A prompt's masks are the things under all of its clicks, the thing under the first one, and
    the clicked cells; the single one is the first of these.
    """

    def __init__(self, like: Segmenter, numbers: np.ndarray) -> None:
        super().__init__(like.model, model_id=like.model_id)
        self.numbers = numbers
        self.clicks: list[np.ndarray] = []
        self.iou_predictions = (0.95, 0.9, 0.8)
        self.logit = 10.0

    def decode_low_res(
        self,
        embedding,
        *,
        point_coords=None,
        point_labels=None,
        boxes=None,
        mask_input=None,
        multimask_output=True,
    ) -> LowResMasks:
        assert boxes is None
        assert mask_input is None
        assert (np.asarray(point_labels) == 1).all()
        self.clicks.append(np.asarray(point_coords))
        masks = []
        for points in np.asarray(point_coords):
            at = [(int(y + 0.5) // 8, int(x + 0.5) // 8) for x, y in points]
            clicked = np.zeros(GRID, bool)
            clicked[tuple(np.transpose(at))] = True
            things = np.isin(self.numbers, [self.numbers[place] for place in at])
            masks.append([things, self.numbers == self.numbers[at[0]], clicked])
        count = 3 if multimask_output else 1
        wanted = np.array(masks)[:, :count]
        factor = self.model.mask_input_size[0] // GRID[0]
        logits = np.where(wanted, self.logit, -self.logit).astype(np.float32)
        ious = np.tile(np.float32(self.iou_predictions[:count]), (len(masks), 1))
        return LowResMasks(np.kron(logits, np.ones((factor, factor), np.float32)), ious)


def search(
    strategy: MatchingStrategy,
    reference: EncodedReference,
    tokens: np.ndarray,
    segmenter: Segmenter,
) -> tuple[np.ndarray, Matches]:
    """What a strategy finds: masks in cells (N, 12, 12) bool, and the whole answer."""
    embedding: ImageEmbedding = segmenter.encode_image(np.zeros((SIDE, SIDE, 3), np.uint8))
    matches = strategy(reference, Target(segmenter, embedding, features(tokens)))
    masks = segmenter.upscale(embedding, matches.masks).masks[:, 0]
    assert len(masks) == len(matches.prompt_scores)
    assert ((matches.prompt_scores >= 0) & (matches.prompt_scores <= 1)).all()
    return masks.reshape(-1, 12, 8, 12, 8).mean((2, 4)) > 0.5, matches
