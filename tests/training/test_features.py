"""Views of training pictures and their cache."""

from __future__ import annotations

from pathlib import Path

import features
import numpy as np
import pytest
import torch
from features import FeatureCache, View
from safetensors.torch import save_file

from promptseg.apps.evaluation.index_folder import VOID, Sample, read_index
from promptseg.models.pocket.sam import PocketSam, build_pocket_sam


@pytest.fixture(scope="module")
def model(model_config) -> PocketSam:
    torch.manual_seed(0)
    return build_pocket_sam(model_config).eval()


@pytest.fixture(scope="module")
def sample(data_folder) -> Sample:
    return read_index(data_folder)[0]


def test_targets_are_shares_of_cells() -> None:
    ids = np.zeros((16, 24), np.uint8)
    ids[4:8, 8:16] = 1  # cells 2 and 3 of row 1
    ids[8:10, 8:12] = 2  # half of cell 2 of row 2
    ids[0:3, 0:4] = VOID
    view = View((), ids, input_size=(16, 24), grid_size=(8, 8))
    expected = np.zeros((8, 8))
    expected[1, 2:4] = 1
    np.testing.assert_array_equal(view.target((1,)), expected)
    expected[2, 2] = 0.5
    np.testing.assert_array_equal(view.target((1, 2)), expected)
    assert not view.target((9,)).any()
    counted = np.zeros((8, 8))
    counted[:4, :6] = 1  # the rest is padding
    counted[0, 0] = 0
    np.testing.assert_array_equal(view.weight(), counted)


def test_targets_are_scaled_to_the_model_input() -> None:
    ids = np.zeros((32, 48), np.uint8)
    ids[8:16, 16:32] = 1
    view = View((), ids, input_size=(16, 24), grid_size=(8, 8))
    expected = np.zeros((8, 8))
    expected[1, 2:4] = 1
    np.testing.assert_array_equal(view.target((1,)), expected)


@pytest.mark.parametrize("flip", [False, True])
def test_a_view_is_the_same_from_disk(model, sample, tmp_path: Path, flip: bool) -> None:
    cache = FeatureCache(model, tmp_path / "cache")
    first = cache.view(sample, flip=flip)
    files = list((tmp_path / "cache").iterdir())
    assert [path.suffix for path in files] == [".safetensors"]
    again = FeatureCache(model, tmp_path / "cache").view(sample, flip=flip)
    assert len(first.features) == len(again.features) == 2
    assert all(torch.equal(a, b) for a, b in zip(first.features, again.features, strict=True))
    assert first.input_size == again.input_size == (48, 64)
    assert first.grid_size == again.grid_size == (16, 16)
    np.testing.assert_array_equal(first.ids, again.ids)


def test_features_are_the_backbones_early_ones_but_for_rounding(
    model, sample, tmp_path: Path
) -> None:
    view = FeatureCache(model, tmp_path).view(sample, flip=False)
    pixels, _ = model.preprocess(np.asarray(load(sample)))
    with torch.no_grad():
        expected = model.image_encoder.backbone(pixels)[:2]
    for one, other in zip(view.features, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_two_workers_may_compute_the_same_view_at_a_time(
    model, sample, tmp_path: Path, monkeypatch
) -> None:
    caches = {pid: FeatureCache(model, tmp_path) for pid in (1, 2)}
    running = [1]
    monkeypatch.setattr(features.os, "getpid", lambda: running[-1])

    def save_while_the_other_does(tensors: dict[str, torch.Tensor], path: Path) -> None:
        save_file(tensors, path)
        if running == [1]:
            running.append(2)
            caches[2].view(sample, flip=False)
            running.pop()

    monkeypatch.setattr(features, "save_file", save_while_the_other_does)
    first = caches[1].view(sample, flip=False)
    again = caches[2].view(sample, flip=False)
    assert all(torch.equal(a, b) for a, b in zip(first.features, again.features, strict=True))
    assert len(list(tmp_path.iterdir())) == 1


def load(sample: Sample) -> np.ndarray:
    from PIL import Image

    with Image.open(sample.image_path) as image:
        return np.asarray(image)


def test_mirrored_views_have_files_and_ids_of_their_own(model, sample, tmp_path: Path) -> None:
    cache = FeatureCache(model, tmp_path)
    plain, flipped = cache.view(sample, flip=False), cache.view(sample, flip=True)
    np.testing.assert_array_equal(flipped.ids, plain.ids[:, ::-1])
    assert len(list(tmp_path.iterdir())) == 2
    assert not torch.allclose(plain.features[0], flipped.features[0], atol=1e-2)
    # The box of one view is the mirrored box of the other.
    mirrored = plain.target((1,)).flip(1)
    torch.testing.assert_close(flipped.target((1,)), mirrored, rtol=0, atol=1e-5)
