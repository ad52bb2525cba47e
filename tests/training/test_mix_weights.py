"""Weights between two generations."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from mix_weights import main, mixed
from pocket_models import FILES
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from promptseg.models.pocket.grounder import TEXT_FILE

FIRST = {"a": torch.tensor([0.0, 2.0]).half(), "known.pictures": torch.tensor([1])}
SECOND = {"a": torch.tensor([4.0, 2.0]).half(), "known.pictures": torch.tensor([7, 9])}


def test_weights_are_mixed_and_words_are_the_laters() -> None:
    found = mixed(FIRST, SECOND, 0.25)
    assert found["a"].tolist() == [1, 2]
    assert found["a"].dtype == torch.float16
    assert found["known.pictures"].tolist() == [7, 9]


def test_the_command_mixes_folders_and_keeps_a_part_that_is_new(tmp_path, monkeypatch) -> None:
    first, second, out = (tmp_path / name for name in ("first", "second", "out"))
    first.mkdir()
    second.mkdir()
    *old, new = FILES.values()
    for name in old:
        save_file(FIRST, first / name)
    for name in FILES.values():
        save_file(SECOND, second / name)
    monkeypatch.setattr(sys, "argv", ["mix_weights.py", str(first), str(second), "0.5", str(out)])
    main()
    assert all(load_file(out / name)["a"].tolist() == [2, 2] for name in old)
    assert load_file(out / new)["a"].tolist() == [4, 2]


def test_the_earlier_list_of_words_may_be_kept(tmp_path, monkeypatch) -> None:
    first, second, out = (tmp_path / name for name in ("first", "second", "out"))
    for folder, weights, words in ((first, FIRST, '["cat"]'), (second, SECOND, '["cat", "cup"]')):
        folder.mkdir()
        for name in FILES.values():
            metadata = {"step": "9"} | ({"words": words} if name == TEXT_FILE else {})
            save_file(weights, folder / name, metadata=metadata)
    command = ["mix_weights.py", str(first), str(second), "0.5", str(out), "--keep-words"]
    monkeypatch.setattr(sys, "argv", command)
    main()
    text = load_file(out / TEXT_FILE)
    assert (text["a"].tolist(), text["known.pictures"].tolist()) == ([2, 2], [1])
    with safe_open(out / TEXT_FILE, framework="pt") as file:
        assert file.metadata() == {"step": "9", "words": '["cat"]'}


def test_a_share_is_from_0_to_1(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["mix_weights.py", "a", "b", "1.5", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        main()
    assert "from 0 to 1" in capsys.readouterr().err
