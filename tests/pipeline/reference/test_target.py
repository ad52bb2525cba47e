"""Decoded masks in the grid of the features, and their unions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptseg.models.features.dense import DenseFeatures
from promptseg.pipeline.decoding.prompts import LowResMasks
from promptseg.pipeline.prompters.reference.target import Target, groups_of


def grid(image: tuple[int, int], rows: int, columns: int, cell: tuple[float, float]):
    return DenseFeatures(torch.zeros(rows, columns, 2), image, image, cell, "test")


def decoded(*masks: np.ndarray, ious: tuple[float, ...] | None = None) -> LowResMasks:
    logits = np.where(np.stack(masks), 5.0, -5.0).astype(np.float32)[:, None]
    values = np.float32(ious or (0.9,) * len(masks))
    return LowResMasks(logits, values[:, None])


@pytest.fixture
def target(obedient_segmenter):
    """A target of an image (H, W) with a grid of features."""

    def make(image: tuple[int, int], features: DenseFeatures) -> Target:
        embedding = obedient_segmenter.encode_image(np.zeros((*image, 3), np.uint8))
        return Target(obedient_segmenter, embedding, features)

    return make


def box(size: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    ("image", "rows", "columns", "cell"),
    [
        ((96, 96), 12, 12, (8.0, 8.0)),
        ((64, 192), 5, 15, (64 / 5, 12.8)),
        ((200, 100), 7, 4, (30.0, 30.0)),  # the last row and column overhang
        ((30, 40), 3, 4, (10.0, 10.0)),
    ],
)
def test_shares_of_cells_are_those_of_the_mask_at_the_images_size(
    target, obedient_segmenter, image, rows, columns, cell
) -> None:
    features = grid(image, rows, columns, cell)
    found = target(image, features)
    size = obedient_segmenter.model.mask_input_size
    masks = decoded(box(size, 3, 2, 14, 9), box(size, 0, 0, 5, 24), box(size, 0, 0, 24, 24))
    shares = found.cell_shares(masks, samples=8)
    assert shares.shape == (3, rows * columns)
    full = obedient_segmenter.upscale(found.embedding, masks).masks[:, 0]
    for share, mask in zip(shares, full, strict=True):
        expected = features.cell_coverage(mask).numpy().ravel()
        np.testing.assert_allclose(share, expected, atol=0.12)
        assert share.mean() == pytest.approx(expected.mean(), abs=0.02)
    middles = found.cell_shares(masks, samples=1)
    assert np.isin(middles, (0, 1)).all()
    for middle, mask in zip(middles, full, strict=True):
        for covered, (x, y) in zip(middle, features.cell_centres(), strict=True):
            near = mask[max(0, int(y) - 1) : int(y) + 3, max(0, int(x) - 1) : int(x) + 3]
            if near.all() or not near.any():
                assert covered == near.any()
    assert found.cell_shares(masks.take(np.zeros(0, np.intp))).shape == (0, rows * columns)


def test_padding_is_no_part_of_a_mask(target, obedient_segmenter) -> None:
    size = obedient_segmenter.model.mask_input_size
    found = target((48, 96), grid((48, 96), 6, 12, (8.0, 8.0)))
    everywhere = decoded(box(size, 0, 0, size[1], size[0]))
    assert found.pixels(everywhere).shape == (1, size[0] // 2, size[1])
    assert found.pixels(everywhere).all()
    # Two masks that share only padding do not overlap.
    left, right = box(size, 0, 0, 9, size[0]), box(size, 12, 0, 21, size[0])
    left[size[0] // 2 :] = right[size[0] // 2 :] = True
    assert len(set(found.join_overlapping(decoded(left, right), 0.1))) == 2


def test_masks_that_overlap_directly_or_through_others_are_of_one_group(
    target, obedient_segmenter
) -> None:
    size = obedient_segmenter.model.mask_input_size
    found = target((96, 96), grid((96, 96), 12, 12, (8.0, 8.0)))
    masks = decoded(
        box(size, 0, 0, 10, 10),
        box(size, 20, 20, 24, 24),
        box(size, 5, 0, 15, 10),  # half of it in the first
        box(size, 12, 0, 16, 4),  # three quarters of it in the one before
        box(size, 0, 0, 0, 0),
    )
    labels = found.join_overlapping(masks, 0.45)
    assert [group.tolist() for group in groups_of(labels)] == [[0, 2, 3], [1], [4]]
    assert [g.tolist() for g in groups_of(found.join_overlapping(masks, 0.5))] == [
        [0],
        [1],
        [2, 3],
        [4],
    ]


def test_unions_and_their_predicted_iou(target, obedient_segmenter) -> None:
    size = obedient_segmenter.model.mask_input_size
    found = target((96, 96), grid((96, 96), 12, 12, (8.0, 8.0)))
    parts = [box(size, 0, 0, 10, 10), box(size, 4, 0, 14, 5), box(size, 20, 20, 22, 22)]
    masks = decoded(*parts, ious=(0.9, 0.6, 0.3))
    united = found.unite(masks, [np.array([0, 1]), np.array([2])])
    np.testing.assert_array_equal(united.logits[0, 0] > 0, parts[0] | parts[1])
    np.testing.assert_array_equal(united.logits[1], masks.logits[2])
    np.testing.assert_allclose(
        united.iou_predictions, [[(100 * 0.9 + 50 * 0.6) / 150], [0.3]], rtol=1e-6
    )


def test_groups_keep_the_order_of_their_first_members() -> None:
    assert [g.tolist() for g in groups_of(np.array([2, 0, 2, 1]))] == [[0, 2], [1], [3]]
