"""What detectors are compared on, and how."""

from __future__ import annotations

import numpy as np
import torch

from promptseg.models.grounding.answers import MIN_SCORE, MIN_SIDE, Detections

IMAGES = {
    name: np.random.default_rng(len(name)).integers(0, 255, (*size, 3), dtype=np.uint8)
    for name, size in {"wide": (60, 100), "high": (90, 50), "square": (64, 64)}.items()
}


def assert_equal_to_all(
    found: Detections, boxes: torch.Tensor, scores: torch.Tensor, image: np.ndarray
) -> None:
    """Compare with all boxes (Q, 4) and scores (Q,) of a reference, unsorted and unclipped."""
    height, width = image.shape[:2]
    expected = []
    for (x0, y0, x1, y1), score in zip(boxes.tolist(), scores.tolist(), strict=True):
        box = [max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)]
        if box[2] - box[0] >= MIN_SIDE and box[3] - box[1] >= MIN_SIDE:
            expected.append((score, box))
    expected.sort(key=lambda pair: -pair[0])
    assert abs(found.presence - expected[0][0]) < 1e-5
    kept = [(score, box) for score, box in expected if score >= MIN_SCORE]
    assert kept
    np.testing.assert_allclose(found.scores, [score for score, _ in kept], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.boxes_xyxy, [box for _, box in kept], rtol=0, atol=1e-3)
