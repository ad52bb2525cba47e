"""Pictures of plain shapes, and a look that finds them by their colour alone."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from promptseg.pipeline.compact_mask import CompactMask
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.result import RejectedMask

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def paint(size: tuple[int, int], *shapes: tuple[str, tuple[int, int, int, int]]) -> np.ndarray:
    """A grey picture with filled boxes XYXY in a colour."""
    pixels = np.full((*size, 3), 128, np.uint8)
    for colour, (x0, y0, x1, y1) in shapes:
        pixels[y0:y1, x0:x1] = COLOURS[colour]
    return pixels


def components(pixels: np.ndarray, colour: str) -> list[np.ndarray]:
    """Masks of the connected parts of a colour; half of it is enough, as after a reduction."""
    near = np.abs(pixels.astype(int) - COLOURS[colour]).max(-1) < 64
    labels, count = ndimage.label(near, np.ones((3, 3)))
    return [labels == number for number in range(1, count + 1)]


class ByColour:
    """Finds the connected parts of each colour; presence is 0.9 where it is, else 0.1."""

    def __init__(self, *phrases: str, against: str = "") -> None:
        self.phrases = phrases
        self.against = against
        self.asked: list[tuple[tuple[int, ...], float]] = []

    def __call__(self, pixels: np.ndarray, stricter: float) -> Proposals:
        self.asked.append((pixels.shape[:2], stricter))
        found = self._find(pixels, self.phrases)
        if not self.against:
            return found
        from dataclasses import replace

        return replace(found, negatives=self._find(pixels, (self.against,)))

    def _find(self, pixels: np.ndarray, phrases: tuple[str, ...]) -> Proposals:
        masks = [(name, mask) for name in phrases for mask in components(pixels, name)]
        there = {name for name, _ in masks}
        count = len(masks)
        return Proposals(
            image_size=pixels.shape[:2],
            masks=tuple(CompactMask.of(mask) for _, mask in masks),
            labels=tuple(name for name, _ in masks),
            iou_predictions=np.full(count, 0.9, np.float32),
            stability_scores=np.full(count, 0.8, np.float32),
            prompt_scores=np.full(count, 0.7, np.float32),
            rejected=tuple(
                RejectedMask(name, "presence 0.10 below 0.50", 0.1, presence=0.1)
                for name in phrases
                if name not in there
            ),
        )
