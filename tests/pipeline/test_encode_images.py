"""Several images encoded together: the answers of one by one, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from promptseg.models import InputError
from promptseg.models.embedding import ImageEmbedding
from promptseg.pipeline import Segmenter
from promptseg.pipeline.cache.store import EmbeddingCache

SIZES = ((40, 60), (80, 120), (60, 40), (60, 40), (41, 60))


def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def shapes_of(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that the model encodes from now on."""
    sizes: list[int] = []
    original = segmenter.model.encode_image

    def spy(values: torch.Tensor):
        sizes.append(len(values))
        return original(values)

    monkeypatch.setattr(segmenter.model, "encode_image", spy)
    return sizes


def assert_same(found: ImageEmbedding, expected: ImageEmbedding) -> None:
    assert found.original_size == expected.original_size
    assert found.input_size == expected.input_size
    assert found.model_id == expected.model_id
    np.testing.assert_array_equal(found.pixels(), expected.pixels())
    assert not found.pixels().flags.writeable
    for name in ("high_res_features", "backbone_features"):
        ours, theirs = getattr(found.features, name), getattr(expected.features, name)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    ours, theirs = found.features.image_embeddings, expected.features.image_embeddings
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_square_inputs_are_encoded_together(sam, monkeypatch) -> None:
    segmenter = Segmenter(sam, dtype="fp32")
    expected = [segmenter.encode_image(picture) for picture in pictures()]
    sizes = shapes_of(segmenter, monkeypatch)
    found = list(segmenter.encode_images(pictures(), batch_size=3))
    assert sizes == [3, 2]
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)
    # Each has memory of its own: keeping one does not keep the others.
    embeddings = found[0].features.image_embeddings
    assert embeddings.untyped_storage().nbytes() == embeddings.numel() * 4


def test_inputs_with_the_proportions_of_the_image(tiny_segmenter, monkeypatch) -> None:
    segmenter = Segmenter(tiny_segmenter.model, dtype="fp32")
    expected = [segmenter.encode_image(picture) for picture in pictures()]
    sizes = shapes_of(segmenter, monkeypatch)
    found = list(segmenter.encode_images(pictures(), batch_size=8))
    assert sizes == [2, 2, 1]
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)


def test_images_are_read_as_they_are_needed(tiny_segmenter) -> None:
    read = []

    def reading():
        for picture in pictures():
            read.append(len(read))
            yield picture

    found = tiny_segmenter.encode_images(reading(), batch_size=2)
    assert not read
    next(found)
    assert len(read) == 2
    next(tiny_segmenter.encode_images(reading()))
    assert len(read) == 3  # one at a time on a CPU
    assert not list(tiny_segmenter.encode_images([]))


def test_only_what_is_not_cached_is_encoded(sam, tmp_path, monkeypatch) -> None:
    segmenter = Segmenter(sam, cache=EmbeddingCache(tmp_path))
    first, *others = pictures()
    segmenter.encode_image(first)
    sizes = shapes_of(segmenter, monkeypatch)
    assert len(list(segmenter.encode_images([first, *others], batch_size=5))) == 5
    assert sizes == [4]


def test_bad_input(tiny_segmenter) -> None:
    with pytest.raises(InputError, match="batch_size must be 1 or more, got 0"):
        tiny_segmenter.encode_images([], batch_size=0)
    with pytest.raises(InputError):
        list(tiny_segmenter.encode_images([pictures()[0], "missing.png"], batch_size=2))
