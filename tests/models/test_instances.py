"""The instance head, its file and its peaks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from promptseg.models.embedding import ImageFeatures
from promptseg.models.errors import CheckpointError
from promptseg.models.pocket.instances import (
    OFFSET_UNIT,
    InstanceHead,
    centres,
    load_instance_head,
)


def features() -> ImageFeatures:
    generator = torch.Generator().manual_seed(0)
    return ImageFeatures(
        image_embeddings=torch.randn(1, 16, 4, 6, generator=generator),
        high_res_features=(
            torch.randn(1, 8, 8, 12, generator=generator),
            torch.randn(1, 4, 16, 24, generator=generator),
        ),
        backbone_features=(),
    )


@pytest.fixture
def head() -> InstanceHead:
    torch.manual_seed(0)
    return InstanceHead(embed_dim=16, high_res_dim=8, dim=12).eval()


def test_it_answers_at_stride_8_in_pixels(head) -> None:
    with torch.no_grad():
        logits, offsets = head(features())
        assert logits.shape == (8, 12)
        assert offsets.shape == (2, 8, 12)
        assert logits.sigmoid().mean() < 0.2  # centres are rare before anything is learned
        head.offset.weight.zero_()
        head.offset.bias.copy_(torch.tensor([0.5, -1.0]))
        _, offsets = head(features())
    assert offsets[0].unique().tolist() == [0.5 * OFFSET_UNIT]
    assert offsets[1].unique().tolist() == [-OFFSET_UNIT]


def test_its_file_gives_it_back(head, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file({name: value.half() for name, value in head.state_dict().items()}, path)
    again = load_instance_head(path).eval()
    with torch.no_grad():
        for one, other in zip(again(features()), head(features()), strict=True):
            torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * OFFSET_UNIT)


@pytest.mark.parametrize("wrong", ["missing", "other", "shape"])
def test_another_file_is_refused(head, tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "head.safetensors"
    state = {name: value.clone() for name, value in head.state_dict().items()}
    if wrong == "other":
        state = {"weight": torch.zeros(3)}
    elif wrong == "shape":
        state["centre.weight"] = torch.zeros(1, 99)
    if wrong != "missing":
        save_file(state, path)
    with pytest.raises(CheckpointError, match=r"expected the weights of the instance head"):
        load_instance_head(path)


def test_peaks_come_highest_first_and_not_side_by_side() -> None:
    logits = torch.full((9, 9), -5.0)
    logits[1, 1], logits[1, 2] = 2.0, 1.0  # the lower neighbour is no peak of its own
    logits[6, 7] = 3.0
    logits[7, 2] = -1.0  # too low
    assert centres(logits).tolist() == [[6, 7], [1, 1]]
    assert centres(logits, threshold=-2.0).tolist() == [[6, 7], [1, 1], [7, 2]]
    assert centres(logits, reach=6).tolist() == [[6, 7]]
    assert centres(logits - 10).tolist() == []
