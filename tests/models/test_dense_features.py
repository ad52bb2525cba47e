"""The grid of features, and the pocket ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from promptseg.models.features.dense import DenseFeatures
from promptseg.models.pocket.backbone import EfficientNetLite2
from promptseg.models.pocket.features import PocketFeatures


def make(grid=(2, 3), image_size=(20, 30), cell_size=(10.0, 10.0)) -> DenseFeatures:
    return DenseFeatures(
        tokens=torch.zeros(*grid, 4),
        image_size=image_size,
        input_size=image_size,
        cell_size=cell_size,
        model_id="test",
    )


def test_cells_lie_on_pixels() -> None:
    features = make()
    assert features.grid_size == (2, 3)
    np.testing.assert_array_equal(
        features.cell_centres(),
        [[4.5, 4.5], [14.5, 4.5], [24.5, 4.5], [4.5, 14.5], [14.5, 14.5], [24.5, 14.5]],
    )
    # The last row and column overhang: their middles are moved to the border.
    over = make(image_size=(12, 23)).cell_centres()
    np.testing.assert_array_equal(over[:, 0], [4.5, 14.5, 22, 4.5, 14.5, 22])
    np.testing.assert_array_equal(over[:, 1], [4.5, 4.5, 4.5, 11, 11, 11])


def test_coverage_is_the_share_of_the_cell() -> None:
    mask = np.zeros((20, 30), bool)
    mask[:10, :15] = True
    mask[15, 29] = True
    expected = [[1, 0.5, 0], [0, 0, 0.01]]
    np.testing.assert_allclose(make().cell_coverage(mask), expected, atol=1e-7)
    # Of an overhanging cell the part inside counts.
    small = np.zeros((12, 23), bool)
    small[10:, 20:] = True
    small[11, 22] = False
    over = make(image_size=(12, 23)).cell_coverage(small)
    np.testing.assert_allclose(over, [[0, 0, 0], [0, 0, 5 / 6]], atol=1e-7)
    with pytest.raises(ValueError, match="the mask must be"):
        make().cell_coverage(small)


def test_coverage_of_cells_that_split_pixels() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((7, 11)) > 0.5
    features = make((3, 4), (7, 11), (7 / 3, 11 / 4))
    # Pixels cut in 12 x 12: every cell's border falls between the parts.
    fine = mask.repeat(12, 0).repeat(12, 1)
    expected = fine.reshape(3, 28, 4, 33).mean((1, 3))
    np.testing.assert_allclose(features.cell_coverage(mask), expected, atol=1e-6)


def test_spreading_keeps_places() -> None:
    # A ramp over the cells' centres is the same ramp over the picture.
    features = make((4, 5), (40, 50), (10.0, 10.0))
    cells = torch.arange(5).float().expand(4, 5)
    spread = features.spread(cells, (8, 10))
    assert spread.shape == (8, 10)
    inner = np.arange(10) / 2 - 0.25
    np.testing.assert_allclose(spread[3], np.clip(inner, 0, 4), atol=1e-5)
    # An overhang of half a cell is cut off.
    over = make((4, 5), (40, 45), (10.0, 10.0)).spread(cells, (4, 9))
    np.testing.assert_allclose(over[0], np.clip(np.arange(9) / 2 - 0.25, 0, 4), atol=1e-5)


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite2:
    torch.manual_seed(0)
    model = EfficientNetLite2().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.mul_(2)
    return model


def test_pocket_features_are_the_backbones(backbone) -> None:
    image = np.random.default_rng(0).integers(0, 255, (45, 90, 3), dtype=np.uint8)
    features = PocketFeatures(backbone, input_size=80).extract(image)
    # 80 x 40 pixels padded to 96 x 64: the grid keeps 5 x 3 cells of 6 x 4.
    assert features.grid_size == (3, 5)
    assert features.input_size == (40, 80)
    assert features.cell_size == (18.0, 18.0)
    assert features.tokens.shape == (3, 5, 472)
    middle, last = features.tokens[..., :120], features.tokens[..., 120:]
    for part in (middle, last):
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(3, 5))


def test_an_image_is_encoded_once(backbone) -> None:
    image = np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    extractor = PocketFeatures(backbone, input_size=96)
    pixels = (torch.from_numpy(image).permute(2, 0, 1).float() - 127.5) / 127.5
    with torch.no_grad():
        maps = backbone(pixels[None])
    again = extractor.from_maps(maps, image_size=(64, 96), input_size=(64, 96))
    features = extractor.extract(image)
    torch.testing.assert_close(features.tokens, again.tokens, rtol=1e-4, atol=1e-5)
    assert features.cell_size == again.cell_size
    expected = F.normalize(maps[-1][0, :, 2, 3], dim=0)
    torch.testing.assert_close(again.tokens[2, 3, 120:], expected)
