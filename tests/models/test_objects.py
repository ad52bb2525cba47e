"""The object head and its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from promptseg.models.embedding import ImageFeatures
from promptseg.models.errors import CheckpointError
from promptseg.models.pocket.objects import REACH_UNIT, ObjectHead, load_object_head


def features() -> ImageFeatures:
    generator = torch.Generator().manual_seed(0)

    def maps(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=generator)

    return ImageFeatures(
        image_embeddings=maps(16, 4, 6),
        high_res_features=(maps(8, 8, 12), maps(4, 16, 24)),
        backbone_features=(maps(2, 16, 24), maps(3, 8, 12), maps(5, 4, 6), maps(7, 4, 6)),
    )


@pytest.fixture
def head() -> ObjectHead:
    torch.manual_seed(0)
    return ObjectHead(deep_dim=12, embed_dim=16, high_res_dim=8, dim=12, depth=2).eval()


def test_boxes_lie_around_the_cells_of_stride_8(head) -> None:
    with torch.no_grad():
        head.distances.weight.zero_()
        head.distances.bias.copy_(torch.tensor([0.0, 0.5, -0.5, 99.0]))
        boxes, confidence = head(features())
    assert boxes.shape == (8, 12, 4)
    assert confidence.shape == (8, 12)
    reach = REACH_UNIT * torch.tensor([0.0, 0.5, -0.5, 4.0]).exp()  # no distance is endless
    x, y = 5 * 8 + 4, 3 * 8 + 4
    expected = torch.tensor([x, y, x, y]) + reach * torch.tensor([-1, -1, 1, 1])
    torch.testing.assert_close(boxes[3, 5], expected)


def test_all_maps_count(head) -> None:
    given = features()
    with torch.no_grad():
        before = head(given)[1]
        for name in ("image_embeddings", "high_res_features", "backbone_features"):
            other = ImageFeatures(
                **{
                    part: getattr(given, part)
                    for part in ("image_embeddings", "high_res_features", "backbone_features")
                }
                | {
                    name: tuple(2 * value for value in getattr(given, name))
                    if name != "image_embeddings"
                    else 2 * given.image_embeddings
                }
            )
            assert not torch.allclose(head(other)[1], before, atol=1e-3)


def test_its_file_gives_it_back(head, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file({name: value.half() for name, value in head.state_dict().items()}, path)
    again = load_object_head(path).eval()
    with torch.no_grad():
        for one, other in zip(again(features()), head(features()), strict=True):
            torch.testing.assert_close(one, other, rtol=0.02, atol=0.5)


@pytest.mark.parametrize("content", [None, b"", b"no weights"])
def test_a_file_that_is_not_one_is_told(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="weights of the object head"):
        load_object_head(path)


def test_weights_of_another_model_are_told(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file({"deep.weight": torch.zeros(4, 3, 1, 1)}, path)
    with pytest.raises(CheckpointError, match="weights of the object head"):
        load_object_head(path)
