"""docs/models.md: its examples run on random weights, and its tables name what there is."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from promptseg.models import (
    InputError,
    ModelNotFoundError,
    create_dino,
    create_grounder,
    create_model,
    get_model_info,
    list_grounders,
    list_models,
)
from promptseg.models.errors import CheckpointError
from promptseg.models.grounding.clip.dense import DenseClip
from promptseg.models.grounding.grounding_dino import GroundingDino
from promptseg.models.grounding.owlv2 import Owlv2
from promptseg.models.grounding.sam3 import Sam3Grounder
from promptseg.models.hub.sources import SOURCES
from tests.shrunken import (
    SAM2_DECODER,
    SAM2_PROMPTS,
    SAM2_VISION,
    save_clip,
    save_grounding_dino,
    save_owlv2,
    save_sam3,
)

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

# Width, heads, blocks, blocks of global attention and their window of positions, as published.
HIERAS = {
    "sam2.1_hiera_tiny": (96, 1, (1, 2, 7, 2), (5, 7, 9), 7),
    "sam2.1_hiera_small": (96, 1, (1, 2, 11, 2), (7, 10, 13), 7),
    "sam2.1_hiera_base_plus": (112, 2, (2, 3, 16, 3), (12, 16, 20), 14),
    "sam2.1_hiera_large": (144, 2, (2, 6, 36, 4), (23, 33, 43), 7),
}


def save_sam2(folder: Path, name: str) -> None:
    """A SAM 2 with as many blocks as a published one, and far narrower."""
    _, _, blocks, attention, _ = HIERAS[name]
    vision = deepcopy(SAM2_VISION)
    vision["backbone_config"]["blocks_per_stage"] = list(blocks)
    vision["backbone_config"]["global_attention_blocks"] = list(attention)
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config=SAM2_PROMPTS,
        mask_decoder_config=SAM2_DECODER,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Sam2Model(config).save_pretrained(folder)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights"

    def folder(name: str) -> Path:
        """Where `promptseg models fetch NAME --dir weights` puts a model."""
        made = weights / SOURCES[name].repo.replace("/", "--")
        made.mkdir(parents=True)
        return made

    save_sam2(folder("sam2.1-hiera-tiny"), "sam2.1_hiera_tiny")
    save_owlv2(folder("owlv2-base"))
    save_clip(folder("clip-vit-b-16"))
    torch.save(create_model("sam_vit_t").state_dict(), folder("mobile-sam") / "mobile_sam.pt")
    state = create_dino("vit_small_patch14_dinov2").model.state_dict()
    save_file(state, folder("dinov2-small") / "model.safetensors")
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    assert names["masks"].shape == (1, 3, 60, 80)
    assert names["segmenter"].model_id == "sam2.1_hiera_tiny"
    assert names["box"].masks.shape[0] == 1
    assert names["features"].tokens.shape == (28, 37, 384)


def test_the_tables_are_complete() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `")]
    named = [row[0].strip(" `") for row in rows]
    assert named[: len(list_models())] == list_models()
    assert set(list_grounders()) <= set(named)
    for row in rows:
        name = row[0].strip(" `")
        if name in list_models():
            millions = get_model_info(name).parameters / 1e6
            assert float(row[1].split()[0]) == pytest.approx(millions, abs=0.5)
    words = {word for row in rows for word in re.findall(r"`([^`]+)`", "|".join(row))}
    assert set(SOURCES) <= words


@pytest.mark.parametrize(
    ("name", "save", "kind"),
    [
        ("grounding_dino", save_grounding_dino, GroundingDino),
        ("owlv2", save_owlv2, Owlv2),
        ("sam3", save_sam3, Sam3Grounder),
        ("dense_clip", save_clip, DenseClip),
    ],
)
def test_grounders_by_name(name: str, save: Any, kind: type, tmp_path: Path) -> None:
    save(tmp_path)
    grounder = create_grounder(name, tmp_path, dtype="bf16")
    assert isinstance(grounder, kind)
    assert grounder.dtype == torch.bfloat16


def test_an_unknown_grounder_lists_the_known(tmp_path: Path) -> None:
    says = "'yolo'; there are grounding_dino, owlv2, sam3, dense_clip"
    with pytest.raises(ModelNotFoundError, match=says):
        create_grounder("yolo", tmp_path)


def test_sam2_by_name_is_of_that_size(tmp_path: Path) -> None:
    save_sam2(tmp_path, "sam2.1_hiera_small")
    assert create_model("sam2.1_hiera_small", checkpoint=tmp_path).model_id == "sam2.1_hiera_small"
    with pytest.raises(CheckpointError, match=r"stages have \[1, 2, 11, 2\].*\[1, 2, 7, 2\]"):
        create_model("sam2.1_hiera_tiny", checkpoint=tmp_path)
    with pytest.raises(InputError, match=r"run `hf download facebook/sam2\.1-hiera-base-plus`"):
        create_model("sam2.1_hiera_base_plus")


@pytest.mark.parametrize("name", HIERAS)
def test_sam2_has_the_described_size(name: str) -> None:
    width, heads, blocks, attention, side = HIERAS[name]
    widths = [width * 2**stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": width,
        "num_attention_heads": heads,
        "blocks_per_stage": list(blocks),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [heads * 2**stage for stage in range(4)],
        "global_attention_blocks": list(attention),
        "window_positional_embedding_background_size": [side, side],
    }
    vision = {"backbone_config": backbone, "backbone_channel_list": widths[::-1]}
    with torch.device("meta"):
        model = transformers.Sam2Model(transformers.Sam2Config(vision_config=vision))
    assert get_model_info(name).parameters == sum(p.numel() for p in model.parameters())
